"""Many bounds of one event loop by one timer, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from celery_stargate.support.alarms import Alarms
from tests.simulation.loop import VirtualLoop


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    task = loop.create_task(main())
    assert loop.advance(task.done, 1e6)
    loop.close()
    task.result()


def test_each_rings_at_its_time_unless_it_ended() -> None:
    """Whatever the order in which they begin and end."""
    rng = random.Random(7)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        due, rung = dict[int, float](), dict[int, float]()
        alarms = Alarms[int](lambda number: rung.__setitem__(number, loop.time()))

        for number in range(300):
            seconds = rng.choice((0.0, 0.5, 30.0, rng.uniform(0, 3)))
            due[number] = loop.time() + seconds
            alarms.begin(number, seconds)
            if rng.random() < 0.4:
                ended = rng.randrange(number + 1)
                if due.get(ended, 0.0) > loop.time():
                    alarms.end(ended)
                    due.pop(ended)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.uniform(0, 1))
        await asyncio.sleep(40)
        assert rung.keys() == due.keys()
        assert rung == pytest.approx(due, abs=0.0101)

    run(main)


def test_one_timer_serves_all_and_none_is_left() -> None:
    """A loop that has nothing to wait for has no timer."""

    async def main() -> None:
        rung, loop = asyncio.Queue[int | str](), asyncio.get_running_loop()
        alarms = Alarms(rung.put_nowait)
        timers: list[asyncio.TimerHandle] = []
        call_at = loop.call_at

        def noted(*given: Any, **options: Any) -> asyncio.TimerHandle:
            timers.append(call_at(*given, **options))
            return timers[-1]

        loop.call_at = noted  # type: ignore[method-assign,assignment]
        for number in range(100):
            alarms.begin(number, 5.0 + number)
        assert len(timers) == 1
        alarms.begin("earlier", 1.0)
        assert [each.cancelled() for each in timers] == [True, False]
        for number in range(100):
            alarms.end(number)
        alarms.end("unknown")
        assert not timers[-1].cancelled()
        alarms.end("earlier")
        assert all(each.cancelled() for each in timers)
        await asyncio.sleep(200)
        assert rung.empty()
        # It begins anew after that.
        alarms.begin("later", 1.0)
        assert await rung.get() == "later"

    run(main)


def test_one_that_raises_hits_no_other() -> None:
    async def main() -> None:
        loop, told, rung = asyncio.get_running_loop(), list[object](), asyncio.Event()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        wrong = KeyError("wrong")

        def ring(what: str) -> None:
            if what == "wrong":
                raise wrong
            rung.set()

        alarms = Alarms(ring)
        alarms.begin("wrong", 1.0)
        alarms.begin("right", 1.0)
        await rung.wait()
        assert told == [wrong]

    run(main)


def test_what_waits_gets_a_new_time() -> None:
    async def main() -> None:
        rung, loop = list[float](), asyncio.get_running_loop()
        began = loop.time()
        alarms = Alarms[str](lambda _: rung.append(loop.time() - began))
        alarms.begin("a", 1.0)
        alarms.begin("a", 2.0)
        await asyncio.sleep(10)
        assert rung == pytest.approx([2.0])

    run(main)


def test_handles_that_do_not_tell_their_time() -> None:
    """Those of uvloop, for what is due at once."""

    class Mute:
        def __init__(self, handle: asyncio.TimerHandle) -> None:
            self.cancel = handle.cancel

    async def main() -> None:
        rung, loop = asyncio.Queue[str](), asyncio.get_running_loop()
        call_at = loop.call_at
        loop.call_at = lambda *given: Mute(call_at(*given))  # type: ignore[method-assign,assignment]
        alarms = Alarms(rung.put_nowait)
        for name, seconds in (("late", 3.0), ("due", 0.0), ("soon", 1.0)):
            alarms.begin(name, seconds)
        assert [await rung.get() for _ in range(3)] == ["due", "soon", "late"]

    run(main)
