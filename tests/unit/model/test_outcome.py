"""Outcomes, as callbacks and results get them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from kombu.utils import json as kombu_json
from pydantic import BaseModel, TypeAdapter, ValidationError

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


def test_str_is_a_line_for_people() -> None:
    """With the place as ledger:entry, where there is one."""
    assert str(receipt()) == f"stored in {TOPIC} at 12:0 (context c)"
    deduplicated = Receipt(context="c", topic=TOPIC, status="deduplicated")
    assert str(deduplicated) == f"deduplicated in {TOPIC} (context c)"
    assert str(Receipt(context="c")) == "stored (context c)"
    assert str(failure()) == f"refused: no (context c, {TOPIC})"


OUTCOMES = [receipt(), receipt(value={"a": 1}), Receipt(context="c"), failure(outcomes=[{}])]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_outcomes_are_like_mappings(outcome: Receipt | Failure) -> None:
    """So they can be returned where dicts can."""
    assert dict(outcome) == {**outcome} == outcome.to_dict()
    assert list(outcome) == list(outcome.to_dict())
    assert outcome["context"] == "c"
    assert "context" in outcome
    with pytest.raises(KeyError):
        outcome["nothing"]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_task_may_return_an_outcome(outcome: Receipt | Failure) -> None:
    """Celery's JSON carries it as its dict."""
    assert kombu_json.loads(kombu_json.dumps([outcome])) == [outcome.to_dict()]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_pydantic_encodes_and_reads_outcomes(outcome: Receipt | Failure) -> None:
    """In a field of a model and by themselves, as FastAPI's return types are."""
    adapter = TypeAdapter(type(outcome))
    assert adapter.dump_python(outcome) == outcome.to_dict()
    assert json.loads(adapter.dump_json(outcome)) == outcome.to_dict()
    assert adapter.validate_python(outcome) is outcome
    assert adapter.validate_python(outcome.to_dict()) == outcome
    assert adapter.validate_json(adapter.dump_json(outcome)) == outcome


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_of_a_receipt(mode: Any) -> None:
    """Names its fields in an API's description."""
    schema = TypeAdapter(Receipt).json_schema(mode=mode)
    assert schema["properties"].keys() == {*Receipt.__struct_fields__}
    assert schema["properties"]["status"]["enum"] == ["stored", "deduplicated", "transient"]
    assert schema["required"] == ["context"]


def test_a_receipt_in_a_model() -> None:
    """A wrong field is told as pydantic tells it."""

    class Order(BaseModel):
        receipts: list[Receipt]

    order = Order(receipts=[receipt()])
    assert order.model_dump() == {"receipts": [receipt().to_dict()]}
    assert Order.model_validate_json(order.model_dump_json()) == order
    with pytest.raises(ValidationError):
        Order.model_validate({"receipts": [{"context": 5}]})


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
