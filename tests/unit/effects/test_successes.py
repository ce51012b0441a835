"""Celery's log line of a success, without its tracer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery.app import trace
from celery.utils.saferepr import saferepr
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_stargate import Receipt
from celery_stargate.effects.successes import Successes, text_of
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.follow_up import PRODUCE
from tests.unit.helpers import make_app, receipt

_TEXTS = st.text("ab '\"\\\n…é,:", max_size=80)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([*Receipt.__struct_fields__, "it's", "two words"]),
        st.one_of(st.none(), st.integers(), st.booleans(), st.floats(), _TEXTS),
        max_size=9,
    ),
    st.integers(0, 400),
)
def test_the_text_of_a_result_is_saferepr_s(result: dict[str, Any], size: int) -> None:
    """Wherever it is cut off."""
    assert text_of(result, size) == saferepr(result, size)


@settings(max_examples=300)
@given(
    st.one_of(st.uuids().map(str), _TEXTS, st.text("ab-_:.'", min_size=1, max_size=60)),
    _TEXTS,
    st.dictionaries(st.sampled_from(["status", "entry_id"]), st.none() | _TEXTS),
    st.integers(0, 200),
)
def test_the_text_of_a_receipt_that_is_cut_off(
    context: str, topic: str, others: dict[str, Any], size: int
) -> None:
    """At its topic, behind it, or before."""
    result = {"context": context, "topic": topic, **others}
    assert text_of(result, size) == saferepr(result, size)


@pytest.mark.parametrize("size", [64, 256])
def test_of_what_is_no_receipt(size: int) -> None:
    """A list, a value in a receipt, and anything else."""
    one = receipt("c" * 36).to_dict()
    for result in ([one, one], {**one, "value": {"a": ["b" * 300]}}, "text", None):
        assert text_of(result, size) == saferepr(result, size)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log at INFO."""
    before = trace.logger.level
    trace.logger.setLevel(logging.INFO)
    yield caplog
    trace.logger.setLevel(before)


@pytest.mark.parametrize("request_", [None, "{}", '{"stargate_call": [["m"], {"topic": "t"}]}'])
def test_a_request_without_reprs(request_: str | None, lines: pytest.LogCaptureFixture) -> None:
    """Shows the arguments, as Celery does."""
    successes = Successes(make_app())
    assert successes.logged
    successes.log([Settled(Record("c", task=PRODUCE, request=request_), (receipt("c"),))])
    [line] = lines.records
    assert line.getMessage().startswith(f"Task {PRODUCE}[c] succeeded in ")
    call = json.loads(request_ or "{}").get("stargate_call", ((), {}))
    assert line.__dict__["data"]["args"] == str(tuple(call[0]))
    assert line.__dict__["data"]["kwargs"] == str(call[1])


def test_one_that_cannot_be_logged_hits_no_other(lines: pytest.LogCaptureFixture) -> None:
    """It is told."""
    damaged = Settled(Record("a", task=PRODUCE, request='{"shadow": 1}'), (receipt("a"),))
    fine = Settled(Record("b", task=PRODUCE), (receipt("b"),))
    Successes(make_app()).log([damaged, fine])
    assert "a success is not logged context=a" in lines.text
    assert "[b] succeeded" in lines.text


def test_at_warning_nothing_is_logged() -> None:
    """And nobody has to ask for records."""
    before = trace.logger.level
    trace.logger.setLevel(logging.WARNING)
    try:
        assert not Successes(make_app()).logged
    finally:
        trace.logger.setLevel(before)
