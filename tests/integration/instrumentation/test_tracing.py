"""One trace from the call to its callback, read from an exporter in memory."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from celery_stargate import Acknowledger, LaneFull, Stargate, StoreUnavailable, produce_task
from celery_stargate.instrumentation.tracing import StargateInstrumentor
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for

_PERMANENT = "org.apache.pulsar.client.api.PulsarClientException$InvalidMessageException: bad"


class Spans:
    """What was exported."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self.exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, operation: str) -> list[ReadableSpan]:
        """Return the spans of an operation."""
        return [
            each
            for each in self.exporter.get_finished_spans()
            if each.name.partition(" ")[0] == operation
        ]

    def wait(self, *operations: str) -> list[ReadableSpan]:
        """Return one span of each operation, as soon as there are these."""
        wait_for(lambda: all(self.named(each) for each in operations), what=str(operations))
        found = [self.named(each) for each in operations]
        assert [len(each) for each in found] == [1] * len(operations), self.names()
        return [each[0] for each in found]

    def names(self) -> list[str]:
        """Return the names of all spans."""
        return [each.name for each in self.exporter.get_finished_spans()]


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Trace in this process."""
    found = Spans(TracerProvider())
    instrumentor = StargateInstrumentor()
    instrumentor.instrument(tracer_provider=found.provider)
    yield found
    instrumentor.uninstrument()


def trace_ids(*spans: ReadableSpan) -> set[int]:
    """Return the ids of their traces."""
    return {each.context.trace_id for each in spans if each.context}


def span_id(span: ReadableSpan) -> int:
    assert span.context
    return int(span.context.span_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def callback(make_app: MakeApp, local: LocalPulsar) -> Iterator[tuple[Celery, list[Any]]]:
    """An app whose worker runs in this process, and what its callback got."""
    app = make_app(local.url, conf={"task_default_queue": "traced"})
    got: list[Any] = []

    @app.task(name="traced.callback", shared=False)
    def note(receipt: Any) -> None:
        span = trace.get_current_span().get_span_context()
        got.append((receipt, span.trace_id))

    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
        yield app, got


def test_one_trace_from_the_call_to_the_callback(
    callback: tuple[Celery, list[Any]], local: LocalPulsar, topic: str, spans: Spans
) -> None:
    """create → send → settle → process: one trace id, each with the names of the conventions."""
    app, got = callback
    task: Any = app.tasks[produce_task.name]
    result = task.delay("payload", on_ack=app.signature("traced.callback"))
    create, send, settle, process = spans.wait("create", "send", "settle", "process")
    [(receipt, seen)] = got
    assert trace_ids(create, send, settle, process) == {seen}
    assert receipt["context"] == result.id
    # Who is whose child.
    parents = {
        each.name.partition(" ")[0]: each.parent.span_id
        for each in (send, settle, process)
        if each.parent
    }
    assert parents == {"send": span_id(create), "settle": span_id(send), "process": span_id(create)}
    for span, operation in zip(
        (create, send, settle, process), ("create", "send", "settle", "process"), strict=True
    ):
        found = attributes(span)
        assert span.name == f"{operation} {topic}"
        assert found["messaging.system"] == "pulsar"
        assert found["messaging.operation.name"] == found["messaging.operation.type"] == operation
        assert found["messaging.destination.name"] == topic
        assert found["messaging.message.conversation_id"] == result.id
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    for span in (send, settle, process):
        assert attributes(span)["messaging.message.id"] == receipt["message_id"]
    assert attributes(send)["server.address"] == "127.0.0.1"
    assert attributes(send)["server.port"] == int(local.url.rpartition(":")[2])
    assert [each.kind.name for each in (create, send, settle, process)] == [
        *("PRODUCER", "CLIENT", "CLIENT", "CONSUMER"),
    ]
    times = create.start_time, send.start_time, send.end_time, settle.end_time
    assert list(times) == sorted(each for each in times if each)
    # Who reads the topic can go on with it.
    [message] = local.messages(topic)
    version, trace_id, parent, flags = message.properties["traceparent"].split("-")
    assert (version, int(trace_id, 16), int(flags, 16) & 1) == ("00", seen, 1)
    assert int(parent, 16) == span_id(create)


def test_the_call_goes_on_with_the_trace_of_its_caller(
    callback: tuple[Celery, list[Any]], spans: Spans
) -> None:
    app, got = callback
    tracer = spans.provider.get_tracer("of the user")
    with tracer.start_as_current_span("checkout") as span:
        context = Stargate.of(app).produce("payload", on_ack=app.signature("traced.callback"))
    create, _, _, process = spans.wait("create", "send", "settle", "process")
    assert trace_ids(create, process) == {span.get_span_context().trace_id}
    assert got[0][0]["context"] == context


def test_by_the_broker_it_is_one_trace_too(
    callback: tuple[Celery, list[Any]], spans: Spans
) -> None:
    """The call's task carries it in its headers to the worker that records the message."""
    app, _ = callback
    task: Any = app.tasks[produce_task.name]
    task.apply_async(("payload",), {"on_ack": app.signature("traced.callback")}, via="broker")
    found = spans.wait("create", "send", "settle", "process")
    assert len(trace_ids(*found)) == 1


def test_beside_celerys_own_instrumentation(
    callback: tuple[Celery, list[Any]], spans: Spans
) -> None:
    """Its spans are in the same trace, and the callback has one span: Celery's."""
    app, got = callback
    celerys: Any = CeleryInstrumentor()  # type: ignore[no-untyped-call]  # it has no types
    celerys.instrument(tracer_provider=spans.provider)
    try:
        task: Any = app.tasks[produce_task.name]
        task.delay("payload", on_ack=app.signature("traced.callback"))
        create, send, settle = spans.wait("create", "send", "settle")
        [run] = wait_for(lambda: spans.named("run/traced.callback"))
    finally:
        celerys.uninstrument()
    assert not spans.named("process")
    others = spans.named("apply_async/traced.callback")
    assert len(others) == 1
    assert trace_ids(create, send, settle, run, *others) == {got[0][1]}


def test_a_list_and_many_are_a_trace_each(
    make_app: MakeApp, local: LocalPulsar, spans: Spans
) -> None:
    stargate = Stargate.of(make_app(local.url))
    stargate.produce(["a", "b"])
    stargate.produce_many(["c", "d", "e"])
    wait_for(lambda: len(spans.named("settle")) == 5)
    first, second = spans.named("create")
    by_trace = dict.fromkeys(trace_ids(first, second), 0)
    for each in spans.named("send"):
        [found] = trace_ids(each)
        by_trace[found] += 1
    assert sorted(by_trace.values()) == [2, 3]


def test_in_eager_mode_the_callback_is_in_the_trace(make_app: MakeApp, spans: Spans) -> None:
    """By `produce`, by `produce_many` and as a task."""
    app = make_app("memory://", conf={"task_always_eager": True, "task_eager_propagates": True})
    got: list[int] = []

    @app.task(name="traced.eager", shared=False)
    def note(receipt: Any) -> None:
        got.append(trace.get_current_span().get_span_context().trace_id)

    calls: list[Callable[[], object]] = [
        lambda: Stargate.of(app).produce("a", on_ack=note.s()),
        lambda: Stargate.of(app).produce_many(["b"], on_ack=note.s()),
        lambda: produce_task.delay("c", on_ack=note.s()),
    ]
    for call in calls:
        spans.exporter.clear()
        call()
        assert {got.pop()} == trace_ids(*spans.named("create"))


def test_a_failure_is_an_error(make_app: MakeApp, local: LocalPulsar, spans: Spans) -> None:
    app = make_app(local.url)
    local.faults.fail_sends(_PERMANENT, count=1)
    stargate = Stargate.of(app)
    with Acknowledger(app):
        stargate.produce("payload", on_error=app.signature("alert"))
        create, send, settle = spans.wait("create", "send", "settle")
    assert create.status.is_ok or create.status.is_unset
    for span in (send, settle):
        assert not span.status.is_ok
        assert attributes(span)["error.type"] == "send-error:8"


def test_a_call_that_is_not_recorded_is_an_error(
    make_app: MakeApp, local: LocalPulsar, spans: Spans
) -> None:
    app = make_app(local.url, max_backlog=1, own_lanes="worker")
    task: Any = app.tasks[produce_task.name]
    task.delay("first")
    with pytest.raises(LaneFull):
        task.delay("second")
    first, second = spans.named("create")
    assert first.status.is_unset
    assert attributes(second)["error.type"] == "LaneFull"


def test_a_span_that_cannot_be_exported_is_the_error_of_no_call(
    make_app: MakeApp,
    local: LocalPulsar,
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a processor of the application raises: the message is recorded."""
    stargate = Stargate.of(make_app(local.url, own_lanes="worker"))
    on_ack = stargate.app.signature("shop.ship")

    def fail(self: object, span: object) -> None:
        raise LookupError("no exporter")

    async def calls() -> list[str]:
        made = (stargate.aproduce("x", on_ack=on_ack) for _ in range(3))
        return await asyncio.gather(*made)

    monkeypatch.setattr(SimpleSpanProcessor, "on_end", fail)
    assert len(set(asyncio.run(calls()))) == 3
    assert stargate.produce("x", on_ack=on_ack)
    assert "the span of a call could not be ended" in caplog.text


@pytest.mark.parametrize("call", ["produce", "aproduce", "produce_many"])
def test_a_call_without_a_redis_is_an_error(
    call: str, make_app: MakeApp, refusing_port: int, spans: Spans
) -> None:
    """Also where it is found out before the message would be recorded."""
    app = make_app("ws://pulsar.invalid", redis_url=f"redis://127.0.0.1:{refusing_port}/0")
    found: Any = getattr(Stargate.of(app), call)
    with pytest.raises(StoreUnavailable):
        given = found(["payload"], timeout=1)
        if inspect.isawaitable(given):
            asyncio.run(_await(given))
    [span] = spans.named("create")
    assert attributes(span)["error.type"] == "StoreUnavailable"


async def _await(given: Any) -> Any:
    return await given


def test_a_lost_connection_is_a_send_without_an_answer(
    make_app: MakeApp, local: LocalPulsar, spans: Spans
) -> None:
    """The second send is in the same trace."""
    local.faults.close_after_frames(1)
    Stargate.of(make_app(local.url)).produce("payload")
    wait_for(lambda: len(spans.named("settle")) == 1)
    lost, again = spans.named("send")
    assert attributes(lost)["error.type"] == "LinkBroken"
    assert again.status.is_unset
    assert trace_ids(lost) == trace_ids(again)


def test_what_is_not_sampled_has_no_spans_and_is_carried(
    make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    found = Spans(TracerProvider(sampler=ParentBased(ALWAYS_OFF)))
    instrumentor = StargateInstrumentor()
    instrumentor.instrument(tracer_provider=found.provider)
    try:
        Stargate.of(make_app(local.url)).produce("payload")
    finally:
        instrumentor.uninstrument()
    assert found.names() == []
    [message] = local.messages(topic)
    assert not int(message.properties["traceparent"].rpartition("-")[2], 16) & 1


def test_metrics_by_the_conventions(make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
    reader = InMemoryMetricReader()
    instrumentor = StargateInstrumentor()
    with ExitStack() as end:
        instrumentor.instrument(meter_provider=MeterProvider([reader]))
        end.callback(instrumentor.uninstrument)
        Stargate.of(make_app(local.url)).produce_many(["a", "b", "c"])

        def points() -> dict[str, Any]:
            data = reader.get_metrics_data()
            return {
                metric.name: list(metric.data.data_points)
                for resource in (data.resource_metrics if data else ())
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }

        wait_for(lambda: "messaging.client.operation.duration" in points())
        found = points()
    [sent] = found["messaging.client.sent.messages"]
    [duration] = found["messaging.client.operation.duration"]
    assert sent.value == duration.count == 3
    assert sent.attributes["messaging.destination.name"] == topic
    assert duration.attributes["messaging.operation.name"] == "send"


def test_nothing_is_carried_without_the_instrumentor(
    make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    Stargate.of(make_app(local.url)).produce({"payload": "x", "properties": {"own": "1"}})
    [message] = local.messages(topic)
    assert message.properties == {"own": "1"}
