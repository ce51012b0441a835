"""Records as operators see them."""

from __future__ import annotations

import json

import pytest
from celery import Celery, chain, chord, group

from celery_stargate import Failure, Receipt
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.lanes.record import Record, encode_outcome, encode_record
from celery_stargate.operations.records import read_outcomes, read_record, task_names


def test_reads_the_head_and_the_record() -> None:
    body = encode_record(Record("c", task="shop.orders"))
    found = read_record(b"1 7 2 0\n" + body)
    assert found is not None
    assert (found.first, found.count, found.recorded_at) == (7, 2, None)
    assert found.record.task == "shop.orders"


def test_reads_the_time_of_a_head_that_tells_it() -> None:
    found = read_record(b"1 7 1 0 1764130000000\n" + encode_record(Record("c")))
    assert found is not None
    assert found.recorded_at == 1_764_130_000_000


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b'9 1 1 0\n{"context":"c"}',
        b"3 1 1 0\n{}",
        b"1 1 1 0\nno JSON",
        b"1 x 1 0\n{}",
        b"1 1\n{}",
        b"1 1 1 0\n{}",
    ],
)
def test_a_record_that_cannot_be_read_is_none(stored: bytes) -> None:
    assert read_record(stored) is None


def test_reads_outcomes_of_all_kinds() -> None:
    stored = [
        encode_outcome(Receipt(context="c", ledger_id=1)),
        encode_outcome(Failure(context="c", reason="no")),
        b"0",
        b"1",
    ]
    found = read_outcomes(b"[" + b",".join(stored) + b"]")
    assert [each["status"] for each in found] == ["stored", "refused", "refused", "unknown"]
    assert read_outcomes(b"damaged") == []


def test_names_the_tasks_of_a_callback_without_their_arguments() -> None:
    app = Celery("names", set_as_current=False)

    @app.task(name="shop.paid")
    def paid(secret: str) -> None: ...

    @app.task(name="shop.mail")
    def mail(secret: str) -> None: ...

    def names(signature: object) -> str | None:
        return task_names(freeze_callback("on_ack", signature, app))

    assert names(paid.s("secret")) == "shop.paid"
    assert names(group(paid.s("secret"), mail.s("secret"))) == "shop.paid, shop.mail"
    assert names(chain(paid.s("secret"), mail.s())) == "shop.paid, shop.mail"
    assert names(chord([paid.s("secret")], mail.s())) == "shop.paid, shop.mail"
    assert names(None) is None


@pytest.mark.parametrize("packed", ["no JSON", "[]", "{}", '{"task": 5}', json.dumps("x")])
def test_a_callback_that_cannot_be_read_is_a_question_mark(packed: str) -> None:
    assert task_names(packed) == "?"
