"""What became of one call: what its caller, its task and its callbacks get."""

from __future__ import annotations

import json

import pytest

from celery_stargate import ProduceError, ProduceTimeout
from celery_stargate.model.outcome import Outcome
from celery_stargate.model.outcomes import CallOutcomes
from tests.unit.helpers import TOPIC, failure, receipt


def call(*outcomes: Outcome, is_list: bool = False) -> CallOutcomes:
    """Return what became of a call."""
    return CallOutcomes("c", is_list, outcomes)


def test_one_receipt() -> None:
    """Is the answer and, as a dict, the result."""
    found = call(receipt())
    assert not found.failed
    assert found.answer() == receipt()
    assert found.receipts() == [receipt()]
    assert found.result == receipt().to_dict()


@pytest.mark.parametrize("count", [1, 2])
def test_a_list(count: int) -> None:
    """Stays a list, even with one message."""
    receipts = [receipt(entry_id=number) for number in range(count)]
    found = call(*receipts, is_list=True)
    assert found.answer() == receipts
    assert found.result == [each.to_dict() for each in receipts]


@pytest.mark.parametrize(
    ("code", "kind"), [("http-404", ProduceError), ("deadline", ProduceTimeout)]
)
def test_a_failure_is_raised(code: str, kind: type[ProduceError]) -> None:
    """As the kind of error that its code means."""
    found = call(failure(code=code))
    assert found.failed
    assert found.failure == failure(code=code)
    with pytest.raises(ProduceError) as caught:
        found.answer()
    assert type(caught.value) is kind


def test_a_list_that_failed() -> None:
    """Is unknown if any message is, and tells every message's outcome."""
    outcomes: list[Outcome] = [
        failure(reason="a"),
        failure(reason="b", status="unknown"),
        receipt(),
    ]
    found = call(*outcomes, is_list=True).failure
    assert (found.context, found.topic, found.status) == ("c", TOPIC, "unknown")
    assert found.reason == "2 of 3 messages failed: b"
    assert found.outcomes == [each.to_dict() for each in outcomes]
    json.dumps(found.to_dict())


def test_no_failure() -> None:
    """Is an error of the program, not an empty failure."""
    with pytest.raises(IndexError):
        _ = call(receipt()).failure
