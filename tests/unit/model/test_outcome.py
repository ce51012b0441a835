"""Outcomes, as callbacks and results get them."""

from __future__ import annotations

import json

import msgspec
import pytest

from celery_stargate import Failure, Receipt
from celery_stargate.model.outcome import failure_status
from tests.unit.helpers import TOPIC, failure, receipt


def test_a_receipt_is_a_dict_of_json_types() -> None:
    """All its fields, those that are not known as null: a callback can rely on their names."""
    expected = {
        "context": "c",
        "topic": TOPIC,
        "status": "stored",
        "message_id": "CAwQADAA",
        "ledger_id": 12,
        "entry_id": 0,
        "partition": -1,
        "batch_index": -1,
    }
    assert receipt().to_dict() == expected
    assert json.loads(json.dumps(receipt().to_dict())) == expected
    assert Receipt(context="c").to_dict() == {
        **dict.fromkeys(expected),
        "context": "c",
        "status": "stored",
    }


def test_a_value_is_there_where_one_was_given() -> None:
    """By whoever acknowledged a context without a message."""
    assert Receipt(context="c", value=[0]).to_dict()["value"] == [0]
    assert Receipt(context="c", value=0).to_dict()["value"] == 0
    assert "value" not in Receipt(context="c").to_dict()


def test_a_failure_is_a_dict_of_json_types() -> None:
    """With the outcomes only where there was a list."""
    assert failure().to_dict() == {
        "context": "c",
        "topic": TOPIC,
        "status": "refused",
        "reason": "no",
        "code": "http-404",
    }
    assert failure(outcomes=[{"a": 1}]).to_dict()["outcomes"] == [{"a": 1}]


def test_a_bare_failure_says_so() -> None:
    """One needs only a context to fail it."""
    bare = Failure(context="c")
    assert (bare.status, bare.code, bare.reason) == ("refused", "failed", "no reason was given")


@pytest.mark.parametrize("outcome", [receipt(value={"a": 1}), failure(outcomes=[{}])])
def test_outcomes_are_told_apart_in_json(outcome: Receipt | Failure) -> None:
    """They stand beside one another in a list's outcomes."""
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Receipt | Failure) == outcome


def test_outcomes_do_not_change() -> None:
    """Neither gets another word later."""
    with pytest.raises(AttributeError):
        receipt().status = "transient"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("number", "sent", "status"),
    [(1, 0, "refused"), (5, 4, "refused"), (5, 5, "unknown"), (4, 5, "unknown")],
)
def test_the_status_of_a_failure(number: int, sent: int, status: str) -> None:
    """Promise P3: refused only where no earlier send can be stored."""
    assert failure_status(number, sent) == status
