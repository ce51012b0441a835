"""The strategy: Celery's own handler, with a pool that puts each request into its lane."""

from __future__ import annotations

import uuid
from collections import defaultdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from celery import chain
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.utils import json
from kombu.utils.limits import TokenBucket

from celery_stargate import LaneFull, ProduceError, StoreUnavailable
from celery_stargate.calls import prepare
from celery_stargate.calls.revoking import Revoker
from celery_stargate.effects.tracer import CALL
from celery_stargate.worker.strategy import produce
from tests.unit.helpers import TOPIC, make_stargate


class WorkersConsumer(SimpleNamespace):
    """What the strategy needs of a worker's consumer; what a timer calls is Celery's own."""

    apply_eta_task = Consumer.apply_eta_task


class Rig:
    """A worker's consumer as the strategy sees it, and the handler of produce messages."""

    def __init__(self, **conf: Any) -> None:
        self.stargate, self.lanes, self.task = make_stargate(**conf)
        self.app = self.stargate.app
        self.timer = Mock()
        self.consumer = WorkersConsumer(
            app=self.app,
            hostname="unit@here",
            connection_errors=(),
            event_dispatcher=None,
            timer=self.timer,
            disable_rate_limits=True,
            task_buckets=defaultdict(lambda: None),
            on_task_request=Mock(),
            _limit_task=Mock(),
            _limit_post_eta=Mock(),
            qos=Mock(),
            pool=Mock(),
            controller=SimpleNamespace(state=state),
        )
        self.handle = produce(self.task, self.app, self.consumer)
        self.ack, self.reject = Mock(), Mock()

    def receive(self, task_id: str | None = None, **given: Any) -> str:
        """Let a message come, as `send_task` in another process sends it."""
        task_id = task_id or uuid.uuid4().hex
        options, redelivered = given.pop("options", {}), given.pop("redelivered", False)
        make = getattr(self.app.amqp, f"as_task_v{given.pop('protocol', 2)}")
        made = make(task_id, self.task.name, (), given, **options)
        message = Mock(
            headers=made.headers,
            payload=made.body,
            body=json.dumps(made.body),
            properties=made.properties,
            delivery_info={"redelivered": redelivered},
            content_type="application/json",
            content_encoding="utf-8",
            acknowledged=False,
        )
        self.handle(message, None, self.ack, self.reject, [])
        return task_id

    def state_of(self, task_id: str) -> str:
        """The state of a task's result."""
        return str(self.app.AsyncResult(task_id).state)

    def let_the_time_come(self) -> None:
        """Call what the timer would call at the ETA of the task that came last."""
        _, call, args = self.timer.call_at.call_args.args
        call(*args)


@pytest.fixture
def rig() -> Rig:
    """A rig."""
    return Rig()


def test_a_message_goes_into_its_lane(rig: Rig) -> None:
    """Past the pool, under its task's id, with a tombstone for a redelivery; then it is acked."""
    task_id = rig.receive(message="a", topic="other", delivery_timeout=5)
    [put] = rig.lanes.puts
    assert put.lane.topic == "persistent://public/default/other"
    assert (put.record.context, put.record.task) == (task_id, rig.task.name)
    assert put.options["timeout"] == 5
    assert put.options["tombstone"] == 3600
    assert not put.options["exclusive"]
    assert json.loads(put.record.request or "")["id"] == task_id
    rig.consumer.pool.apply_async.assert_not_called()
    rig.ack.assert_called_once()
    rig.reject.assert_not_called()


def test_the_visibility_timeout_is_the_tombstones() -> None:
    """As long as the broker may deliver it again."""
    rig = Rig(broker_transport_options={"visibility_timeout": 60})
    rig.receive(message="a")
    assert rig.lanes.puts[0].options["tombstone"] == 60


def test_callbacks_come_along(rig: Rig) -> None:
    """As their dicts."""
    rig.receive(message="a", on_ack=dict(rig.app.signature("shop.ship")))
    assert json.loads(rig.lanes.puts[0].record.on_ack or "")["task"] == "shop.ship"


def test_acks_late() -> None:
    """In the lane is done, whenever the pool would have acked."""
    rig = Rig(task_acks_late=True)
    rig.receive(message="a")
    assert len(rig.lanes.puts) == 1
    rig.ack.assert_called_once()


def test_redis_away(rig: Rig) -> None:
    """The broker keeps the message; it is put again later, and acked then."""
    rig.lanes.error = StoreUnavailable("Redis is away")
    rig.receive(message="a")
    rig.ack.assert_not_called()
    [(seconds, again, args)] = [call.args for call in rig.timer.call_after.call_args_list]
    assert 0 < seconds <= 5
    rig.lanes.error = None
    again(*args)
    assert len(rig.lanes.puts) == 1
    rig.ack.assert_called_once()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"message": 5}, "not int"),
        ({"message": ["a", 5]}, "message 1 of the list: "),
        ({"message": "a", "topic": "a/b"}, f"topic {'a/b'!r} is not of the form"),
        ({"message": ("k", "a")}, "a list of two texts came as JSON"),
        ({"message": "a", "topik": "a"}, "no argument 'topik'; did you mean 'topic'?"),
        ({}, "no message was given"),
        ({"message": "a", "on_ack": 5}, "on_ack must be a signature"),
        ({"message": "a", "on_error": 5}, "on_error must be a signature"),
    ],
)
def test_bad_input_fails_the_task(rig: Rig, given: dict[str, Any], words: str) -> None:
    """What `delay()` would have told its caller is the task's failure, and the message is gone."""
    task_id = rig.receive(**given)
    assert rig.lanes.puts == []
    rig.ack.assert_called_once()
    with pytest.raises(ProduceError) as caught:
        rig.app.AsyncResult(task_id).get(timeout=1)
    assert words in caught.value.reason
    assert caught.value.status == "refused"


def test_a_worker_that_is_set_up_wrongly_fails_the_task(caplog: pytest.LogCaptureFixture) -> None:
    """And its log says that it is not the message's fault."""
    rig = Rig(stargate_url=None)
    task_id = rig.receive(message="a")
    rig.ack.assert_called_once()
    with pytest.raises(ProduceError, match="stargate_url is not set"):
        rig.app.AsyncResult(task_id).get(timeout=1)
    assert "the task fails, because of this worker: " in caplog.text


def test_a_message_of_celerys_first_protocol(rig: Rig) -> None:
    """Its body comes decoded; what a newer caller sends is the same message."""
    for protocol in (1, 2):
        rig.receive(message="a", topic="other", protocol=protocol)
    first, second = rig.lanes.puts
    assert first.lane == second.lane
    frames = [json.loads(frame) for put in (first, second) for _, frame in put.messages]
    assert frames[0] | {"context": ""} == frames[1] | {"context": ""}


def test_a_full_lane_fails_the_task(rig: Rig) -> None:
    """By its code, it can be told from bad input."""
    rig.lanes.error = LaneFull(TOPIC, 5, 5)
    task_id = rig.receive(message="a")
    with pytest.raises(ProduceError) as caught:
        rig.app.AsyncResult(task_id).get(timeout=1)
    assert caught.value.failure["code"] == "LaneFull"


def test_a_revoked_task_is_not_put(rig: Rig) -> None:
    """As for any task."""
    task_id = uuid.uuid4().hex
    state.revoked.add(task_id)
    try:
        rig.receive(task_id, message="a")
    finally:
        state.revoked.discard(task_id)
    assert rig.lanes.puts == []


def test_an_expired_task_is_not_put(rig: Rig) -> None:
    """As for any task."""
    rig.receive(message="a", options={"expires": -5})
    assert rig.lanes.puts == []


def test_a_task_that_expires_on_its_way_into_the_lane(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery found it in time; it is not sent all the same, and ends as revoked."""
    monkeypatch.setattr(prepare, "until", lambda *_: 0.0)
    task_id = rig.receive(message="a", options={"expires": 60})
    assert rig.lanes.puts == []
    assert rig.state_of(task_id) == "REVOKED"
    rig.ack.assert_called_once()


def test_a_task_that_came_again_may_have_been_revoked_before(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This worker did not hear of it: it asks Redis, and of no other task."""
    asked: list[str] = []

    def is_revoked(_: Revoker, context: str) -> bool:
        asked.append(context)
        return True

    monkeypatch.setattr(Revoker, "is_revoked", is_revoked)
    again = rig.receive(message="a", redelivered=True)
    waited = rig.receive(message="a", options={"countdown": 60})
    rig.let_the_time_come()
    assert rig.lanes.puts == []
    assert [rig.state_of(each) for each in (again, waited)] == ["REVOKED"] * 2
    rig.receive(message="a")
    assert len(rig.lanes.puts) == 1
    assert asked == [again, waited]


def test_a_stamp_may_have_been_revoked_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for before the call can be sent, and when the lane has it: one who revokes the
    stamp meanwhile finds it there."""
    checked: list[tuple[str, int, Any]] = []

    def check(_: Revoker, context: str, lanes: Any, request: Any) -> None:
        checked.append((context, len(rig.lanes.puts), request["stamps"]))
        assert lanes == [rig.lanes.puts[-1].lane]

    revoked = [False, True]
    monkeypatch.setattr(Revoker, "check_stamps", check)
    monkeypatch.setattr(Revoker, "has_revoked_stamp", lambda *_: revoked.pop(0))
    rig.receive(message="a")
    options = {"stamped_headers": ["order"], "order": "17"}
    stamped = rig.receive(message="a", options=options)
    assert checked == [(stamped, 2, {"order": "17"})]
    before = rig.receive(message="a", options=options)
    assert rig.state_of(before) == "REVOKED" and len(rig.lanes.puts) == 2


def test_a_task_that_celery_retries_can_be_published_again(rig: Rig) -> None:
    """Its record keeps the call, with the callbacks as they were frozen; else it need not."""

    def kept() -> Any:
        return json.loads(rig.lanes.puts[-1].record.request or "").get(CALL)

    ship = rig.app.signature("shop.ship")
    given: dict[str, Any] = {"message": "a", "on_ack": dict(chain(ship, ship))}
    rig.receive(**given)
    assert kept() is None
    rig.task = rig.stargate.task(name="shop.retried", autoretry_for=(ProduceError,))
    rig.handle = produce(rig.task, rig.app, rig.consumer)
    rig.receive(**given)
    args, kwargs = kept()
    frozen = json.loads(rig.lanes.puts[-1].record.on_ack or "")
    assert (args, kwargs["message"]) == ([], "a")
    assert kwargs["on_ack"] == frozen
    assert all(each["options"]["task_id"] for each in frozen["kwargs"]["tasks"])


def test_a_task_with_a_countdown_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Celery's own timer; then it goes into its lane, and not into the pool."""
    rig.receive(message="a", options={"countdown": 60})
    assert rig.lanes.puts == []
    rig.timer.call_at.assert_called_once()
    monkeypatch.setattr(Revoker, "is_revoked", lambda *_: False)
    rig.let_the_time_come()
    assert len(rig.lanes.puts) == 1
    rig.consumer.pool.apply_async.assert_not_called()


def test_a_task_that_is_revoked_while_it_waits_for_its_eta(rig: Rig) -> None:
    """It goes nowhere, and ends as revoked."""
    task_id = rig.receive(message="a", options={"countdown": 60})
    state.revoked.add(task_id)
    try:
        rig.let_the_time_come()
    finally:
        state.revoked.discard(task_id)
    assert rig.lanes.puts == []
    assert rig.state_of(task_id) == "REVOKED"


def test_a_rate_limit_is_celerys(rig: Rig) -> None:
    """The bucket is asked before the lane."""
    rig.consumer.disable_rate_limits = False
    rig.consumer.task_buckets[rig.task.name] = TokenBucket(1)
    rig.handle = produce(rig.task, rig.app, rig.consumer)
    rig.receive(message="a")
    assert rig.lanes.puts == []
    rig.consumer._limit_task.assert_called_once()  # noqa: SLF001
