"""Where traces hook in: without one nothing is made."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from celery import signals
from kombu.utils.imports import symbol_by_name

from celery_stargate import InvalidMessage
from celery_stargate.calls.many import prepare_many
from celery_stargate.calls.prepare import Preparation, prepare
from celery_stargate.effects.results.write import has_receivers
from celery_stargate.effects.signatures import NO_CALLBACKS
from celery_stargate.instrumentation.tracing import StargateInstrumentor
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.support import tracing
from tests.unit.helpers import TOPIC, make_stargate

CARRIER = {"traceparent": "00-1-1-01"}


class Traced:
    """A trace that notes how it ended."""

    carrier = CARRIER

    def __init__(self) -> None:
        self.ends: list[Any] = []

    def active(self) -> Any:
        return nullcontext()

    def end(self, error: BaseException | None = None) -> None:
        self.ends.append(error)


class Noted:
    """Traces by noting."""

    def __init__(self) -> None:
        self.followed: list[Any] = []

    def begin(
        self, topic: str, context: str, server: str | None, given: Mapping[str, object]
    ) -> Traced:
        return Traced()

    @contextmanager
    def follow(self, carrier: Any, *given: Any) -> Iterator[None]:
        self.followed.append((carrier, *given))
        yield


def preparation() -> Preparation:
    return Preparation(Topic.parse(TOPIC), ProducerOptions())


def test_nothing_traces_by_default() -> None:
    assert tracing.current() is None
    assert preparation().begin_trace("c", None) is None
    call = preparation().call("x", "c")
    assert call.carrier is None
    assert call.record(NO_CALLBACKS).trace is None
    with call.traced(), tracing.follow(CARRIER, "c", None, None):
        call.end_trace()


def test_the_context_is_in_the_message_and_in_the_record() -> None:
    noted = Noted()
    tracing.use(noted)
    try:
        trace: Any = preparation().begin_trace("c", None)
        with tracing.follow(None, "c", None, None), tracing.follow(CARRIER, "c", TOPIC, "id"):
            pass
    finally:
        tracing.use(None)
    call = preparation().call("x", "c", trace)
    assert b'"properties":{"traceparent":"00-1-1-01"}' in call.parts[0].frame
    assert call.record(NO_CALLBACKS).trace == CARRIER
    assert noted.followed == [(CARRIER, "c", TOPIC, "id")]
    with call.traced():
        pass
    assert trace.ends == [None]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Traced]:
    """The traces that are begun."""
    found: list[Traced] = []

    class Begins(Noted):
        def begin(self, *given: Any) -> Traced:
            found.append(Traced())
            return found[-1]

    monkeypatch.setattr(tracing, "_current", Begins())
    return found


@pytest.mark.parametrize("messages", [[["a", "b"]], ["a", object()], []])
def test_what_is_not_recorded_ends_its_trace(messages: list[Any], begun: list[Traced]) -> None:
    """A bad message, alone or among many, and no message at all."""
    settings = Settings(url="ws://localhost:8080")
    parsed, options = settings.resolve(TOPIC)
    with contextlib.suppress(InvalidMessage):
        prepare_many(messages, parsed, options)
    with contextlib.suppress(InvalidMessage):
        prepare(settings, object(), "c", TOPIC)
    assert [len(each.ends) for each in begun] == [1, 1]
    assert isinstance(begun[1].ends[0], InvalidMessage)
    assert (begun[0].ends[0] is None) == (not messages)


@pytest.mark.parametrize("bad", [{"on_ack": 5}, {"on_error": "no"}, {"timeout": -1}])
def test_a_bad_option_ends_the_trace(bad: dict[str, Any], begun: list[Traced]) -> None:
    """Though the message is good."""
    stargate, _, task = make_stargate()
    with pytest.raises(InvalidMessage):
        stargate.produce("x", **bad)
    bad = {name.replace("timeout", "delivery_timeout"): value for name, value in bad.items()}
    with pytest.raises(InvalidMessage):
        task.delay("x", **bad)
    assert [len(each.ends) for each in begun] == [1, 1]


def test_the_entry_point_is_the_instrumentor() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    entry = project["project"]["entry-points"]["opentelemetry_instrumentor"]["celery_stargate"]
    assert symbol_by_name(entry) is StargateInstrumentor


def test_tracing_leaves_produce_tasks_without_celerys_tracer() -> None:
    """It hears of each task that runs, but not of those that have their outcome from Pulsar: that
    would make a drain many times slower.
    """
    heard = signals.task_prerun, signals.task_postrun, signals.task_success
    before = has_receivers(*heard)
    instrumentor = StargateInstrumentor()
    instrumentor.instrument()
    try:
        assert has_receivers(*heard) == before
        assert any(signals.task_prerun.receivers)
    finally:
        instrumentor.uninstrument()
