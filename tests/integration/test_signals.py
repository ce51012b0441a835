"""Signals of real messages: each step of one message is told once, with what belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from celery import Celery

from celery_stargate import Acknowledger, Stargate, produce_task, signals
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for


class Listener:
    """What receivers got, by the name of the signal."""

    def __init__(self) -> None:
        self.got: dict[str, list[Any]] = {}

    @contextmanager
    def listening(self, *names: str) -> Iterator[None]:
        """Listen to signals."""
        with ExitStack() as connected:
            for name in names:
                signal = getattr(signals, name)

                def receiver(detail: Any, name: str = name, **_: Any) -> None:
                    self.got.setdefault(name, []).append(detail)

                signal.connect(receiver, weak=False)
                connected.callback(signal.disconnect, receiver)
            yield

    def details(self, name: str) -> list[Any]:
        """Return the details of one signal."""
        return self.got.get(name, [])


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Listens to all signals."""
    found = Listener()
    names = [name for name in signals.__all__ if name.islower()]
    with found.listening(*names):
        yield found


def test_one_message_from_the_call_to_its_receipt(
    make_app: MakeApp, local: LocalPulsar, topic: str, listener: Listener
) -> None:
    app = make_app(local.url)
    task: Any = app.tasks[produce_task.name]
    with Acknowledger(app):
        result = task.delay("payload")
        receipt = result.get(timeout=20)
        wait_for(lambda: listener.details("message_settled"))
    [recorded] = listener.details("message_recorded")
    assert (recorded.context, recorded.topic, recorded.messages) == (result.id, topic, 1)
    assert recorded.task == produce_task.name
    [sent] = listener.details("message_sent")
    assert (sent.context, sent.lane, sent.number, sent.place) == (result.id, f"{topic}#0", 1, -1)
    [settled] = listener.details("message_settled")
    assert settled.outcome.to_dict() == receipt
    assert 0 < settled.seconds < 20
    taken = [each for each in listener.details("lane_taken_over") if each.topic == topic]
    assert [each.fencing_token for each in taken] == [1]
    assert not listener.details("connection_lost")


def test_a_lost_connection_and_the_second_send(
    make_app: MakeApp, local: LocalPulsar, topic: str, listener: Listener
) -> None:
    """The message is told to be sent twice, and to be settled once."""
    app = make_app(local.url)
    local.faults.close_after_frames(1)
    receipt: Any = Stargate.of(app).produce("payload")
    [settled] = wait_for(lambda: listener.details("message_settled"))
    assert settled.outcome == receipt
    assert {each.context for each in listener.details("message_sent")} == {receipt.context}
    assert len(listener.details("message_sent")) == 2
    lost = listener.details("connection_lost")[0]
    assert (lost.topic, lost.error_type, lost.in_flight) == (topic, "LinkBroken", 1)


def test_a_deadline_without_an_owner(make_app: MakeApp, topic: str, listener: Listener) -> None:
    """The caller settles it, so the caller's process tells it."""
    app = make_app("ws://127.0.0.1:1", own_lanes="worker")
    stargate = Stargate.of(app)
    context = stargate.produce("payload", on_error=app.signature("alert"), timeout=0.05)
    [call] = listener.details("message_recorded")
    assert call.context == context
    lane = stargate.lanes.registry.survey()[1][0]

    def settled_now() -> list[Any]:
        stargate.runtime.settle_overdue([lane])
        return listener.details("message_settled")

    wait_for(settled_now)
    [settled] = listener.details("message_settled")
    assert (settled.context, settled.outcome.code, settled.seconds) == (context, "deadline", None)
    assert settled.outcome.status == "refused"
    assert not listener.details("message_sent")


def test_no_message_has_a_line_of_ours(
    make_app: MakeApp, local: LocalPulsar, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO there are lines about lanes, and however many messages there are, no more."""
    caplog.set_level("INFO", "celery_stargate")
    app = make_app(local.url)
    stargate = Stargate.of(app)
    task: Any = app.tasks[produce_task.name]
    with Acknowledger(app):
        stargate.produce_many([str(number) for number in range(300)])
        stargate.produce(["a", "list", "of", "some"])
        stargate.produce("x", on_ack=app.signature("callback"))
        results = [task.delay(str(number)) for number in range(50)]
        for each in results:
            each.get(timeout=20)
    lines = [each for each in caplog.records if each.name.startswith("celery_stargate")]
    assert len(lines) < 12, [each.getMessage() for each in lines]
    assert {each.levelname for each in lines} <= {"INFO", "WARNING"}


def test_receivers_that_raise_harm_no_delivery(
    make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    def raising(**_: Any) -> None:
        raise RuntimeError("of the user")

    all_signals: list[Any] = [getattr(signals, name) for name in signals.__all__ if name.islower()]
    disconnect: list[Callable[[], Any]] = []
    for each in all_signals:
        each.connect(raising, weak=False)
        disconnect.append(lambda each=each: each.disconnect(raising))  # type: ignore[misc]
    try:
        app: Celery = make_app(local.url)
        receipts = Stargate.of(app).produce_many([str(number) for number in range(50)])
        assert [each.status for each in receipts] == ["stored"] * 50
    finally:
        for each in disconnect:
            each()
    assert len(local.payloads(topic)) == 50
