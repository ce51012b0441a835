"""``instrumentation/tracing.py``: what it does by Celery's signals, and how it begins and ends."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from celery_stargate.instrumentation import tracing as module
from celery_stargate.instrumentation.semantic import CONTEXT_HEADER, MESSAGE_ID_HEADER, TOPIC_HEADER
from celery_stargate.instrumentation.tracing import StargateInstrumentor
from celery_stargate.support import tracing
from tests.unit.helpers import TOPIC

CARRIER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans:
    """What was exported, and how often the provider was flushed."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.flushed: list[int] = []

    def force_flush(self, timeout: int) -> None:
        """Note it."""
        self.flushed.append(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.provider, name)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """Trace in this process, without Celery's own instrumentation."""
    monkeypatch.setattr(module, "_celery_is_instrumented", lambda: False)
    found = Spans()
    instrumentor = StargateInstrumentor()
    instrumentor.instrument(tracer_provider=found)
    yield found
    instrumentor.uninstrument()


def request(**headers: Any) -> Any:
    """The request of a callback's task, as a worker has it."""
    return SimpleNamespace(request=SimpleNamespace(**headers))


def run_callback(task: Any, error: BaseException | None = None) -> None:
    """Send the signals of a task that runs."""
    signals.task_prerun.send(sender="t", task_id="t", task=task)
    if error is not None:
        signals.task_failure.send(sender="t", task_id="t", exception=error)
    signals.task_postrun.send(sender="t", task_id="t", task=task)


def test_it_begins_once_and_ends_once(spans: Spans) -> None:
    """A second time changes nothing: another library may call it, too."""
    first = tracing.current()
    assert first is not None
    StargateInstrumentor().instrument(tracer_provider=TracerProvider())
    assert tracing.current() is first
    StargateInstrumentor().uninstrument()
    assert tracing.current() is None
    StargateInstrumentor().uninstrument()
    assert tracing.current() is None


@pytest.mark.parametrize("message_id", ["CAwQAA==", None])
@pytest.mark.parametrize("error", [None, ValueError("no lamp")])
def test_a_callback_is_in_the_trace_of_its_message(
    spans: Spans, message_id: str | None, error: Exception | None
) -> None:
    """With the message that it is for; one that fails is an error."""
    headers = {"traceparent": CARRIER, TOPIC_HEADER: TOPIC, CONTEXT_HEADER: "c"}
    if message_id is not None:
        headers[MESSAGE_ID_HEADER] = message_id
    run_callback(request(**headers), error)
    [span] = spans.exporter.get_finished_spans()
    assert span.name == f"process {TOPIC}"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" in CARRIER
    attributes = dict(span.attributes or {})
    assert attributes.get("messaging.message.id") == message_id
    assert attributes["messaging.message.conversation_id"] == "c"
    assert (span.status.status_code is StatusCode.ERROR) is (error is not None)


@pytest.mark.parametrize("headers", [{}, {TOPIC_HEADER: TOPIC, CONTEXT_HEADER: "c"}])
def test_other_tasks_have_no_span(spans: Spans, headers: dict[str, Any]) -> None:
    """One that is no callback, and one whose call was not traced; nor if they fail."""
    run_callback(request(**headers), ValueError("of the task"))
    assert spans.exporter.get_finished_spans() == ()


def test_a_process_of_the_pool_that_ends(spans: Spans) -> None:
    """Exports what is left, where its provider can."""
    signals.worker_process_shutdown.send(sender=None)
    assert len(spans.flushed) == 1
    StargateInstrumentor().uninstrument()
    StargateInstrumentor().instrument(tracer_provider=SimpleNamespace(get_tracer=spans.get_tracer))
    signals.worker_process_shutdown.send(sender=None)
    assert len(spans.flushed) == 1


def test_a_publish_without_headers(spans: Spans) -> None:
    """Whoever publishes so gets none from here; within a receipt's trace, others do."""
    with tracing.follow({"traceparent": CARRIER}, "c", TOPIC, None):
        signals.before_task_publish.send(sender="t", headers=None)
        given: dict[str, Any] = {}
        signals.before_task_publish.send(sender="t", headers=given)
    assert (given[TOPIC_HEADER], given[CONTEXT_HEADER]) == (TOPIC, "c")
    assert "traceparent" in given
    assert MESSAGE_ID_HEADER not in given
