"""``chords.py``: tasks of a chord's header are counted when the batch of results is stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from celery.backends.redis import RedisBackend
from celery.result import AsyncResult
from kombu.utils import json

from celery_stargate import Receipt, Stargate, produce_task
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.run import Effects
from celery_stargate.lanes.record import Settled
from tests.integration.conftest import MakeApp
from tests.unit.helpers import TOPIC, NotedLanes

QUEUE = "chord-bodies"
Published = Callable[[], list[Any]]


@pytest.fixture
def app(make_app: MakeApp) -> Celery:
    """An app on Redis, whose lanes take notes."""
    app = make_app("ws://pulsar.invalid:8080")
    Stargate.of(app).runtime.__dict__["outbox"] = Lanes()
    return app


class Lanes(NotedLanes):
    """Lanes that take notes, and have nothing to close."""

    def close(self) -> None:
        """Do nothing."""


def header(app: Celery, count: int) -> list[Settled]:
    """Call produce tasks as a chord calls its header; return them, each with its receipt."""
    task: Any = app.tasks[produce_task.name]
    body, backend, name = app.signature("shop.body", queue=QUEUE), app.backend, str(uuid.uuid4())
    # A chord's own result would subscribe to all of them.
    backend.set_chord_size(name, count)
    for number in range(count):
        task.apply_async((str(number),), group_id=name, group_index=number, chord=body)
    puts = Stargate.of(app).runtime.outbox.puts  # type: ignore[attr-defined]
    return [
        Settled(put.record, (Receipt(context=put.record.context, topic=TOPIC, ledger_id=1),))
        for put in puts[-count:]
    ]


@pytest.fixture
def bodies(app: Celery) -> Published:
    """Return the messages of the bodies that were published."""
    backend: Any = app.backend

    def published() -> list[Any]:
        key = f"{app.conf.broker_transport_options['global_keyprefix']}{QUEUE}"
        return [json.loads(each) for each in backend.client.lrange(key, 0, -1)]

    return published


def test_a_header_is_a_round_trip_for_each_task(
    app: Celery, bodies: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that counts it; the results of all are stored in one."""
    effects = Effects(app, None)
    # Connections are made, and scripts are loaded.
    effects.run(header(app, 2))
    given = header(app, 50)
    writes = 0
    plain: Any = redis.connection.Connection.send_packed_command

    def send(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal writes
        writes += 1
        return plain(self, *args, **options)

    monkeypatch.setattr(redis.connection.Connection, "send_packed_command", send)
    assert len(effects.run(given)) == 50
    # Beside them the results, and what the last task does: it reads them, publishes the body, and
    # deletes the chord.
    assert writes <= 50 + 12
    _, body = sorted(bodies(), key=lambda each: len(each["body"]))
    assert {AsyncResult(each.record.context, app=app).state for each in given} == {"SUCCESS"}
    assert body["headers"]["parent_id"] == given[-1].record.context


@pytest.mark.parametrize("where", [(RedisBackend, "on_chord_part_return"), (ResultBatch, "flush")])
def test_a_backend_that_is_away_for_a_moment(
    app: Celery, bodies: Published, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    """No task is counted before its result is stored; each is repeated, and counts once."""
    given = header(app, 3)
    now = 0.0
    effects = Effects(app, None, monotonic=lambda: now)
    counted: list[str] = []
    count = RedisBackend.on_chord_part_return

    def note(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        assert self.get(self.get_key_for_task(request.id)) is not None
        counted.append(request.id)
        return count(self, request, *args, **options)

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(RedisBackend, "on_chord_part_return", note)
    with monkeypatch.context() as patched:
        patched.setattr(*where, away)
        assert effects.run(given) == []
    assert counted == []
    assert bodies() == []
    now = 5.0
    contexts = [each.record.context for each in given]
    assert effects.run(given) == contexts
    assert counted == contexts
    assert len(bodies()) == 1
    # As after a crash, before the contexts are finished.
    assert effects.run(given) == contexts
    assert len(bodies()) == 1


def test_a_chord_that_cannot_be_counted(
    app: Celery, bodies: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chord fails, as in Celery's own tracer; a result that is stored stays."""
    given = header(app, 2)
    broken = given[0].record.context
    count = RedisBackend.on_chord_part_return

    def refuse(self: Any, request: Any, state: str, *args: Any, **options: Any) -> Any:
        if request.id == broken and state == "SUCCESS":
            raise TypeError("no chord")
        return count(self, request, state, *args, **options)

    monkeypatch.setattr(RedisBackend, "on_chord_part_return", refuse)
    effects = Effects(app, None)
    assert len(effects.run(given)) == 2
    states = [AsyncResult(each.record.context, app=app).state for each in given]
    assert states == ["SUCCESS", "SUCCESS"]
    assert bodies() == []
