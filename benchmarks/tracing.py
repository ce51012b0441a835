"""Traces whose spans go nowhere, for worker and caller of :mod:`benchmarks.instrumented`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from celery_stargate.instrumentation.tracing import StargateInstrumentor

__all__ = ["trace", "traced"]


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def trace(ratio: float) -> StargateInstrumentor:
    """Trace in this process.

    Arguments:
        ratio: which part of the traces is sampled.
    """
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)))
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    instrumentor = StargateInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    return instrumentor


@contextmanager
def traced(ratio: float) -> Iterator[None]:
    """Trace in this process for a while."""
    instrumentor = trace(ratio)
    try:
        yield
    finally:
        instrumentor.uninstrument()
