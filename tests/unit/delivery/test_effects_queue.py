"""``delivery/effects_queue.py``: the effects of each settled context are done, once here."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from celery_stargate.delivery import effects_queue
from celery_stargate.delivery.shared import _REPLACE_AFTER, StageThreads
from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.lanes.record import Record, Settled
from tests.unit.delivery.rig import PartsRig, receipt, settled, until


async def drain(rig: PartsRig) -> None:
    """Run the queue until it is empty."""
    running = asyncio.ensure_future(rig.queue.run())
    try:
        await until(lambda: running.done() or not len(rig.queue))
    finally:
        running.cancel()


def test_effects_are_done_and_forgotten() -> None:
    """Those that failed stay in Redis, for a later look."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.failing = {"c2"}
        rig.queue.add([settled(1), settled(2)])
        assert len(rig.queue) == 2
        await drain(rig)
        return rig

    rig = asyncio.run(main())
    assert rig.effects.runs == [["c1", "c2"]]
    assert rig.store.finished == [("c1", 1)]


def test_a_context_that_is_here_already() -> None:
    """Is found due again while its effects run; they are done once."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.queue.add([settled(1)])
        rig.queue.add([settled(1), settled(2)])
        await drain(rig)
        return rig

    assert asyncio.run(main()).effects.runs == [["c1", "c2"]]


def test_contexts_of_one_name() -> None:
    """A context that is used again is another one, also while the first is done."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.queue.add([Settled(Record("c"), (receipt(number),), number) for number in (1, 2)])
        assert len(rig.queue) == 2
        await drain(rig)
        return rig

    rig = asyncio.run(main())
    assert rig.effects.runs == [["c", "c"]]
    assert rig.store.finished == [("c", 1), ("c", 2)]


def test_rounds_are_bounded() -> None:
    """The thread is asked again for more."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.queue.add(settled(number) for number in range(250))
        await drain(rig)
        return rig

    assert [len(each) for each in asyncio.run(main()).effects.runs] == [100, 100, 50]


def test_receipts_are_waited_for_no_more() -> None:
    """The session is told the labels of what has its outcome."""
    forgotten: list[tuple[str, int]] = []

    class Session:
        def forget(self, messages: Any) -> None:
            forgotten.extend(messages)

    async def main() -> None:
        rig = PartsRig()
        rig.in_flight.opened(cast("Any", Session()))
        rig.queue.add([settled(1)])

    asyncio.run(main())
    assert forgotten == [("c1", 1)]


def staged(number: int) -> Settled:
    """Return a context with a waiting caller, a callback and a result."""
    record = Record(f"c{number}", inbox="i/1", on_ack="packed", task="t")
    return Settled(record, (receipt(number),), number)


def test_stages_go_one_after_another() -> None:
    """Who waits comes first; the result is stored after the callback, as Celery does with links."""
    stages: list[Stage] = []

    async def main() -> PartsRig:
        rig = PartsRig()
        perform = rig.effects.perform

        def note(stage: Stage, jobs: Any) -> list[Job]:
            stages.append(stage)
            return perform(stage, jobs)

        rig.effects.perform = note  # type: ignore[method-assign]
        rig.queue.add([staged(1)])
        await drain(rig)
        return rig

    rig = asyncio.run(main())
    assert stages == [Stage.WAITERS, Stage.CALLBACKS, Stage.RESULTS]
    assert rig.store.finished == [("c1", 1)]


def test_a_stage_that_is_interrupted_holds_back_no_other() -> None:
    """The result is stored while the broker is away; only the callback is done again."""
    stages: list[Stage] = []
    away = True

    async def main() -> PartsRig:
        rig = PartsRig()

        def perform(stage: Stage, jobs: Any) -> list[Job]:
            stages.append(stage)
            for job in jobs:
                if stage is Stage.CALLBACKS and away:
                    job.interrupted.add(stage)
                else:
                    job.finish(stage)
            return []

        rig.effects.perform = perform  # type: ignore[method-assign]
        rig.queue.add([staged(1)])
        await drain(rig)
        assert rig.store.finished == []
        assert len(rig.queue) == 0, "it stays due in Redis"
        nonlocal away
        away = False
        rig.queue.add([staged(1)])
        await drain(rig)
        return rig

    rig = asyncio.run(main())
    assert stages == [Stage.WAITERS, Stage.CALLBACKS, Stage.RESULTS, Stage.CALLBACKS]
    assert rig.store.finished == [("c1", 1)]


def test_a_thread_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contexts leave the queue, others are not given to it, and it is replaced in the end."""
    monkeypatch.setattr("celery_stargate.delivery.effects_queue._LOOK_EVERY", 0.01)
    answers = threading.Event()
    hanging = [0.0]
    performed: list[str] = []

    async def main() -> PartsRig:
        rig = PartsRig()
        abandoned: list[Stage] = []

        def perform(stage: Stage, jobs: Any) -> list[Job]:
            if not performed:
                performed.append("hangs")
                assert answers.wait(20)
                return []
            performed.extend(job.context for job in jobs)
            for job in jobs:
                job.finish(stage)
            return []

        effects: Any = rig.effects
        effects.perform = perform
        effects.hangs_for = lambda stage: hanging[0]
        effects.abandon = abandoned.append
        rig.queue.add([settled(1)])
        running = asyncio.ensure_future(rig.queue.run())
        await until(lambda: performed)
        hanging[0] = 6.0
        await until(lambda: not len(rig.queue))
        rig.queue.add([settled(2)])
        await until(lambda: not len(rig.queue))
        assert performed == ["hangs"]
        # Another thread than the one that hangs.
        rig.executor = type(rig.executor)(1)
        hanging[0] = _REPLACE_AFTER + 1

        def forget(stage: Stage) -> None:
            abandoned.append(stage)
            hanging[0] = 0.0

        effects.abandon = forget
        rig.queue.add([settled(3)])
        await until(lambda: not len(rig.queue))
        assert abandoned == [Stage.WAITERS]
        running.cancel()
        answers.set()
        return rig

    rig = asyncio.run(main())
    assert performed == ["hangs", "c3"]
    assert rig.store.finished == [("c3", 3)]


def test_effects_have_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """A context always ends: what was away for too long is given up, and told in the log."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.failing = {"c1"}
        rig.queue.add([staged(1)])
        await drain(rig)
        rig.clock += rig.shared.settings.effects_timeout + 1
        rig.queue.add([staged(1)])
        await drain(rig)
        return rig

    rig = asyncio.run(main())
    assert (rig.store.finished, rig.store.given_up) == ([], [("c1", "TimeoutError effects")])
    assert "the context is given up after 86401 s: could not notify waiting callers" in caplog.text
    assert "context=c1" in caplog.text


def test_effects_beside_the_queue_that_are_given_up() -> None:
    """Their contexts are forgotten with the cause, and the others are finished."""

    async def main() -> PartsRig:
        rig = PartsRig()

        def perform(stage: Stage, jobs: Any) -> list[Job]:
            for job in jobs:
                if job.context == "c2":
                    job.give_up("BackendError", "result")
                job.finish(stage)
            return []

        rig.effects.perform = perform  # type: ignore[method-assign]
        await rig.queue.hand_in([settled(1), settled(2)])
        return rig

    rig = asyncio.run(main())
    assert rig.store.finished == [("c1", 1)]
    assert rig.store.given_up == [("c2", "BackendError result")]


def test_a_stage_that_is_slow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one that hangs is left: what is under way would be done twice."""
    monkeypatch.setattr(effects_queue, "_LOOK_EVERY", 0.001)

    async def main() -> PartsRig:
        rig = PartsRig()
        looked, perform = threading.Semaphore(0), rig.effects.perform

        def slow(stage: Stage, jobs: Any) -> list[Job]:
            for _ in range(3):
                assert looked.acquire(timeout=10)
            return perform(stage, jobs)

        def hangs_for(stage: Stage) -> float:
            looked.release()
            return 0.0

        rig.effects.perform = slow  # type: ignore[method-assign]
        rig.effects.hangs_for = hangs_for  # type: ignore[method-assign]
        rig.queue.add([settled(1)])
        await drain(rig)
        return rig

    assert asyncio.run(main()).store.finished == [("c1", 1)]


def test_what_is_kept_of_interrupted_contexts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not kept is done whole again; one that another process finished is forgotten."""
    monkeypatch.setattr(effects_queue, "_KEPT_COUNT", 2)

    async def main() -> None:
        rig = PartsRig()
        rig.effects.failing = {"c1", "c2", "c3", "c4"}
        kept = vars(rig.queue)["_interrupted"]
        rig.queue.add([settled(number) for number in (1, 2, 3)])
        await drain(rig)
        assert list(kept) == [("c1", 1), ("c2", 2)]
        rig.clock += rig.shared.settings.effects_timeout + 100_000.0
        rig.queue.add([settled(4)])
        await drain(rig)
        assert ("c1", 1) not in kept

    asyncio.run(main())


def test_a_thread_that_was_never_needed_is_replaced() -> None:
    """A server may hang for another lane; there is nothing to end then."""
    made: list[Stage] = []

    class Thread:
        def shutdown(self, *, wait: bool) -> None:
            made.remove(Stage.RESULTS)

    def make(stage: Stage) -> Any:
        made.append(stage)
        return Thread()

    threads = StageThreads(make)
    threads.replace(Stage.RESULTS)
    assert made == []
    threads.of(Stage.RESULTS)
    threads.replace(Stage.RESULTS)
    assert made == []
    assert threads.patience(Stage.RESULTS) == 4 * _REPLACE_AFTER
