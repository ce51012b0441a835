"""Contexts of traces as text: in a message's properties, in records, in headers (W3C)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from celery_stargate.model.frame import fields_in
from celery_stargate.support.decoding import UNDECODABLE
from celery_stargate.support.tracing import Carrier

__all__ = [
    "carrier_in",
    "carrier_of",
    "context_of",
    "given_carrier",
    "is_sampled",
    "sampled_in",
]

_NAMES = ("traceparent", "tracestate")
_propagator = TraceContextTextMapPropagator()


class _Properties(msgspec.Struct):
    traceparent: str | None = None
    tracestate: str | None = None


class _Frame(msgspec.Struct):
    properties: _Properties | None = None


_decode = msgspec.json.Decoder(_Frame).decode
#: How a frame that was traced here holds the context, which has a fixed length.
_TRACED = b'"properties":{"traceparent":"'
_WHOLE = len(_TRACED) + 55
_STATE = b'"tracestate"'
#: The last digits of the flags of a trace that is sampled.
_SAMPLED = frozenset(b"13579bdfBDF")
#: How many bytes of a frame are looked at for that.
_TAIL = 10_000


def carrier_of(span: trace.Span) -> dict[str, str]:
    """Return the context of a span as text; empty for one without an id."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier


def sampled_in(frame: bytes) -> Carrier | bytes | None:
    """Return the context of a message whose trace is sampled; None for any other.

    It is for every message that is settled, so it does no more than it must.

    Returns:
        The bytes of ``traceparent`` where that is all, to be read later.
    """
    fields = frame if frame[:1] == b"{" else fields_in(frame)
    # In the end, for the properties come after the payload, which may be large.
    begin = fields.rfind(_TRACED, max(0, len(fields) - _TAIL))
    if begin >= 0:
        end = begin + _WHOLE
        begin += len(_TRACED)
        # Such as is of the right length, and alone: to decode the whole frame takes longer.
        if fields.find(b'"', begin) == end and fields.find(_STATE, end) < 0:
            return fields[begin:end] if fields[end - 1] in _SAMPLED else None
    elif b'"traceparent"' not in fields:
        return None
    carrier = carrier_in(frame)
    return carrier if carrier is not None and is_sampled(carrier) else None


def carrier_in(frame: bytes) -> Carrier | None:
    """Return the context in the properties of a message's frame; None if there is none."""
    fields = fields_in(frame)
    if b'"traceparent"' not in fields:
        return None
    try:
        properties = _decode(fields).properties
    except UNDECODABLE:
        # A property of another type: it is none of ours.
        return None
    if properties is None or properties.traceparent is None:
        return None
    carrier = {"traceparent": properties.traceparent}
    if properties.tracestate is not None:
        carrier["tracestate"] = properties.tracestate
    return carrier


def given_carrier(headers: Mapping[str, object]) -> dict[str, str] | None:
    """Return the context among headers; None if there is none."""
    found = {name: each for name in _NAMES if isinstance(each := headers.get(name), str)}
    return found if "traceparent" in found else None


def context_of(carrier: Carrier | bytes) -> Context:
    """Return the context that a carrier holds; one without a span if it cannot be read.

    Arguments:
        carrier: or the bytes of its ``traceparent``.
    """
    if isinstance(carrier, bytes):
        carrier = {"traceparent": carrier.decode("utf-8", "replace")}
    return _propagator.extract(carrier, Context())


def is_sampled(carrier: Carrier) -> bool:
    """Whether the trace of a carrier is recorded, as its flags say."""
    try:
        return bool(int(carrier["traceparent"][53:55], 16) & 1)
    except ValueError:
        return False
