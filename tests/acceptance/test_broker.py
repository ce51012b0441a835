"""Produce tasks that come by Celery's broker: the strategy keeps the contract of any task."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from celery.exceptions import TaskRevokedError

from celery_stargate import InvalidMessage, ProduceError
from tests.acceptance.rig import WAIT, Rig, Worker, eventually

#: How long silence is listened to, where the fact is that nothing comes.
SILENCE = 0.5


@pytest.fixture(scope="module")
def rig(make_rig: Any) -> Rig:
    """An app whose workers send task events."""
    made: Rig = make_rig(worker_send_task_events=True, task_send_sent_event=True)
    return made


@pytest.fixture(scope="module")
def worker(rig: Rig) -> Iterator[Worker]:
    """A worker that counts the signals in its main process."""
    with rig.worker(count_signals=True) as worker:
        yield worker


pytestmark = pytest.mark.usefixtures("worker")


@pytest.mark.smoke
def test_via_broker(rig: Rig) -> None:
    """The caller needs no Redis of the lanes; the receipt is the result all the same."""
    topic = rig.topic()
    receipt = rig.produce.delay(("k", "p"), topic=topic, via="broker").get(timeout=WAIT)
    (stored,) = rig.read(topic, 1)
    assert (receipt["message_id"], stored["key"]) == (stored["messageId"], "k")


def test_bytes_via_broker(rig: Rig) -> None:
    """Bytes go through Celery's JSON unharmed."""
    topic = rig.topic()
    rig.produce.delay([b"a", {"payload": b"b"}], topic=topic, via="broker").get(timeout=WAIT)
    assert rig.texts(topic, 2) == ["a", "b"]


def test_by_name(rig: Rig) -> None:
    """`send_task` from an app that knows nothing of us, callbacks and links included."""
    topic, acked, linked = rig.topic(), rig.key(), rig.key()
    result = rig.app.send_task(
        "celery_stargate.produce",
        ("named",),
        {"topic": topic, "on_ack": rig.record(acked)},
        link=rig.record(linked),
    )
    receipt = result.get(timeout=WAIT)
    assert rig.recorded(acked)[0]["argument"] == rig.recorded(linked)[0]["argument"] == receipt


def test_own_task_by_name(rig: Rig) -> None:
    """A produce task of one's own goes to its topic when it is sent by name."""
    receipt = rig.app.send_task("acceptance.orders", ("o",)).get(timeout=WAIT)
    assert receipt["topic"] == rig.topic_of("orders")


def test_bad_message_by_name_fails_the_task(rig: Rig) -> None:
    """What `delay()` would have told its caller is the task's failure, and harms nothing else."""
    key = rig.key()
    result = rig.app.send_task(
        "celery_stargate.produce",
        ({"payload": "p", "kye": "x"},),
        link_error=rig.task("errback").s(key),
    )
    with pytest.raises(ProduceError, match="kye"):
        result.get(timeout=WAIT)
    assert "did you mean 'key'" in rig.recorded(key)[0]["text"]


def test_on_error_of_a_bad_message_by_name(rig: Rig) -> None:
    """`on_error` is told of a message that the worker could not take."""
    key = rig.key()
    rig.app.send_task("celery_stargate.produce", ({"payload": 5},), {"on_error": rig.record(key)})
    (entry,) = rig.recorded(key)
    assert entry["argument"]["status"] == "refused"


def test_bad_message_via_broker_is_refused_in_the_caller(rig: Rig) -> None:
    """`via="broker"` checks in the caller, as `delay()` does."""
    with pytest.raises(InvalidMessage, match="kye"):
        rig.produce.delay({"payload": "p", "kye": "x"}, via="broker")


@pytest.mark.parametrize("how", ["countdown", "eta"])
def test_waits_for_its_time(rig: Rig, how: str) -> None:
    """A message with a countdown or an ETA is not in the topic before its time."""
    topic, delay = rig.topic(), 1.0
    before = time.time()
    when: dict[str, Any] = {"countdown": delay}
    if how == "eta":
        when = {"eta": datetime.now(UTC) + timedelta(seconds=delay)}
    receipt = rig.produce.apply_async(("later",), {"topic": topic}, **when).get(timeout=WAIT)
    (stored,) = rig.read(topic, 1)
    assert receipt["message_id"] == stored["messageId"]
    published = datetime.fromisoformat(stored["publishTime"]).timestamp()
    assert published >= before + delay - 0.05


def test_expired_message_is_revoked(rig: Rig) -> None:
    """Past `expires` before its time: revoked, as any task, and not in the topic."""
    topic = rig.topic()
    expires = datetime.now(UTC) + timedelta(seconds=0.3)
    result = rig.produce.apply_async(("x",), {"topic": topic}, countdown=0.8, expires=expires)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    assert rig.produce.delay("after", topic=topic).get(timeout=WAIT)
    assert rig.texts(topic, 1) == ["after"]


def test_revoked_before_its_time(rig: Rig) -> None:
    """A message revoked before its ETA is not published."""
    topic = rig.topic()
    result = rig.produce.apply_async(("x",), {"topic": topic}, countdown=1.0)
    inspect: Any = rig.app.control.inspect(timeout=0.5)
    assert eventually(lambda: any(inspect.scheduled().values())), "the worker does not hold it"
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    assert str(result.state) == "REVOKED"
    rig.produce.delay("after", topic=topic).get(timeout=WAIT)
    assert rig.texts(topic, 1) == ["after"]


def test_rate_limit(rig: Rig, worker: Worker) -> None:
    """A rate limit on the produce task is kept, by the broker."""
    topic = rig.topic()
    orders = rig.task("orders")
    control: Any = rig.app.control
    (reply,) = control.rate_limit(orders.name, "4/s", reply=True)
    assert "ok" in reply[worker.hostname]
    try:
        results = [orders.delay(str(n), topic=topic, via="broker") for n in range(5)]
        for result in results:
            result.get(timeout=WAIT)
    finally:
        control.rate_limit(orders.name, None, reply=True)
    times = [datetime.fromisoformat(each["publishTime"]).timestamp() for each in rig.read(topic, 5)]
    # One at once, then one every 250 ms.
    assert times[-1] - times[0] >= 0.7


class Events:
    """Receives task events in a thread while it is open."""

    def __init__(self, rig: Rig) -> None:
        self.seen: list[dict[str, Any]] = []
        self._rig = rig
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(WAIT)

    def _run(self) -> None:
        app = self._rig.app
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": self._take})
            with receiver.consumer_context() as (consuming, _, _):
                while not self._stop.is_set():
                    try:
                        consuming.drain_events(timeout=0.2)
                    except TimeoutError:
                        # Redis subscribes at the first read only: until then nothing is heard.
                        if not self._ready.is_set():
                            app.control.broadcast("heartbeat")

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "worker-heartbeat":
            self._ready.set()
        self.seen.append(event)

    def of(self, task_id: str) -> list[str]:
        """The types of a task's events, in order."""
        return [each["type"] for each in self.seen if each.get("uuid") == task_id]

    def wait_for(self, task_id: str, last: str) -> list[str]:
        """Wait for a task's event of that type; all its events."""
        eventually(lambda: last in self.of(task_id))
        return self.of(task_id)


def test_task_events(rig: Rig) -> None:
    """A monitor sees a produce task as any task: by the broker whole, by a lane its end."""
    with Events(rig) as events:
        by_broker = rig.produce.delay("x", via="broker")
        by_lane = rig.produce.delay("x")
        failing = rig.produce.delay("x", topic=rig.refused(), via="broker")
        by_broker.get(timeout=WAIT)
        assert set(events.wait_for(by_broker.id, "task-succeeded")) == {
            *("task-sent", "task-received", "task-started", "task-succeeded")
        }
        assert set(events.wait_for(by_lane.id, "task-succeeded")) >= {"task-sent", "task-succeeded"}
        assert set(events.wait_for(failing.id, "task-failed")) == {
            *("task-sent", "task-received", "task-started", "task-failed")
        }
    assert "payload" not in str(events.seen)


def test_event_of_a_failure_as_any_tasks(rig: Rig) -> None:
    """`task-failed` carries what Celery's own does: the exception's repr, and a runtime is given
    with `task-succeeded`."""
    with Events(rig) as events:
        good = rig.produce.delay("x", via="broker")
        bad = rig.produce.delay("x", topic=rig.refused(), via="broker")
        events.wait_for(good.id, "task-succeeded")
        events.wait_for(bad.id, "task-failed")
    by_type = {each["type"]: each for each in events.seen}
    assert by_type["task-failed"]["exception"].startswith("ProduceError('refused: ")
    assert "Namespace not found" in by_type["task-failed"]["exception"]
    assert isinstance(by_type["task-succeeded"]["runtime"], float)
    assert good.id in by_type["task-succeeded"]["result"]


SIGNALS = {
    # How the call goes: what the worker's main process sends for it. Publishing is the caller's.
    ("lane", "stored"): {"task_prerun": 1, "task_postrun": 1, "task_success": 1},
    ("lane", "refused"): {"task_prerun": 1, "task_postrun": 1, "task_failure": 1},
    ("broker", "stored"): {
        "task_received": 1,
        "task_prerun": 1,
        "task_postrun": 1,
        "task_success": 1,
    },
    ("broker", "refused"): {
        "task_received": 1,
        "task_prerun": 1,
        "task_postrun": 1,
        "task_failure": 1,
    },
}


@pytest.mark.parametrize(("via", "outcome"), SIGNALS)
def test_signals(rig: Rig, worker: Worker, via: str, outcome: str) -> None:
    """Each of Celery's signals is sent as often as for any task."""
    topic = rig.topic() if outcome == "stored" else rig.refused()
    name = rig.produce.name
    before = worker.signals()

    def counted() -> dict[str, int]:
        now = worker.signals()
        grown = {key: now[key] - before.get(key, 0) for key in now}
        return {key.removeprefix(f"{name} "): n for key, n in grown.items() if n and name in key}

    result = rig.produce.delay("x", topic=topic, via=via)
    result.get(timeout=WAIT, propagate=False)
    # task_postrun comes after the result is stored.
    assert eventually(lambda: counted() == SIGNALS[via, outcome]), counted()


def test_publish_signals_of_a_callback(rig: Rig, worker: Worker) -> None:
    """Publishing `on_ack` sends Celery's publish signals in the worker, once each."""
    key, before = rig.key(), worker.signals()
    rig.produce.delay("x", on_ack=rig.record(key)).get(timeout=WAIT)
    rig.recorded(key)
    wanted = {"before_task_publish": 1, "after_task_publish": 1, "task_sent": 1}

    def counted() -> dict[str, int]:
        now = worker.signals()
        keys = {name: f"acceptance.record {name}" for name in wanted}
        return {name: now.get(key, 0) - before.get(key, 0) for name, key in keys.items()}

    assert eventually(lambda: counted() == wanted), counted()


@pytest.mark.parametrize("via", ["lane", "broker"])
def test_publish_signals_in_the_caller(rig: Rig, via: str) -> None:
    """`before_task_publish` and `after_task_publish` are sent once in the caller."""
    from celery import signals

    seen: list[tuple[str, str]] = []

    def before(headers: Any = None, **_: Any) -> None:
        seen.append(("before", headers["id"]))

    def after(headers: Any = None, **_: Any) -> None:
        seen.append(("after", headers["id"]))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        result = rig.produce.delay("x", via=via)
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert seen == [("before", result.id), ("after", result.id)]


def test_needs_no_pool_slot(rig: Rig) -> None:
    """While every process of the pool is busy, produce tasks by the broker go on, and more of
    them than the pool has processes."""
    key, topic = rig.key(), rig.topic()
    holds = [rig.task("hold").delay(key) for _ in range(2)]
    rig.recorded(f"{key}:running", 2)
    results = [rig.produce.delay(str(n), topic=topic, via="broker") for n in range(40)]
    assert {each.get(timeout=WAIT)["status"] for each in results} == {"stored"}
    assert not any(hold.ready() for hold in holds)
    rig.log.rpush(f"{key}:go", "", "")
    assert [hold.get(timeout=WAIT) for hold in holds] == ["let go"] * 2


def test_redelivery_is_harmless(rig: Rig) -> None:
    """The same Celery message again, after the context is finished: published once."""
    topic, key, task_id = rig.topic(), rig.key(), f"{rig.name}-again"
    for _ in range(2):
        rig.app.send_task(
            rig.produce.name,
            ("x",),
            {"topic": topic, "on_ack": rig.record(key)},
            task_id=task_id,
        )
        rig.recorded(key)
        assert eventually(lambda: rig.pending(topic) == 0)
    last = rig.app.send_task(rig.produce.name, ("last",), {"topic": topic})
    last.get(timeout=WAIT)
    assert rig.texts(topic) == ["x", "last"]
    assert rig.log.llen(key) == 1


def test_active_and_reserved_are_empty_afterwards(rig: Rig, worker: Worker) -> None:
    """The worker's own books are right: nothing stays reserved or active."""
    inspect: Any = rig.app.control.inspect([worker.hostname], timeout=5)
    rig.produce.delay("x", via="broker").get(timeout=WAIT)
    assert eventually(
        lambda: not any(inspect.reserved().values()) and not any(inspect.active().values())
    )


def test_stats_show_the_acknowledger(rig: Rig, worker: Worker) -> None:
    """`celery inspect stats` says that the acknowledger runs."""
    inspect: Any = rig.app.control.inspect([worker.hostname], timeout=5)
    assert inspect.stats()[worker.hostname]["stargate"] == {"running": True}


def test_nothing_went_wrong_inside(worker: Worker) -> None:
    """The worker lived through all of it."""
    assert worker.alive
    assert worker.complaints() == []
