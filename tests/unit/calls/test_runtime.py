"""What an app has at run time, over lanes that take notes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery

from celery_stargate import (
    Acknowledger,
    ConfigurationError,
    InvalidMessage,
    Stargate,
    StoreUnavailable,
)
from celery_stargate import acknowledger as acknowledger_module
from celery_stargate.calls import runtime as module
from celery_stargate.calls.runtime import Runtime
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import TOPIC, NotedLanes, failure, make_app, make_stargate

LANE = Lane(TOPIC)


class Noted:
    """Stand where a DeliveryThread does."""

    made: list[Noted]

    def __init__(self, *given: Any, for_calls: bool) -> None:
        assert for_calls
        self.running = False
        self.made.append(self)

    def start(self) -> None:
        """Note it."""
        self.running = True

    def use(self) -> bool:
        """Say whether it still owns lanes."""
        return self.running

    def stop(self) -> None:
        """Note it."""
        self.running = False


class Delivery(Noted):
    """Stand where the thread of an acknowledger does."""

    def __init__(self, *given: Any) -> None:
        self.running = False

    def stop(self, timeout: float | None = None) -> None:
        """Note it."""
        self.running = False


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> list[Noted]:
    """The threads that were made."""
    Noted.made = []
    monkeypatch.setattr(module, "DeliveryThread", Noted)
    return Noted.made


def runtime_of(workers: int) -> tuple[Runtime, NotedLanes, list[int]]:
    """Return a runtime beside so many workers, its lanes, and how often it looked for workers."""
    stargate, lanes, _ = make_stargate()
    surveys: list[int] = []

    def survey() -> tuple[int, list[Lane]]:
        surveys.append(workers)
        return workers, []

    vars(lanes).update(survey=survey)
    return stargate.runtime, lanes, surveys


def test_an_app_has_one() -> None:
    """Its Stargate's; an app without a Stargate says so."""
    app = make_app()
    stargate = Stargate(app)
    assert Runtime.of(app) is stargate.runtime
    with pytest.raises(ConfigurationError, match=r"has no Stargate; call Stargate\(app\)"):
        Runtime.of(Celery("bare", set_as_current=False))


def test_where_a_worker_is_alive_nothing_starts(threads: list[Noted]) -> None:
    """And it is not looked for again at once."""
    runtime, _, surveys = runtime_of(workers=1)
    runtime.require_owner()
    runtime.require_owner()
    assert surveys == [1]
    assert threads == []


def test_where_none_is_alive_this_process_owns_lanes(threads: list[Noted]) -> None:
    """Once, until it is closed."""
    runtime, _, surveys = runtime_of(workers=0)
    runtime.require_owner()
    runtime.require_owner()
    assert surveys == [0]
    [thread] = threads
    assert thread.running
    runtime.close()
    assert not thread.running
    runtime.require_owner()
    assert len(threads) == 2
    runtime.close()


def test_one_that_ended_by_itself_is_followed_by_another(threads: list[Noted]) -> None:
    """Nothing had waited for long, or a worker came, and is gone now."""
    runtime, _, _ = runtime_of(workers=0)
    runtime.require_owner()
    threads[0].running = False
    runtime.require_owner()
    assert [each.running for each in threads] == [False, True]


def test_only_workers_own_lanes(threads: list[Noted], caplog: pytest.LogCaptureFixture) -> None:
    """With `stargate_own_lanes = "worker"`; the log says once that none is alive."""
    runtime, _, _ = runtime_of(workers=0)
    runtime.app.conf.stargate_own_lanes = "worker"
    runtime.require_owner()
    runtime.require_owner()
    assert threads == []
    assert [record.getMessage() for record in caplog.records] == [
        module._NO_WORKER  # noqa: SLF001
    ]


@pytest.mark.parametrize("own_lanes", ["auto", "worker"])
def test_an_acknowledger_of_this_process_owns_lanes(
    own_lanes: str,
    threads: list[Noted],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From its start, before Redis has heard of it; a call starts no second owner beside it."""
    monkeypatch.setattr(acknowledger_module, "DeliveryThread", Delivery)
    runtime, lanes, surveys = runtime_of(workers=0)
    vars(lanes).update(remove_ended=lambda: False)
    runtime.app.conf.stargate_own_lanes = own_lanes
    acknowledger = Acknowledger(runtime.app)
    with acknowledger:
        runtime.require_owner()
        runtime.owner_notice.look()
        assert threads == []
        assert caplog.records == []
    assert acknowledger.running is False
    runtime.require_owner()
    assert len(threads) == (own_lanes == "auto")
    assert surveys


def test_reset_reads_the_settings_again() -> None:
    """And the answers go to an inbox of its own."""
    runtime, _, _ = runtime_of(workers=1)
    before = runtime.inbox
    assert runtime.inbox is before
    runtime.reset()
    runtime.app.conf.stargate_prefix = "other"
    assert runtime.settings.prefix == "other"
    assert runtime.inbox is not before


def test_reset_forgets_who_owned_lanes(
    threads: list[Noted], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An acknowledger owns those of the settings with which it was made."""
    monkeypatch.setattr(acknowledger_module, "DeliveryThread", Delivery)
    runtime, lanes, _ = runtime_of(workers=0)
    runtime.app.conf.stargate_own_lanes = "worker"
    runtime.require_owner()
    with Acknowledger(runtime.app):
        runtime.reset()
        vars(runtime)["outbox"] = lanes
        runtime.require_owner()
    assert [record.getMessage() for record in caplog.records] == [module._NO_WORKER] * 2  # noqa: SLF001


def test_redis_may_be_away_while_a_call_waits(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged: the message is recorded, and its outcome may come later."""
    runtime, lanes, _ = runtime_of(workers=1)

    def away(*given: Any) -> Any:
        raise StoreUnavailable("Redis is away")

    vars(lanes).update(survey=away, expire=away)
    runtime.look_for_owner()
    runtime.settle_overdue([LANE])
    assert [record.getMessage() for record in caplog.records] == [
        "Redis is away; the call waits on",
        "Redis is away; what is overdue is settled later",
    ]
    with pytest.raises(StoreUnavailable):
        runtime.require_owner()


def test_what_is_overdue_is_settled_with_its_effects() -> None:
    """The waiting process is told, and the context is finished."""
    runtime, lanes, _ = runtime_of(workers=1)
    record = Record("c", inbox="inbox/1")
    lanes.overdue = [Settled(record, (failure("c", code="deadline"),))]
    runtime.settle_overdue([LANE])
    assert [address for address, _ in lanes.told] == ["inbox/1"]
    assert lanes.finished == [("c", 0)]


def test_nothing_is_made_to_be_closed() -> None:
    """A runtime that was not used has no connection."""
    runtime = Stargate(make_app()).runtime
    runtime.close()
    assert "connections" not in vars(runtime)


def test_connections_are_closed_whoever_made_them() -> None:
    """The operators' questions and kept callbacks need no outbox."""
    runtime = Stargate(make_app()).runtime
    closed: list[bool] = []
    connections: Any = runtime.connections
    connections.close = lambda: closed.append(True)
    runtime.close()
    assert closed == [True]


def test_an_owner_that_was_killed_counts_no_more(threads: list[Noted]) -> None:
    """It is removed, and the owners are counted again: this process takes the lanes."""
    runtime, lanes, surveys = runtime_of(workers=0)
    left = [1, 0]

    def survey() -> tuple[int, list[Lane]]:
        surveys.append(left[0])
        return left.pop(0), []

    vars(lanes).update(survey=survey, remove_ended=lambda: True)
    runtime.require_owner()
    assert surveys == [1, 0]
    assert len(threads) == 1
    runtime.close()


def test_a_worker_that_is_missed_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is looked for each second, and the log says so once, until one has come."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    runtime, _, surveys = runtime_of(workers=0)
    runtime.app.conf.stargate_own_lanes = "worker"
    for _ in range(3):
        runtime.require_owner()
        now[0] += 2.0
    assert surveys == [0, 0, 0]
    assert len(caplog.records) == 1


def test_what_prepares_calls_is_kept_until_the_settings_are_read_again() -> None:
    """For topics that are used again, by whichever of their names."""
    stargate, *_ = make_stargate(stargate_topics={"orders": {"topic": TOPIC, "lanes": 4}})
    runtime = stargate.runtime

    def lanes() -> int:
        prepared = runtime.preparation("orders")
        return len({prepared.call(f"{n}", f"c{n}").lanes[0] for n in range(99)})

    kept = runtime.preparation("orders")
    assert runtime.preparation("orders") is kept
    assert runtime.preparation(TOPIC) is not kept
    assert lanes() == 4
    stargate.app.conf.stargate_topics = {"orders": {"topic": TOPIC}}
    runtime.reset()
    assert lanes() == 1


@pytest.mark.parametrize("topic", [["a"], 5, "a/b"])
def test_a_topic_that_is_none(topic: Any) -> None:
    """Is told each time, also one that cannot be a key of what is kept."""
    stargate, *_ = make_stargate()
    for _ in range(2):
        with pytest.raises(InvalidMessage, match="topic"):
            stargate.runtime.preparation(topic)
