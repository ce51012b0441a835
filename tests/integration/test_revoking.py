"""Revoked calls: failed in their lanes, whatever restarts, and never sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.worker import state

from celery_stargate import (
    Acknowledger,
    ProduceError,
    ProduceTask,
    Stargate,
    StoreUnavailable,
)
from celery_stargate.calls.arguments import Arguments
from celery_stargate.calls.revoking import Revoker
from celery_stargate.effects.signatures import pack
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.context import attempt_context
from celery_stargate.testing import LocalPulsar
from celery_stargate.worker.revoking import ControlStep
from tests.integration.conftest import MakeApp
from tests.integration.rig import Triggered, wait_for
from tests.servers.ports import free_ports


class Rig:
    """An app whose Pulsar is away, and what a worker's consumer does with remote control."""

    def __init__(self, app: Celery, port: int) -> None:
        self.app = app
        self.port = port
        self.stargate = Stargate.of(app)
        self.triggered = Triggered(app)
        self.later: list[Callable[[], object]] = []
        timer = SimpleNamespace(call_after=self._call_after)
        self.consumer = SimpleNamespace(
            app=app, hostname="it@here", timer=timer, pool=None, event_dispatcher=None, steps=[]
        )
        self.handlers = ControlStep(self.consumer).handlers()
        self.state = SimpleNamespace(app=app, consumer=self.consumer)

    def _call_after(self, seconds: float, call: Callable[..., Any], args: Any) -> None:
        self.later.append(lambda: call(*args))

    @property
    def task(self) -> ProduceTask:
        """The app's produce task."""
        found = self.app.tasks[ProduceTask.default_name]
        assert isinstance(found, ProduceTask)
        return found

    def deliver(self, *results: Any) -> list[bytes]:
        """Restart the worker beside a Pulsar that is back; return what came into the topic."""
        state.reset_state()
        with LocalPulsar(port=self.port) as pulsar, Acknowledger(self.app):
            last = self.task.delay("last")
            last.get(timeout=20)
            for result in results:
                wait_for(result.ready)
            topic = str(self.stargate.settings.topic)
            return pulsar.payloads(topic)


def state_of(result: Any) -> str:
    """Return a result's state; Celery's types do not know all of them."""
    return str(result.state)


@pytest.fixture
def rig(make_app: MakeApp) -> Iterator[Rig]:
    """A rig; what Celery keeps of revoked tasks is forgotten afterwards."""
    [port] = free_ports(1)
    yield Rig(make_app(f"ws://127.0.0.1:{port}"), port)
    state.reset_state()


def test_by_id_while_pulsar_is_away(rig: Rig) -> None:
    """Though the worker restarts, and forgets all that Celery told it."""
    other = rig.task.delay("other")
    revoked = rig.task.delay("revoked", on_error=rig.app.signature("sorry"))
    rig.handlers["revoke"](rig.state, revoked.id)
    assert state_of(revoked) == "REVOKED"
    assert rig.deliver(other) == [b"other", b"last"]
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=5)
    told = rig.triggered.next()
    assert (told["task"], told["args"][0]["code"]) == ("sorry", "revoked")


def test_terminate(rig: Rig) -> None:
    """Is the same, and ends no process."""
    one, two = rig.task.delay("one"), rig.task.delay("two")
    rig.handlers["revoke"](rig.state, [one.id], terminate=True, signal="KILL")
    rig.handlers["terminate"](rig.state, "KILL", two.id)
    assert rig.deliver(one, two) == [b"last"]
    assert {one.state, two.state} == {"REVOKED"}


def test_a_later_attempt(rig: Rig) -> None:
    """Of a task that is retried: it is in the lane under another name, and is revoked by its id."""
    retried: dict[str, Any] = {"autoretry_for": (ProduceError,), "max_retries": 2}
    task = rig.stargate.task("shop.orders", **retried)
    runtime = rig.stargate.runtime
    call, asked = task.checked(runtime, Arguments("again"), attempt_context("seventeen", 2))
    request = pack("the task's request", {"id": "seventeen", "retries": 2})
    record = call.record(asked.callbacks, task=task.name, request=request)
    runtime.recorder.put(call, record, timeout=60)
    rig.handlers["revoke"](rig.state, "seventeen")
    assert state_of(task.AsyncResult("seventeen")) == "REVOKED"
    assert rig.deliver() == [b"last"]


def test_by_stamped_headers(rig: Rig) -> None:
    """Those recorded before, those recorded after, and no others."""

    def call(payload: str, **stamps: Any) -> Any:
        headers = {"stamped_headers": list(stamps), **stamps}
        return rig.task.apply_async((payload,), **headers)

    before = call("before", order=["17"])
    other, plain = call("other", order=["18"]), rig.task.delay("plain")
    rig.handlers["revoke_by_stamped_headers"](rig.state, {"order": ["17", "19"]})
    after, single = call("after", order=["19"], x="y"), call("single", order="17")
    assert rig.deliver(before, after, single) == [b"other", b"plain", b"last"]
    assert {before.state, after.state, single.state} == {"REVOKED"}
    assert {other.state, plain.state} == {"SUCCESS"}


def test_a_stamp_is_asked_for_before_the_message_can_be_sent(rig: Rig) -> None:
    """Pulsar is there, so a message that was in its lane for a moment might be sent."""
    rig.handlers["revoke_by_stamped_headers"](rig.state, {"order": ["17"]})
    with LocalPulsar(port=rig.port) as pulsar, Acknowledger(rig.app):
        rig.task.delay("first").get(timeout=20)
        stamps: dict[str, Any] = {"stamped_headers": ["order"], "order": "17"}
        results = [rig.task.apply_async((str(n),), **stamps) for n in range(20)]
        rig.task.delay("last").get(timeout=20)
        for each in results:
            wait_for(each.ready)
        assert {each.state for each in results} == {"REVOKED"}
        assert pulsar.payloads(str(rig.stargate.settings.topic)) == [b"first", b"last"]


def test_by_stamps_as_the_command_line_gives_them(rig: Rig) -> None:
    """A list of texts."""
    stamped = rig.task.apply_async(("a",), stamped_headers=["order"], order="17")
    rig.handlers["revoke_by_stamped_headers"](rig.state, ["order=17"])
    assert state_of(stamped) == "REVOKED"


def test_while_redis_is_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written later."""
    revoked = rig.task.delay("a")
    revoke = Revoker.revoke

    def away(self: Revoker, contexts: Any) -> Any:
        raise StoreUnavailable("Redis is away")

    monkeypatch.setattr(Revoker, "revoke", away)
    rig.handlers["revoke"](rig.state, revoked.id)
    monkeypatch.setattr(Revoker, "revoke", revoke)
    [again] = rig.later
    again()
    assert rig.deliver(revoked) == [b"last"]


class TestCancel:
    """``stargate.cancel``."""

    def test_a_task(self, rig: Rig) -> None:
        """Once."""
        result = rig.task.delay("a")
        assert rig.stargate.cancel(result.id)
        assert not rig.stargate.cancel(result.id)
        assert not rig.stargate.cancel("unknown")
        assert state_of(result) == "REVOKED"
        assert rig.deliver() == [b"last"]

    def test_a_call_with_a_callback(self, rig: Rig) -> None:
        """Its callback is told."""
        context = rig.stargate.produce("a", on_error=rig.app.signature("sorry"))
        assert rig.stargate.cancel(context)
        assert rig.triggered.next()["args"][0]["code"] == "revoked"

    def test_a_context_without_a_message(self, rig: Rig) -> None:
        """The future fails."""
        future = Acknowledger(rig.app).produce("mine")
        assert rig.stargate.cancel("mine")
        with pytest.raises(ProduceError, match="revoked"):
            future.result(timeout=10)

    @pytest.mark.parametrize("lanes", [1, 4])
    def test_a_list(self, rig: Rig, lanes: int) -> None:
        """Whole, in however many lanes."""
        task = rig.stargate.task("shop.orders", lanes=lanes)
        result = task.delay([(f"k{number}", "a") for number in range(20)])
        assert rig.stargate.cancel(result.id)
        assert state_of(result) == "REVOKED"
        assert rig.deliver() == [b"last"]

    def test_what_was_sent_stays(self, rig: Rig) -> None:
        """It is not revoked: it may be in its topic."""
        with LocalPulsar(port=rig.port) as pulsar, Acknowledger(rig.app):
            pulsar.faults.hold_receipts()
            result = rig.task.delay("a")
            pulsar.wait_until(lambda: pulsar.counters.frames >= 1)
            assert not rig.stargate.cancel(result.id)
            rig.handlers["revoke"](rig.state, result.id)
            assert result.state == "PENDING"
            pulsar.faults.release_receipts()
            assert result.get(timeout=20)["status"] == "stored"

    def test_the_rest_of_a_list(self, rig: Rig) -> None:
        """Of which the first messages were sent."""
        context = rig.stargate.produce(["a", "b", "c"], on_error=rig.app.signature("sorry"))
        outbox = rig.stargate.lanes
        lane = Lane(str(rig.stargate.settings.topic))
        redis = rig.stargate.runtime.connections.sync()
        redis.hset(lane.key(rig.stargate.settings.prefix, "meta"), "sent", 1)
        assert not rig.stargate.cancel(context)
        assert outbox.backlog(lane) == 1
        assert rig.deliver() == [b"a", b"last"]
        told = rig.triggered.next()["args"][0]
        assert [each["status"] for each in told["outcomes"]] == ["stored", "refused", "refused"]


def test_the_ids_of_tasks_that_still_come(rig: Rig) -> None:
    """By Celery's broker, after a restart."""
    rig.handlers["revoke"](rig.state, ["later"])
    assert Revoker(rig.stargate.runtime).is_revoked("later")
    assert not Revoker(rig.stargate.runtime).is_revoked("another")
