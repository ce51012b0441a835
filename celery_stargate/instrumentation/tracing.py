"""Traces and metrics for OpenTelemetry: one trace from the call to its callback.

It needs the extra ``otel``. See docs/tracing.md.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from celery import signals
from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from celery_stargate import observers
from celery_stargate.effects.tracer import OutcomeTask
from celery_stargate.instrumentation.carriers import carrier_of, context_of, given_carrier
from celery_stargate.instrumentation.semantic import (
    CONTEXT_HEADER,
    MESSAGE_ID_HEADER,
    SCHEMA_URL,
    TOPIC_HEADER,
    Attribute,
    Operation,
)
from celery_stargate.instrumentation.spans import LaneSpans, attributes_of
from celery_stargate.support import tracing
from celery_stargate.support.log import logger_of
from celery_stargate.support.tracing import Carrier

__all__ = ["StargateInstrumentor"]

logger = logger_of(__name__)

#: How long a process of the pool may take at its end to export its last spans, in milliseconds.
_FLUSH_MS = 5000

#: What is followed now: topic, context and message id of the receipt whose effects are done.
_Receipt = tuple[str | None, str, str | None]
_followed: ContextVar[_Receipt | None] = ContextVar("celery_stargate_followed", default=None)


class StargateInstrumentor:
    """Makes traces and metrics of an app's messages, in this process and those that it forks.

    ``opentelemetry-instrument`` finds it by its entry point. Else call :meth:`instrument` where
    your Celery app is made, so that callers, workers and their pools do.
    """

    _installed: _Installed | None = None

    def instrument(self, **given: Any) -> None:
        """Begin. A second call changes nothing.

        Arguments:
            tracer_provider, meter_provider: by default those that are set globally, now or later.
        """
        if StargateInstrumentor._installed is None:
            providers = given.get("tracer_provider"), given.get("meter_provider")
            StargateInstrumentor._installed = _Installed(*providers)

    def uninstrument(self, **given: Any) -> None:
        """End."""
        if StargateInstrumentor._installed is not None:
            StargateInstrumentor._installed.remove()
            StargateInstrumentor._installed = None


class _Installed:
    """What :class:`StargateInstrumentor` installs."""

    def __init__(self, tracer_provider: Any, meter_provider: Any) -> None:
        name = "celery_stargate"
        self._provider = tracer_provider
        self._tracer = trace.get_tracer(
            name, tracer_provider=tracer_provider, schema_url=SCHEMA_URL
        )
        meter = metrics.get_meter(name, meter_provider=meter_provider, schema_url=SCHEMA_URL)
        self._lanes = LaneSpans(self._tracer, meter)
        self._running: dict[str, tuple[Span, contextlib.ExitStack]] = {}
        # Before the provider's own end, which was registered earlier.
        atexit.register(self._lanes.flush)
        observers.add(self._lanes)
        tracing.use(_Tracing(self._tracer))
        self._connected = (
            (signals.before_task_publish, _give_headers),
            (signals.task_prerun, self._process),
            (signals.task_failure, self._failed),
            (signals.task_postrun, self._processed),
            (signals.worker_process_shutdown, self._flush),
        )
        for signal, receiver in self._connected:
            signal.connect(receiver, weak=False)

    def remove(self) -> None:
        observers.remove(self._lanes)
        tracing.use(None)
        atexit.unregister(self._lanes.flush)
        self._lanes.flush()
        for signal, receiver in self._connected:
            signal.disconnect(receiver)

    def _process(self, task_id: str, task: Any, **_: object) -> None:
        """Begin the span of a callback, unless Celery's own instrumentation has one for it."""
        topic = getattr(task.request, TOPIC_HEADER, None)
        if topic is None or isinstance(task, OutcomeTask) or _celery_is_instrumented():
            # A produce task does not run: its message's spans tell what became of it.
            return
        carrier = given_carrier(vars(task.request))
        if carrier is None:
            return
        request = vars(task.request)
        attributes = attributes_of(Operation.PROCESS, topic, request.get(CONTEXT_HEADER, ""))
        if (message_id := request.get(MESSAGE_ID_HEADER)) is not None:
            attributes[Attribute.MESSAGE_ID] = message_id
        span = self._tracer.start_span(
            f"{Operation.PROCESS} {topic}", context_of(carrier), SpanKind.CONSUMER, attributes
        )
        stack = contextlib.ExitStack()
        stack.enter_context(trace.use_span(span, end_on_exit=True))
        self._running[task_id] = span, stack

    def _failed(self, task_id: str, exception: BaseException, **_: object) -> None:
        found = self._running.get(task_id)
        if found is not None:
            _note_error(found[0], exception)

    def _processed(self, task_id: str, **_: object) -> None:
        found = self._running.pop(task_id, None)
        if found is not None:
            found[1].close()

    def _flush(self, **_: object) -> None:
        """Export what is left, before a process of the pool ends."""
        self._lanes.flush()
        provider = self._provider or trace.get_tracer_provider()
        flush: Callable[[int], object] | None = getattr(provider, "force_flush", None)
        if flush is not None:
            flush(_FLUSH_MS)


class _Trace:
    """The span of a call, from its creation until it is recorded."""

    def __init__(self, span: Span, carrier: Carrier) -> None:
        self._span = span
        self.carrier = carrier

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make it the current one."""
        with trace.use_span(self._span, end_on_exit=False, record_exception=False), _following():
            yield

    def end(self, error: BaseException | None = None) -> None:
        """End it."""
        if self._span.is_recording():
            if error is not None:
                _note_error(self._span, error)
            try:
                self._span.end()
            except Exception:  # of whoever exports it, and of no call
                logger.exception("the span of a call could not be ended")


class _Carried:
    """A trace that was begun in another process, and came with the call."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Make nothing."""
        return contextlib.nullcontext()

    def end(self, error: BaseException | None = None) -> None:
        """Do nothing: it ended there."""


class _Tracing:
    """Begins the traces of calls, and follows them."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def begin(
        self, topic: str, context: str, server: str | None, given: Mapping[str, object]
    ) -> _Trace | _Carried | None:
        """Begin the span of a call; see :class:`celery_stargate.support.tracing.Tracing`."""
        carried = given_carrier(given)
        if carried is not None:
            return _Carried(carried)
        attributes = attributes_of(Operation.CREATE, topic, context, server)
        span = self._tracer.start_span(
            f"{Operation.CREATE} {topic}", kind=SpanKind.PRODUCER, attributes=attributes
        )
        carrier = carrier_of(span)
        return _Trace(span, carrier) if carrier else None

    @contextlib.contextmanager
    def follow(
        self, carrier: Carrier, context: str, topic: str | None, message_id: str | None
    ) -> Iterator[None]:
        """Make the trace of a call the current one; see the same."""
        token = contexts.attach(context_of(carrier))
        try:
            with _following((topic, context, message_id)):
                yield
        finally:
            contexts.detach(token)


@contextlib.contextmanager
def _following(receipt: _Receipt = (None, "", None)) -> Iterator[None]:
    token = _followed.set(receipt)
    try:
        yield
    finally:
        _followed.reset(token)


def _give_headers(headers: Any = None, **_: object) -> None:
    """Give the current trace to a task that is published within one of ours.

    Celery's own instrumentation, where it is installed, gives its span to every task: it may come
    before or after this.
    """
    followed = _followed.get()
    if followed is None or not isinstance(headers, dict):
        return
    topic, context, message_id = followed
    for name, value in carrier_of(trace.get_current_span()).items():
        headers.setdefault(name, value)
    if topic is not None:
        headers.setdefault(TOPIC_HEADER, topic)
        headers.setdefault(CONTEXT_HEADER, context)
        if message_id is not None:
            headers.setdefault(MESSAGE_ID_HEADER, message_id)


def _celery_is_instrumented() -> bool:
    module = sys.modules.get("opentelemetry.instrumentation.celery")
    found = None if module is None else module.CeleryInstrumentor()
    return bool(found is not None and found.is_instrumented_by_opentelemetry)


def _note_error(span: Span, error: BaseException) -> None:
    span.set_attribute(Attribute.ERROR_TYPE, type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, str(error)))
