"""The inbox of an event loop: one of those who wait reads for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from celery_stargate import StoreUnavailable
from celery_stargate.calls.gathering import Gathered
from celery_stargate.calls.loop_inbox import LoopInbox, LoopTicket
from celery_stargate.lanes.inbox import InboxEntry
from celery_stargate.lanes.wire import encode_call
from celery_stargate.model.outcome import Outcome
from celery_stargate.model.outcomes import CallOutcomes
from tests.unit.helpers import failure, receipt


class Line:
    """Stand where `LoopOutbox` does: `subscribe` gives what the test says."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[tuple[str, bytes] | Exception] = asyncio.Queue()
        self.handled: list[list[str]] = []
        self.readers = self.most = 0

    async def subscribe(
        self, inbox: str, handled: Sequence[str], timeout: float
    ) -> list[InboxEntry]:
        """Wait for the next word."""
        self.handled.append(list(handled))
        self.readers += 1
        self.most = max(self.most, self.readers)
        try:
            found = await asyncio.wait_for(self.said.get(), timeout)
        except TimeoutError:
            return []
        finally:
            self.readers -= 1
        if isinstance(found, Exception):
            raise found
        return [InboxEntry(f"{len(self.handled)}-0", [found])]

    def say(self, address: str, *outcomes: Outcome) -> None:
        """Let outcomes arrive."""
        self.said.put_nowait((address, encode_call(CallOutcomes("c", False, outcomes))))


def run(test: Callable[[Line, LoopInbox], Awaitable[None]]) -> None:
    """Run a test in an event loop, in which nothing is left."""

    async def main() -> None:
        line = Line()
        inbox = LoopInbox(line)
        await asyncio.wait_for(test(line, inbox), 20)
        assert not inbox._waiting  # noqa: SLF001
        assert len(asyncio.all_tasks()) == 1, "no task runs in the background"
        assert line.most <= 1, "one reads for all"

    asyncio.run(main())


async def outcome_of(inbox: LoopInbox, seconds: float = 10.0) -> tuple[bool, object]:
    """Wait as a call does."""
    ticket = inbox.expect()
    try:
        found = await inbox.wait(ticket, seconds)
        return found, ticket.outcomes and ticket.outcomes.outcomes[0]
    finally:
        inbox.forget(ticket)


def test_each_gets_its_own_in_any_order() -> None:
    """However many wait, whoever reads."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        waits = [asyncio.ensure_future(outcome_of(inbox)) for _ in range(50)]
        await asyncio.sleep(0)
        for number in (*range(1, 50, 2), *range(0, 50, 2)):
            line.say(f"{inbox.name}/{number + 1}", receipt(f"c{number}"))
        assert await asyncio.gather(*waits) == [(True, receipt(f"c{n}")) for n in range(50)]

    run(test)


def test_the_reader_that_is_cancelled_or_late_passes_the_turn_on() -> None:
    """To one that still waits."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        reader, late, other = (
            asyncio.ensure_future(outcome_of(inbox, seconds)) for seconds in (10.0, 0.05, 10.0)
        )
        await asyncio.sleep(0)
        reader.cancel()
        assert await late == (False, None)
        line.say(f"{inbox.name}/3", failure("c"))
        assert await other == (True, failure("c"))
        with pytest.raises(asyncio.CancelledError):
            await reader

    run(test)


def test_what_was_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look deletes what the last one brought; after one that failed it is deleted later."""
    monkeypatch.setattr("celery_stargate.calls.loop_inbox._PAUSE", 0.001)

    async def test(line: Line, inbox: LoopInbox) -> None:
        waits = asyncio.ensure_future(outcome_of(inbox))
        line.say("nobody/1", receipt("x"))
        line.said.put_nowait(StoreUnavailable("the answer was lost"))
        line.said.put_nowait(KeyError("whatever"))
        line.said.put_nowait((f"{inbox.name}/1", b"0garbage"))
        line.say(f"{inbox.name}/1", receipt("c"))
        assert await waits == (True, receipt("c"))
        assert line.handled == [[], ["1-0"], ["1-0"], ["1-0"], ["4-0"]]

    run(test)


def test_many_with_one_ticket() -> None:
    """Repeats count once, and the last one ends the wait."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        gathered = Gathered(["a", "b"])
        ticket = inbox.expect(gathered)
        for context in ("b", "b", "another", "a"):
            line.say(ticket.address, receipt(context))
        assert await inbox.wait(ticket, 10)
        assert not gathered.missing
        inbox.forget(ticket)

    run(test)


def test_the_first_outcome_stays() -> None:
    """A repeat changes nothing."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        ticket = inbox.expect()
        inbox.deliver(ticket.address, CallOutcomes("c", False, (receipt("c"),)))
        inbox.deliver(ticket.address, CallOutcomes("c", False, (failure("c"),)))
        assert await inbox.wait(ticket, 0)
        assert ticket.outcomes is not None
        assert not ticket.outcomes.failed
        inbox.forget(ticket)

    run(test)


def test_what_goes_on_failing_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks that fail, and entries that cannot be read; the outcome comes all the same."""
    monkeypatch.setattr("celery_stargate.calls.loop_inbox._PAUSE", 0.001)

    async def test(line: Line, inbox: LoopInbox) -> None:
        waits = asyncio.ensure_future(outcome_of(inbox))
        for _ in range(3):
            line.said.put_nowait(KeyError("whatever"))
            line.said.put_nowait((f"{inbox.name}/1", b"0garbage"))
        line.say(f"{inbox.name}/1", receipt("c"))
        assert await waits == (True, receipt("c"))

    run(test)
    assert len(caplog.records) == 2


def test_one_that_gives_up_leaves_the_reader_alone() -> None:
    """It woke nobody: another call reads, and goes on."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        reader = asyncio.ensure_future(outcome_of(inbox))
        await asyncio.sleep(0)
        assert await outcome_of(inbox, 0.0) == (False, None)
        line.say(f"{inbox.name}/1", receipt("c"))
        assert await reader == (True, receipt("c"))

    run(test)


async def call(inbox: LoopInbox, tickets: list[LoopTicket], seconds: float = 10.0) -> object:
    """Wait as a call does that is being recorded."""
    ticket = inbox.expect(on_its_way=True)
    tickets.append(ticket)
    try:
        found = await inbox.wait(ticket, seconds)
        return ticket.outcomes.outcomes[0] if ticket.outcomes else found
    finally:
        inbox.forget(ticket)


async def begun(inbox: LoopInbox, *seconds: float) -> tuple[list[LoopTicket], list[Any]]:
    """Calls that are on their way, and their tickets."""
    tickets: list[LoopTicket] = []
    calls = [asyncio.ensure_future(call(inbox, tickets, each)) for each in seconds]
    await asyncio.sleep(0)
    return tickets, calls


def test_a_call_on_its_way_does_not_read() -> None:
    """It reads when it is recorded. Of many that are recorded together one is woken."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        tickets, calls = await begun(inbox, *[10.0] * 50)
        await asyncio.sleep(0)
        assert line.readers == 0
        for number, ticket in enumerate(tickets):
            ticket.recorded(number)
        assert [each.waker.done() for each in tickets if each.waker] == [True, *[False] * 49]
        for number, ticket in enumerate(tickets):
            line.say(ticket.address, receipt(f"c{number}"))
        assert await asyncio.gather(*calls) == [receipt(f"c{n}") for n in range(50)]

    run(test)


def test_an_outcome_that_comes_before_the_answer_to_the_put() -> None:
    """Ends the wait; the answer changes nothing then."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        [early, late], calls = await begun(inbox, 10.0, 10.0)
        late.recorded(2)
        line.say(early.address, receipt("early"))
        assert await calls[0] == receipt("early")
        early.recorded(1)
        early.failed(KeyError("too late"))
        line.say(late.address, receipt("late"))
        assert await calls[1] == receipt("late")

    run(test)


def test_a_call_that_is_not_recorded() -> None:
    """It raises why; the others go on."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        [refused, other], calls = await begun(inbox, 10.0, 10.0)
        wrong = StoreUnavailable("no answer in time")
        refused.failed(wrong)
        with pytest.raises(StoreUnavailable) as caught:
            await calls[0]
        assert caught.value is wrong
        other.recorded(1)
        line.say(other.address, receipt("c"))
        assert await calls[1] == receipt("c")

    run(test)


def test_a_call_waits_until_it_is_recorded() -> None:
    """Longer than its pause is: the put is told to have failed when its own time is over."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        [ticket], [waits] = await begun(inbox, 0.01)
        _, pending = await asyncio.wait([waits], timeout=0.05)
        assert pending
        assert ticket.on_its_way
        ticket.recorded(1)
        assert await waits is False

    run(test)


def test_a_call_whose_pause_is_over_when_it_is_recorded() -> None:
    """It is told at once, also where another one reads: it may have to settle what is overdue."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        [reader, late], calls = await begun(inbox, 10.0, 0.01)
        reader.recorded(1)
        _, pending = await asyncio.wait([calls[1]], timeout=0.05)
        assert pending
        late.recorded(2)
        assert await calls[1] is False
        line.say(reader.address, receipt("c"))
        assert await calls[0] == receipt("c")

    run(test)


def test_what_has_an_outcome_is_recorded() -> None:
    """So its trace and the observers are told then, and once; the put's answer may be lost."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        [early, late], calls = await begun(inbox, 10.0, 10.0)
        told: list[object] = []
        early.on_told = told.append
        late.recorded(2)
        line.say(early.address, receipt("early"))
        assert await calls[0] == receipt("early")
        early.failed(StoreUnavailable("no answer in time"))
        early.recorded(1)
        assert told == [None]
        line.say(late.address, receipt("late"))
        await calls[1]

    run(test)


@pytest.mark.parametrize("way", ["recorded", "failed", "outcome"])
def test_what_telling_raises_is_its_own_calls(way: str) -> None:
    """Whoever tells: the one that sends for all, or reads for all."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        [wrong, other], calls = await begun(inbox, 10.0, 10.0)

        def fail(error: BaseException | None) -> None:
            raise KeyError("an observer's")

        wrong.on_told = fail
        other.recorded(1)
        if way == "recorded":
            wrong.recorded(2)
        elif way == "failed":
            wrong.failed(StoreUnavailable("no answer in time"))
        else:
            line.say(wrong.address, receipt("wrong"))
        with pytest.raises(KeyError, match="an observer's"):
            await calls[0]
        line.say(other.address, receipt("c"))
        assert await calls[1] == receipt("c")

    run(test)


@pytest.mark.parametrize("leaves", ["cancelled", "late", "told"])
def test_the_one_that_is_called_to_read_may_leave(leaves: str) -> None:
    """Before it reads: then another is called."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        seconds = 0.0 if leaves == "late" else 10.0
        [first, second], calls = await begun(inbox, seconds, 10.0)
        first.recorded(1)
        second.recorded(2)
        if leaves == "cancelled":
            calls[0].cancel()
        elif leaves == "told":
            inbox.deliver(first.address, CallOutcomes("c", False, (receipt("first"),)))
        line.say(second.address, receipt("second"))
        assert await calls[1] == receipt("second")
        await asyncio.wait([calls[0]])

    run(test)


def test_a_cancelled_call_is_not_to_be_recorded() -> None:
    """Nobody waits for its put any more."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        [ticket], [waits] = await begun(inbox, 10.0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert not ticket.on_its_way

    run(test)


def test_a_soft_time_limit_ends_the_call_that_reads() -> None:
    """Another one that waits reads on."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        limited, other = (asyncio.ensure_future(outcome_of(inbox)) for _ in range(2))
        line.said.put_nowait(SoftTimeLimitExceeded())
        with pytest.raises(SoftTimeLimitExceeded):
            await limited
        line.say(f"{inbox.name}/2", receipt("c"))
        assert await other == (True, receipt("c"))

    run(test)


def test_an_entry_that_was_not_opened_whole_is_read_again() -> None:
    """A signal's handler raises between two of the calls that it tells."""

    async def test(line: Line, inbox: LoopInbox) -> None:
        limited, other = (asyncio.ensure_future(outcome_of(inbox)) for _ in range(2))
        plain = inbox.deliver

        def deliver(address: str, call: CallOutcomes) -> None:
            vars(inbox)["deliver"] = plain
            raise SoftTimeLimitExceeded

        vars(inbox)["deliver"] = deliver
        line.say(f"{inbox.name}/1", receipt("c"))
        with pytest.raises(SoftTimeLimitExceeded):
            await limited
        line.say(f"{inbox.name}/2", receipt("d"))
        assert await other == (True, receipt("d"))
        assert line.handled == [[], []]

    run(test)
