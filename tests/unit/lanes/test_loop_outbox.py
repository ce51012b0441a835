"""The outbox of an event loop: a step that fails tells those who wait for it."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate import StoreUnavailable
from celery_stargate.lanes import loop_outbox
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.loop_outbox import LoopOutbox, _Pipe, _within
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.scripts import Callers
from celery_stargate.lanes.waiter import FirstNumber
from tests.simulation.loop import VirtualLoop

LANE = Lane("persistent://public/default/t")


def pipe_to(scripts: Any, retries: int | None = 2) -> _Pipe:
    """A pipe whose lanes are announced."""
    return _Pipe(scripts, Callers(), "prefix", retries, lambda _: None)


async def put(pipe: _Pipe, asked: AskedPut, seconds: float) -> int:
    """Put, and wait for the first number."""
    number = FirstNumber()
    pipe.put(asked, number, seconds)
    return await number.wait()


class Scripts:
    """Stands where the scripts of a loop do: each run answers with nonsense."""

    async def run(self, name: str, keys: Any, arguments: Any) -> Any:
        """Answer."""
        return [b"nonsense", 1]

    async def run_many(self, name: str, runs: Any) -> Any:
        """Answer each."""
        return [await self.run(name, *each) for each in runs]


@pytest.mark.parametrize("fresh", [False, True])
def test_an_answer_that_cannot_be_read(fresh: bool) -> None:
    """Is an error of the calls, and cancels none; the next call is sent as before."""

    async def main() -> list[Any]:
        pipe = pipe_to(Scripts())
        asked = [
            AskedPut(LANE, Record(each), [(each, b"{}")], timeout=5.0, fresh=fresh)
            for each in ("a", "b")
        ]
        found = await asyncio.gather(
            *(put(pipe, each, 5.0) for each in asked), return_exceptions=True
        )
        return [*found, *await asyncio.gather(put(pipe, asked[0], 5.0), return_exceptions=True)]

    found = asyncio.run(asyncio.wait_for(main(), 10))
    assert [isinstance(each, ValueError) for each in found] == [True] * 3, found


class Unsteady:
    """Stands where the scripts of a loop do: it fails so often, then it answers.

    Arguments:
        errors: what the first runs raise.
    """

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[Any] = []
        self.thrice = asyncio.Event()

    async def run(self, name: str, keys: Any, arguments: Any) -> Any:
        """Fail, or answer that the context is new and has number 1."""
        self.asked.append(arguments)
        if len(self.asked) == 3:
            self.thrice.set()
        if self.errors:
            raise self.errors.pop(0)
        return [b"new", 1]


def sending_tasks() -> list[asyncio.Task[Any]]:
    """The tasks of this loop that send."""
    return [each for each in asyncio.all_tasks() if "_Pipe._send" in repr(each.get_coro())]


def put_through(scripts: Unsteady, retries: int | None) -> Any:
    """Put one context; what the caller gets, or the error."""

    async def main() -> Any:
        pipe = pipe_to(scripts, retries)
        asked = AskedPut(LANE, Record("a"), [("", b"{}")], timeout=5.0)
        (found,) = await asyncio.gather(put(pipe, asked, 20.0), return_exceptions=True)
        return found

    return asyncio.run(asyncio.wait_for(main(), 20))


@pytest.fixture
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the waits before each try be short."""
    monkeypatch.setattr(loop_outbox, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(loop_outbox, "_LONGEST_WAIT", 0.001)


@pytest.mark.usefixtures("_no_waits")
def test_a_connection_that_breaks() -> None:
    """Is tried again with the same token, so that what was recorded is not recorded twice."""
    scripts = Unsteady(LostConnection("reset"), ConnectionResetError())
    assert put_through(scripts, 2) == 1
    first, *repeats = scripts.asked
    assert repeats == [first, first]


@pytest.mark.usefixtures("_no_waits")
def test_a_connection_that_breaks_again_and_again() -> None:
    """Is an error in the end where there is one server."""
    broken = LostConnection("reset")
    found = put_through(Unsteady(broken, broken, broken), 2)
    assert isinstance(found, StoreUnavailable)
    assert found.__cause__ is broken


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize(
    ("error", "retries"), [(NoAnswer("late"), 2), (LostConnection("no master"), None)]
)
def test_what_may_end_is_waited_for(error: Exception, retries: int | None) -> None:
    """An answer that comes late, and a master that sentinels have yet to choose."""
    assert put_through(Unsteady(*[error] * 20), retries) == 1


@pytest.mark.usefixtures("_no_waits")
def test_nobody_waits_for_it_any_more() -> None:
    """Then it is not tried again; the next call is."""

    async def main() -> tuple[int, Any]:
        scripts = Unsteady(*[LostConnection("no master")] * 1_000_000)
        pipe = pipe_to(scripts, None)
        asked = AskedPut(LANE, Record("a"), [("", b"{}")], timeout=5.0)
        call = asyncio.ensure_future(put(pipe, asked, 20.0))
        await scripts.thrice.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        if running := sending_tasks():
            await asyncio.wait(running)
        tries = len(scripts.asked)
        scripts.errors = []
        reply = await put(pipe, asked, 20.0)
        return len(scripts.asked) - tries, reply

    assert asyncio.run(asyncio.wait_for(main(), 20)) == (1, 1)


def test_a_loop_that_ends() -> None:
    """It cancels the round trip, and with it those who wait, so that none waits for ever."""

    class Away:
        async def run(self, *given: Any) -> Any:
            await asyncio.Event().wait()

    async def main() -> list[Any]:
        pipe = pipe_to(Away())
        asked = AskedPut(LANE, Record("a"), [("", b"{}")], timeout=5.0)
        calls = [asyncio.ensure_future(put(pipe, asked, 20.0))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        calls.append(asyncio.ensure_future(put(pipe, asked, 20.0)))
        await asyncio.sleep(0)
        (sending,) = sending_tasks()
        sending.cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(asyncio.wait_for(main(), 10))
    assert [type(each) for each in found] == [asyncio.CancelledError] * 2


@pytest.mark.parametrize(("seconds", "theirs"), [(5.0, True), (0.0, False)])
def test_whose_time_was_over(seconds: float, theirs: bool) -> None:
    """A caller's own timeout passes as it is; only the bound of the call is no answer of Redis."""

    async def main() -> None:
        async with _within(seconds):
            if theirs:
                raise TimeoutError
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError if theirs else NoAnswer):
        asyncio.run(asyncio.wait_for(main(), 10))


def test_the_reason_of_an_earlier_try_is_told() -> None:
    """A caller's time ends during a try without an answer; the one before it said why."""

    class Silent(Unsteady):
        async def run(self, name: str, keys: Any, arguments: Any) -> Any:
            if self.errors:
                raise self.errors.pop(0)
            return await asyncio.Event().wait()

    async def main() -> Any:
        pipe = pipe_to(Silent(LostConnection("No master found"), NoAnswer("no answer")), None)
        asked = AskedPut(LANE, Record("a"), [("a", b"{}")], timeout=5.0, fresh=True)
        with pytest.raises(StoreUnavailable, match="No master found"):
            await put(pipe, asked, 1.0)
        for each in sending_tasks():
            each.cancel()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_each_is_told_when_its_own_time_is_over() -> None:
    """One timer serves all; when all are answered there is none."""

    class Held(Unsteady):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = asyncio.Event()

        async def run(self, name: str, keys: Any, arguments: Any) -> Any:
            await self.go_on.wait()
            return await super().run(name, keys, arguments)

    loop = VirtualLoop()
    timers: list[Any] = []
    call_at = loop.call_at

    def noted(*given: Any, **options: Any) -> Any:
        timers.append(call_at(*given, **options))
        return timers[-1]

    vars(loop)["call_at"] = noted

    async def main() -> None:
        scripts = Held()
        pipe = pipe_to(scripts)

        async def timed(seconds: float) -> tuple[float, Any]:
            asked = AskedPut(LANE, Record(f"c{seconds}"), [("", b"{}")], timeout=99.0, fresh=True)
            [found] = await asyncio.gather(put(pipe, asked, seconds), return_exceptions=True)
            return loop.time(), type(found)

        calls = [loop.create_task(timed(each)) for each in (3.0, 2.0, 60.0)]
        await asyncio.wait(calls[:2])
        # One for the first put, and one for each that ends before it, or after one that rang.
        assert len(timers) == 4
        scripts.go_on.set()
        await asyncio.wait(calls)
        late = StoreUnavailable
        assert [each.result() for each in calls] == [(3.0, late), (2.0, late), (3.0, int)]
        await asyncio.sleep(0)
        assert timers[-1].cancelled()

    task = loop.create_task(main())
    assert loop.advance(task.done, 1e6)
    loop.close()
    task.result()


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_a_lane_that_could_not_be_announced(
    monkeypatch: pytest.MonkeyPatch, together: bool, starts: bool
) -> None:
    """Its call is recorded, also where no thread can begin the list of lanes anew."""

    class Unlisted(Unsteady):
        async def run(self, name: str, keys: Any, arguments: Any) -> Any:
            return [b"new", 1, b"unlisted"]

    forgotten: list[Lane] = []
    healed = threading.Event()
    registry: Any = SimpleNamespace(
        is_announced=lambda lane: True,
        forget=forgotten.append,
        heal=lambda lane, options: healed.set(),
    )
    connections: Any = SimpleNamespace(asyncio=lambda: None, waits_for_master=False)

    def cannot(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> int:
        outbox = LoopOutbox(connections, "prefix", registry, Callers())
        vars(outbox)["_scripts"] = Unlisted()
        asked = AskedPut(LANE, Record("a"), [("", b"{}")], timeout=5.0, fresh=together)
        if not starts:
            monkeypatch.setattr(threading.Thread, "start", cannot)
        number = FirstNumber()
        await outbox.begin(asked, number, 5.0)
        return await number.wait()

    assert asyncio.run(asyncio.wait_for(main(), 10)) == 1
    monkeypatch.undo()
    assert forgotten == [LANE]
    assert healed.wait(10) if starts else not healed.is_set()
