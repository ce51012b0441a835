"""Contexts of traces as text: found in frames and headers, and only where they are."""

from __future__ import annotations

import json

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider

from celery_stargate import Message
from celery_stargate.instrumentation.carriers import (
    carrier_in,
    carrier_of,
    context_of,
    given_carrier,
    is_sampled,
    sampled_in,
)
from celery_stargate.model.frame import encode_frame, text_frame

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_span_goes_through_a_frame() -> None:
    span = TracerProvider().get_tracer("unit").start_span("create")
    carrier = carrier_of(span)
    frame = encode_frame(Message(payload="x", properties={"own": "1"}), "c", 10_000, carrier)
    found = carrier_in(frame)
    assert found == carrier
    assert is_sampled(carrier)
    read = trace.get_current_span(context_of(carrier)).get_span_context()
    assert (read.trace_id, read.span_id) == (
        span.get_span_context().trace_id,
        span.get_span_context().span_id,
    )


def test_the_state_goes_with_it() -> None:
    given = {"traceparent": PARENT, "tracestate": "vendor=1"}
    assert carrier_in(encode_frame(Message(payload="x"), "c", 10_000, given)) == given
    assert given_carrier({**given, "id": "c"}) == given


def test_the_users_own_properties_stay() -> None:
    own = Message(payload="x", properties={"traceparent": "own"})
    assert carrier_in(encode_frame(own, "c", 10_000, {"traceparent": PARENT})) == {
        "traceparent": "own"
    }


@pytest.mark.parametrize("payload", ["x", "x" * 30_000])
@pytest.mark.parametrize("key", ["k", '"properties":{"traceparent":"', "k" * 20_000])
@pytest.mark.parametrize(
    "own", [{}, {"own": "\n"}, {"tracestate": "own=1"}, {"traceparent": "own"}]
)
def test_it_is_what_the_frame_says(payload: str, key: str, own: dict[str, str]) -> None:
    """However it is found: it equals the property of the frame that Pulsar reads."""
    message = Message(payload=payload, key=key, properties=own or None)
    frame = encode_frame(message, "c", 1 << 20, {"traceparent": PARENT})
    properties = json.loads(text_frame(frame))["properties"]
    expected = {
        name: properties[name] for name in ("traceparent", "tracestate") if name in properties
    }
    assert carrier_in(frame) == expected
    # However it is found, of one that is sampled, and of no other.
    sampled = sampled_in(frame)
    if isinstance(sampled, bytes):
        sampled = {"traceparent": sampled.decode()}
    assert sampled == (expected if is_sampled(expected) else None)
    quiet = encode_frame(message, "c", 1 << 20, {"traceparent": PARENT[:-2] + "00"})
    assert sampled_in(quiet) is None


def test_the_bytes_of_a_context_are_read_as_its_text_is() -> None:
    text = trace.get_current_span(context_of({"traceparent": PARENT})).get_span_context()
    assert trace.get_current_span(context_of(PARENT.encode())).get_span_context() == text


@pytest.mark.parametrize(
    "frame",
    [
        b'{"payload":"eA==","context":"c"}',
        b'{"payload":"eA==","properties":{"own":"1"}}',
        b'{"properties":{"traceparent":1}}',
        b'{"key":"\\"traceparent\\"","a":"traceparent","traceparent":"x"}',
        b'"traceparent" is no frame',
    ],
)
def test_none_where_there_is_none(frame: bytes) -> None:
    assert carrier_in(frame) is None
    assert sampled_in(frame) is None


def test_a_span_without_an_id_gives_nothing() -> None:
    assert carrier_of(trace.INVALID_SPAN) == {}
    assert given_carrier({"traceparent": None}) is None
    assert given_carrier({}) is None


@pytest.mark.parametrize("text", ["", "own", PARENT[:-2] + "00", PARENT[:-2] + "zz"])
def test_what_cannot_be_read_is_not_sampled(text: str) -> None:
    assert not is_sampled({"traceparent": text})
    if len(text) < len(PARENT):
        found = trace.get_current_span(context_of({"traceparent": text}))
        assert found is trace.get_current_span(Context())


@pytest.mark.parametrize("own", [{}, {"own": "1"}])
def test_the_context_stays_the_last_field(own: dict[str, str]) -> None:
    """The scripts in Redis look for it there. Without that a drain is ten times slower."""
    message = Message(payload="x", properties=own or None)
    frame = encode_frame(message, "c", 10_000, {"traceparent": PARENT})
    assert frame.endswith(b'"context":"c"}')
