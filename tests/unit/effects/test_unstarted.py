"""Callbacks that are kept until their tasks have started: what is kept, and published again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, group, signals

from celery_stargate import StoreUnavailable
from celery_stargate.effects.callbacks import STARTED_HEADER, callback_id
from celery_stargate.effects.jobs import Job
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.effects.unstarted import Republisher, UntilStarted
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.unstarted import Overdue
from celery_stargate.support.log import package_logger as logger
from tests.unit.helpers import failure, make_app, receipt


class Store:
    """Stands where the callbacks are kept."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.afters: list[float] = []
        self.given_up: list[str] = []
        self.error: Exception | None = None
        #: Task ids that were published before they were kept.
        self.early: list[str] = []

    def keep(self, bodies: Mapping[str, bytes], after: float) -> None:
        """Keep them."""
        self.afters.append(after)
        if self.error is not None:
            raise self.error
        self.bodies |= bodies

    def overdue(self, after: float, bound: float) -> Overdue:
        """All of them."""
        assert (after, bound) == (9.0, 99.0)
        return Overdue(dict(self.bodies), self.given_up)


class Rig:
    """Effects of an app whose broker is in memory."""

    def __init__(self, published: list[dict[str, Any]]) -> None:
        self.app: Celery = make_app()
        self.store = Store()
        kept: Any = self.store
        self.until_started = UntilStarted(self.app, kept, after=9.0, bound=99.0)
        self.effects = Effects(self.app, None)
        self.effects.keep_until_started(self.until_started)
        self.published = published

    def settled(self, context: str, on_ack: Any, *, failed: bool = False) -> Settled:
        """A context whose outcome is known."""
        packed = freeze_callback("on_ack", on_ack, self.app)
        option: dict[str, Any] = {"on_error" if failed else "on_ack": packed}
        record = Record(context, incarnation="i", **option)
        return Settled(record, (failure(context) if failed else receipt(context),))

    def headers(self) -> list[tuple[str, str | None]]:
        """The id and our header of each task that was published."""
        return [(each["id"], each.get(STARTED_HEADER)) for each in self.published]


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A rig that notes the headers of what is published."""
    found: list[dict[str, Any]] = []
    made: list[Rig] = []

    def note(headers: dict[str, Any], **_: Any) -> None:
        if made and headers["id"] not in made[0].store.bodies:
            made[0].store.early.append(headers["id"])
        found.append(headers)

    signals.before_task_publish.connect(note)
    made.append(Rig(found))
    yield made[0]
    signals.before_task_publish.disconnect(note)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("failed", [False, True])
def test_each_callback_is_kept_and_then_published(rig: Rig, count: int, failed: bool) -> None:
    """Alone or together; its header is the id under which it is kept."""
    signature = rig.app.signature("paid", headers={"mine": 1})
    given = [rig.settled(f"c{number}", signature, failed=failed) for number in range(count)]
    assert len(rig.effects.run(given)) == count
    option = "on_error" if failed else "on_ack"
    ids = [callback_id(f"c{number}", "i", option) for number in range(count)]
    assert list(rig.store.bodies) == ids
    assert rig.headers() == [(each, each) for each in ids]
    assert [each["mine"] for each in rig.published] == [1] * count
    assert not rig.store.early


def test_an_id_of_the_callers_own(rig: Rig) -> None:
    """Is the one under which it is kept."""
    rig.effects.run([rig.settled("c", rig.app.signature("paid", task_id="mine"))])
    assert list(rig.store.bodies) == ["mine"]
    assert rig.headers() == [("mine", "mine")]


def test_one_that_waits_is_not_lost(rig: Rig) -> None:
    """Its time to start begins when its countdown or its ETA is over."""
    ends = datetime.now(UTC) + timedelta(seconds=3600)
    options: list[dict[str, Any]] = [
        *({"countdown": 60}, {"eta": ends}, {"eta": ends.isoformat()}, {"countdown": 60}),
        *({}, {"eta": ends - timedelta(seconds=7200)}, {"eta": "never"}),
    ]
    signatures = [rig.app.signature("paid", **each) for each in options]
    rig.effects.run([rig.settled(f"c{at}", each) for at, each in enumerate(signatures)])
    assert len(rig.store.bodies) == len(options)
    waits, at_eta, at_once = rig.store.afters[:3]
    assert (waits, at_once) == (69.0, 9.0)
    assert 3600 < at_eta <= 3609 + 1


def test_a_group_is_not_kept(rig: Rig) -> None:
    """Its tasks are many, and Celery publishes them."""
    given = rig.settled("c", group(rig.app.signature("a"), rig.app.signature("b"), app=rig.app))
    rig.effects.run([given])
    assert not rig.store.bodies
    assert [each.get(STARTED_HEADER) for each in rig.published] == [None, None]


def test_what_cannot_be_kept_is_not_published(rig: Rig) -> None:
    """It stays due, and is tried again."""
    rig.store.error = StoreUnavailable("away")
    job = Job(rig.settled("c", rig.app.signature("paid")))
    rig.effects.go_on([job])
    assert not job.done
    assert not rig.published


def test_it_is_published_again_as_it_was(rig: Rig) -> None:
    """With the same id, arguments and header."""
    sent: list[Any] = []
    signals.before_task_publish.connect(note := lambda body, **_: sent.append(body[0]))
    rig.effects.run([rig.settled("c", rig.app.signature("paid", args=("x",)))])
    assert rig.until_started.publish_again() == 1
    signals.before_task_publish.disconnect(note)
    assert len(set(rig.headers())) == 1
    assert len(rig.published) == 2
    assert sent[0] == sent[1]


def test_one_that_cannot_be_read_costs_the_others_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; what was given up is logged, too."""
    rig.store.bodies["junk"] = b"\xff"
    rig.store.given_up.append("old")
    rig.effects.run([rig.settled("c", rig.app.signature("paid"))])
    with caplog.at_level("WARNING", logger.name):
        assert rig.until_started.publish_again() == 2
    assert len(rig.published) == 2
    assert "callback junk is not published again yet" in caplog.text
    assert "callback old is given up" in caplog.text


class _Held:
    """Stand where `UntilStarted` does; its first look lasts until the test lets it end."""

    after = 0.4

    def __init__(self) -> None:
        self.looked = threading.Semaphore(0)
        self.end = threading.Event()
        self.threads: list[threading.Thread] = []

    def publish_again(self) -> int:
        """Note the thread, and hold the first."""
        self.threads.append(threading.current_thread())
        self.looked.release()
        if len(self.threads) == 1:
            assert self.end.wait(10)
        return 0


def test_one_that_is_started_again_goes_on() -> None:
    """Although the thread that was stopped has not ended; that one looks no more."""
    held = _Held()
    until_started: Any = held
    republisher = Republisher(until_started)
    republisher.start()
    assert held.looked.acquire(timeout=10)
    republisher.stop()
    republisher.start()
    assert held.looked.acquire(timeout=10)
    held.end.set()
    held.threads[0].join(10)
    republisher.stop()
    held.threads[1].join(10)
    assert not any(each.is_alive() for each in held.threads)
    assert held.threads[0] not in held.threads[1:]


def test_what_goes_on_failing_is_logged_seldom(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Each look tries it again, and the others too."""
    rig.store.bodies |= {"junk": b"\xff", "more junk": b"{"}
    with caplog.at_level("WARNING", logger.name):
        for _ in range(3):
            assert rig.until_started.publish_again() == 2
    assert len([each for each in caplog.records if "not published again yet" in each.message]) == 1


def test_looks_go_on_while_there_is_more(caplog: pytest.LogCaptureFixture) -> None:
    """At once while something was found, and later after an error, which is logged once."""
    answers: list[Any] = [2, 1, 0, StoreUnavailable("away"), StoreUnavailable("away"), 0]
    done = threading.Event()

    class Looks:
        after = 0.4

        def publish_again(self) -> int:
            answer = answers.pop(0) if answers else 0
            if not answers:
                done.set()
            if isinstance(answer, Exception):
                raise answer
            return int(answer)

    until_started: Any = Looks()
    republisher = Republisher(until_started)
    with caplog.at_level("WARNING", logger.name):
        republisher.start()
        republisher.start()
        assert done.wait(20)
        republisher.stop()
    assert len([each for each in caplog.records if "looked for later" in each.message]) == 1
