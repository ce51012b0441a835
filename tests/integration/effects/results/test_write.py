"""``results.py``: a batch of results is stored in one round trip, and reads as if one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, signals
from celery.backends.redis import RedisBackend
from celery.result import AsyncResult

from celery_stargate import Failure, Receipt, Stargate, produce_task
from celery_stargate.effects.results.write import ResultBatch, may_batch
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import pack
from celery_stargate.lanes.record import Record, Settled
from tests.integration.conftest import MakeApp
from tests.servers.fixtures import ServerAddress

TASK = produce_task.default_name


def settled(context: str, *, request: dict[str, Any] | None = None, is_list: bool = False) -> Any:
    """Return a context that has its receipts, two for a list."""
    receipts = [Receipt(context=context, topic="persistent://t/n/a", ledger_id=1, entry_id=2)]
    record = Record(
        context,
        is_list=is_list,
        task=TASK,
        request=pack("request", {"id": context, "task": TASK, **(request or {})}),
    )
    return Settled(record, tuple(receipts * (2 if is_list else 1)))


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """A receiver of ``task_success``: what it hears."""
    found: list[str] = []

    def receive(sender: Any, **_: Any) -> None:
        found.append(sender.request.id)

    signals.task_success.connect(receive)
    yield found
    signals.task_success.disconnect(receive)


def stored(app: Celery, context: str) -> dict[str, Any]:
    """Return what stands in the backend, without what differs from run to run."""
    backend: Any = app.backend
    meta: dict[str, Any] = json.loads(backend.client.get(backend.get_key_for_task(context)))
    return {name: value for name, value in meta.items() if name not in ("date_done", "task_id")}


SHAPES = [
    {},
    {"is_list": True},
    {"request": {"parent_id": "p", "root_id": "r", "group": "g"}},
    {"request": {"ignore_result": False, "shadow": "another name"}},
]


@pytest.mark.parametrize("conf", [{}, {"result_extended": True}, {"result_expires": 60}])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_batch_stores_what_one_by_one_stores(
    make_app: MakeApp, conf: dict[str, Any], shape: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """The same meta, the same time to live; a receiver of a signal makes it one by one."""
    app = make_app(None, conf=conf)
    backend: Any = app.backend
    effects = Effects(app, None)
    assert effects.run([settled("batched", **shape)]) == ["batched"]
    heard = request.getfixturevalue("heard")
    assert effects.run([settled("alone", **shape)]) == ["alone"]

    assert heard == ["alone"]
    meta = [json.dumps(stored(app, each)).replace(each, "") for each in ("batched", "alone")]
    assert meta[0] == meta[1]
    lives = [backend.client.ttl(backend.get_key_for_task(each)) for each in ("batched", "alone")]
    assert abs(lives[0] - lives[1]) <= 2
    assert lives[0] > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_those_who_wait_are_told(app: Celery, shape: dict[str, Any]) -> None:
    """By the backend's own pub/sub, as for any result."""
    result: AsyncResult[Any] = produce_task.AsyncResult("waited-for")
    backend: Any = app.backend
    backend.result_consumer.consume_from("waited-for")
    each = settled("waited-for", **shape)
    Effects(app, None).run([each])
    assert result.get(timeout=5) == each.result


def test_a_batch_is_one_round_trip(app: Celery, redis_server: ServerAddress, prefix: str) -> None:
    """Nothing is asked first, and no command waits for the one before."""
    backend: Any = app.backend
    batch = ResultBatch(backend)
    for number in range(50):
        batch.backend.mark_as_done(f"{prefix}-{number}", number)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.get(backend.get_key_for_task(f"{prefix}-0")) is None
    assert len(batch) == 50
    batch.flush()
    assert len(batch) == 0
    assert [AsyncResult(f"{prefix}-{number}", app=app).get(timeout=5) for number in (0, 49)] == [
        0,
        49,
    ]


@pytest.mark.parametrize("what", ["callbacks", "chain", "chord"])
def test_what_something_goes_on_from_is_stored_at_once(app: Celery, what: str) -> None:
    """A link, a chain or a chord may look at the result."""
    assert may_batch(app.tasks[TASK], {})
    assert not may_batch(app.tasks[TASK], {what: [{"task": "x"}]})


def test_what_could_look_at_the_result_gets_it_at_once(app: Celery) -> None:
    """A hook of the task's own, and a receiver of a signal, also for one sender."""
    task = app.tasks[TASK]

    def hear(**_: Any) -> None: ...

    for signal in (signals.task_prerun, signals.task_success, signals.task_postrun):
        signal.connect(hear, sender=task)
        assert not may_batch(task, {})
        signal.disconnect(hear, sender=task)
    assert may_batch(task, {})

    class Audited(type(task)):  # type: ignore[misc]
        def on_success(self, *_: Any) -> None: ...

    assert not may_batch(Audited(), {})


def test_a_backend_of_the_users_own_stores_each_result(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ``set`` may do more than Celery's."""

    class Mirror(RedisBackend):
        def set(self, key: Any, value: Any, **options: Any) -> Any:
            mirrored.append(key)
            return super().set(key, value, **options)

    mirrored: list[Any] = []
    app = make_app(None)
    own = Mirror(app=app, url=app.conf.result_backend)
    monkeypatch.setattr(type(app), "backend", property(lambda self: own))
    assert Effects(app, None).run([settled("mirrored")]) == ["mirrored"]
    assert mirrored == [own.get_key_for_task("mirrored")]


def test_a_task_with_a_backend_of_its_own(make_app: MakeApp) -> None:
    """Has its results there, though the app's backend is one that batches."""
    app, other = make_app(None), make_app(None, conf={"result_backend": "cache+memory://"})
    task: Any = app.tasks[TASK]
    task.backend = other.backend
    try:
        assert Effects(app, None).run([settled("elsewhere")]) == ["elsewhere"]
        assert AsyncResult("elsewhere", backend=other.backend, app=app).state == "SUCCESS"
        assert AsyncResult("elsewhere", app=app).state == "PENDING"
    finally:
        task.backend = None


def test_only_redis(make_app: MakeApp) -> None:
    """Another backend stores each result itself."""
    app = make_app(None, conf={"result_backend": "cache+memory://"})
    assert not may_batch(app.tasks[TASK], {})


def test_a_backend_that_is_away_for_a_moment(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole batch is done again; what was refused in it was stored by itself."""
    now = 0.0
    effects = Effects(app, None, monotonic=lambda: now)
    failed = Settled(settled("failed").record, (Failure(context="failed", reason="no"),))
    flush = ResultBatch.flush

    def away(self: ResultBatch) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(ResultBatch, "flush", away)
    assert effects.run([settled("a"), failed, settled("b")]) == ["failed"]
    monkeypatch.setattr(ResultBatch, "flush", flush)
    now = 5.0
    assert effects.run([settled("a"), settled("b")]) == ["a", "b"]
    assert produce_task.AsyncResult("b").get(timeout=5)["status"] == "stored"
    assert produce_task.AsyncResult("failed").state == "FAILURE"
    assert Stargate.of(app).app is app
