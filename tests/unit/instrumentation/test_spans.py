"""Spans of a lane's owner: their times, their attributes, and what gets none."""

from __future__ import annotations

import time
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from celery_stargate import Message
from celery_stargate.instrumentation.spans import LaneSpans
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.observers import ConnectionLost, Settlement
from celery_stargate.support.paced import Paced
from tests.unit.helpers import TOPIC

LANE = Lane(TOPIC)
CARRIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
UNSAMPLED = {"traceparent": CARRIER["traceparent"][:-2] + "00"}


class Rig:
    """Spans of an observer."""

    def __init__(self) -> None:
        provider = TracerProvider()
        self.exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = LaneSpans(provider.get_tracer("unit"), metrics.get_meter("unit"))

    @property
    def found(self) -> list[Any]:
        self.spans.flush()
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def rig() -> Rig:
    return Rig()


def entry(carrier: dict[str, str] | None = None) -> Entry:
    return Entry(1, "c", encode_frame(Message(payload="x"), "c", 10_000, carrier))


def test_a_message_has_its_send_and_its_settlement(rig: Rig) -> None:
    now = time.monotonic()
    receipt = Receipt(context="c", topic=TOPIC, message_id="CAE=", partition=3)
    rig.spans.settled(LANE, [Settlement(receipt, entry(CARRIER), now - 3, now - 1)], "wss://h")
    send, settle = rig.found
    assert (send.end_time - send.start_time) / 1e9 == pytest.approx(2, abs=0.01)
    assert (settle.end_time - settle.start_time) / 1e9 == pytest.approx(1, abs=0.5)
    assert settle.start_time == send.end_time
    assert settle.parent.span_id == send.context.span_id
    assert dict(send.attributes) == {
        "messaging.system": "pulsar",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": TOPIC,
        "messaging.destination.partition.id": "3",
        "messaging.message.id": "CAE=",
        "messaging.message.conversation_id": "c",
        "server.address": "h",
        "server.port": 443,
    }


def test_a_deadline_has_a_settlement_alone(rig: Rig) -> None:
    """Who settles it has not sent it; the record has the trace."""
    failure = Failure(context="c", topic=TOPIC, code="deadline", status="unknown")
    rig.spans.settled(LANE, [Settlement(failure, trace=CARRIER)])
    [settle] = rig.found
    assert settle.name == f"settle {TOPIC}"
    assert settle.attributes["error.type"] == "deadline"
    assert not settle.status.is_ok


def test_durations_are_recorded_even_where_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans may be dropped then; numbers may not. Failures have their code."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("unit")
    rig = LaneSpans(TracerProvider().get_tracer("unit"), meter)
    outcomes: list[Outcome] = [
        Receipt(context="c"),
        Failure(context="c", topic=TOPIC, code="http-404"),
    ]
    settlements = [Settlement(each, entry(CARRIER), 1.0, 3.0) for each in outcomes * 2]
    rig.settled(LANE, settlements, "ws://h")
    monkeypatch.setattr(Paced, "add", lambda *jobs: False)
    rig.settled(LANE, settlements, "ws://h")
    rig.flush()
    data: Any = reader.get_metrics_data()
    [metric] = data.resource_metrics[0].scope_metrics[0].metrics
    found = {point.attributes.get("error.type"): point for point in metric.data.data_points}
    assert {name: (each.count, each.sum) for name, each in found.items()} == {
        None: (4, 8.0),
        "http-404": (4, 8.0),
    }


@pytest.mark.parametrize("carrier", [None, UNSAMPLED])
def test_without_a_sampled_trace_there_is_no_span(rig: Rig, carrier: dict[str, str] | None) -> None:
    lost = ConnectionLost(lane="l", topic=TOPIC, in_flight=1, reason="r", error_type="LinkBroken")
    rig.spans.settled(LANE, [Settlement(Receipt(context="c"), entry(carrier), 1.0, 2.0)])
    rig.spans.connection_lost(lost, [(entry(carrier), 1.0), (entry(CARRIER), None)])
    assert rig.found == []
