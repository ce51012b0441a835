"""Spans of several processes, in one Redis list."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import redis
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from celery_stargate.instrumentation.tracing import StargateInstrumentor

__all__ = ["RedisExporter", "spans_in", "trace_here", "trace_worker"]

#: How often a batch is exported, in seconds: so seldom that a process must flush at its end.
_SELDOM = 3600.0


class RedisExporter(SpanExporter):
    """Appends each span as JSON to a list."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        texts = [
            json.dumps(
                {
                    "name": each.name,
                    "trace": each.context.trace_id if each.context else 0,
                    "pid": os.getpid(),
                    "attributes": dict(each.attributes or {}),
                }
            )
            for each in spans
        ]
        with redis.Redis.from_url(self._url) as client:
            client.rpush(self._key, *texts)
        return SpanExportResult.SUCCESS


def trace_here(url: str, key: str) -> StargateInstrumentor:
    """Trace in the test's process, and export each span at once."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(RedisExporter(url, key)))
    instrumentor = StargateInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    return instrumentor


def trace_worker(url: str, key: str) -> None:
    """Trace in a worker as its program would: before it forks, with a processor for batches.

    Spans of the pool's processes are exported at their end, and those of the main process one by
    one.
    """
    provider = TracerProvider()
    main = os.getpid()

    class Processor(BatchSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            super().on_end(span)
            if os.getpid() == main:
                self.force_flush()

    exporter = RedisExporter(url, key)
    provider.add_span_processor(Processor(exporter, schedule_delay_millis=_SELDOM * 1000))
    trace.set_tracer_provider(provider)
    StargateInstrumentor().instrument()


def spans_in(client: Any, key: str) -> list[dict[str, Any]]:
    """Return the spans in a list."""
    return [json.loads(each) for each in client.lrange(key, 0, -1)]
