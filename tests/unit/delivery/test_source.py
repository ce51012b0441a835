"""``delivery/source.py``: what a session is given of a lane's log, and the states meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from celery_stargate.delivery.source import LaneSource
from celery_stargate.delivery.states import Event, State
from celery_stargate.delivery.watcher import Found
from celery_stargate.lanes.leased import Unreadable
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Receipt
from tests.unit.delivery.rig import PartsRig, entry, receipt, settled, until


class Rig(PartsRig):
    """The source of a session that was just opened."""

    def __init__(self, *numbers: int, sent: int = 0, first: int = 1, **options: Any) -> None:
        super().__init__(*numbers, **options)
        self.go_to(Event.FOUND, Event.OPENED)
        self.source = LaneSource(
            self.lane, self.settler, self.queue, self.log, self.progress(sent), first
        )

    async def next(self, count: int = 100) -> list[int]:
        """Return the numbers of the next messages."""
        entries = await asyncio.wait_for(self.source.next(count, 1 << 20), 5)
        return [each.number for each in entries]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it, in bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


def test_the_log_in_order_and_then_what_is_put() -> None:
    """READING while messages are on their way; CAUGHT_UP at the log's end."""

    async def main() -> None:
        rig = Rig(1, 2, 3)
        assert await rig.next(2) == [1, 2]
        assert rig.state is State.READING
        assert await rig.next(2) == [3]
        waiting = asyncio.ensure_future(rig.next())
        assert await rig.watcher.waits.get() == 3
        caught_up = rig.state
        rig.store.log.append(entry(4))
        rig.watcher.answers.put_nowait(Found())
        assert await waiting == [4]
        assert [caught_up, rig.state] == [State.CAUGHT_UP, State.READING]
        assert rig.source.sent == 4
        assert all(mark for _, mark in rig.store.reads)

    run(main)


def test_a_message_that_its_put_marked_is_not_read() -> None:
    """The owner says which one it waits for; what is behind it is read as ever."""

    async def main() -> None:
        rig = Rig(1)
        assert await rig.next() == [1]
        assert rig.store.expected == 0
        waiting = asyncio.ensure_future(rig.next())
        assert await rig.watcher.waits.get() == 1
        assert rig.store.expected == 2
        reads = len(rig.store.reads)
        rig.store.marked[b"2-0"] = entry(2)
        rig.watcher.answers.put_nowait(Found((b"2-0", {})))
        assert await waiting == [2]
        assert (rig.store.expected, rig.source.sent, rig.source.after) == (0, 2, 2)
        waiting = asyncio.ensure_future(rig.next())
        assert await rig.watcher.waits.get() == 2
        assert len(rig.store.reads) == reads
        rig.store.log.append(entry(3))
        rig.watcher.answers.put_nowait(Found((b"3-0", {})))
        assert await waiting == [3]
        assert rig.store.reads[reads:] == [(2, True)]

    run(main)


def test_no_put_marks_where_numbers_count() -> None:
    """Redis may have forgotten that it gave the number before: only a read finds that."""

    async def main() -> None:
        rig = Rig(1, delivery="effectively_once")
        assert await rig.next() == [1]
        waiting = asyncio.ensure_future(rig.next())
        assert await rig.watcher.waits.get() == 1
        assert rig.store.expected == 0
        waiting.cancel()

    run(main)


def test_a_message_that_was_marked_and_revoked() -> None:
    """It is failed, as if it had been read."""

    async def main() -> None:
        rig = Rig()
        rig.revoked.add("c1")
        waiting = asyncio.ensure_future(rig.next())
        await rig.watcher.waits.get()
        rig.store.marked[b"1-0"] = entry(1)
        rig.watcher.answers.put_nowait(Found((b"1-0", {})))
        await until(lambda: 1 in rig.settler)
        waiting.cancel()

    run(main)


def test_a_message_that_is_marked_while_effects_are_slow() -> None:
    """It is read when they have caught up: its deadline may have passed by then."""

    async def main() -> None:
        rig = Rig(max_in_flight=1)
        waiting = asyncio.ensure_future(rig.next())
        await rig.watcher.waits.get()
        rig.queue.add(settled(number) for number in range(100, 103))
        rig.store.marked[b"1-0"] = entry(1)
        rig.watcher.answers.put_nowait(Found((b"1-0", {})))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert b"1-0" in rig.store.marked
        # The deadline ends it.
        effects = asyncio.ensure_future(rig.queue.run())
        assert await rig.watcher.waits.get() == 0
        effects.cancel()
        waiting.cancel()

    run(main)


def test_a_message_that_is_marked_for_a_lane_that_is_given_back() -> None:
    """It is the next owner's."""

    async def main() -> None:
        rig = Rig(1)
        assert await rig.next() == [1]
        waiting = asyncio.ensure_future(rig.next())
        await rig.watcher.waits.get()
        rig.go_to(Event.DRAIN)
        rig.store.marked[b"2-0"] = entry(2)
        rig.watcher.answers.put_nowait(Found((b"2-0", {})))
        await nothing_more(rig, waiting)
        assert rig.source.after == 1

    run(main)


def test_large_messages_are_read_a_few_at_a_time() -> None:
    """A script must not hold Redis for long, nor look at what it has no room for."""

    async def main() -> None:
        rig = Rig()
        large = b"x" * (1 << 20)
        rig.store.log = [Entry(number, f"c{number}", large) for number in range(1, 10)]
        rig.store.log += [entry(10), entry(11)]
        found = []
        for _ in range(3):
            entries = await rig.source.next(100, 32 << 20)
            found.append([each.number for each in entries])
        assert found == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]
        assert rig.store.asked == [(100, 4 << 20), (4, 4 << 20), (4, 4 << 20)]
        # They are known to be large after the first ones.
        assert rig.store.looks == [(4, 4), (8, 4)]

    run(main)


def test_messages_that_are_probably_large() -> None:
    """A read takes a few of them: the next ones may be much larger. A gap needs a script."""

    async def read(size: int, **options: Any) -> tuple[list[int], list[int]]:
        rig = Rig(**options)
        frame = b"x" * size
        rig.store.log = [Entry(number, f"c{number}", frame) for number in range(1, 301)]
        found = [len(await rig.source.next(100, 32 << 20)) for _ in range(3)]
        return found, [after for after, _ in rig.store.looks]

    async def main() -> None:
        assert await read((32 << 10) - 1) == ([100, 100, 100], [])
        assert await read(32 << 10) == ([100, 32, 32], [100, 132])
        exactly = await read(32 << 10, delivery="effectively_once")
        assert exactly == ([100, 100, 100], [])

    run(main)


def test_the_idle_timeout_ends_the_session() -> None:
    """The lane then has nothing on its way."""

    async def main() -> None:
        rig = Rig(1)
        assert await rig.next() == [1]
        rig.watcher.answers.put_nowait(None)
        assert await rig.next() == []
        # To close the connection takes time, and nobody sends what is put meanwhile.
        assert rig.store.expected_nothing == 1
        assert rig.go_to(Event.SESSION_OVER) is State.IDLE

    run(main)


def test_a_gap_ends_a_session_with_numbers() -> None:
    """What stands behind it is for the next one."""

    async def main() -> None:
        rig = Rig(1, 2, 4, delivery="effectively_once")
        assert await rig.next(2) == [1, 2]
        assert await rig.next(2) == []
        assert rig.go_to(Event.SESSION_OVER) is State.IDLE

    run(main)


def test_a_gap_is_nothing_without_numbers() -> None:
    """All messages are given."""

    async def main() -> None:
        assert await Rig(1, 2, 4).next() == [1, 2, 4]

    run(main)


def test_a_newer_record_ends_the_session() -> None:
    """When what is before it was given; nothing behind it is."""

    async def main() -> None:
        rig = Rig(1, 2, 3)
        rig.store.reasons = {2: Unreadable.NEWER}
        assert await rig.next() == [1]
        assert await rig.next() == []
        assert rig.go_to(Event.SESSION_OVER) is State.IDLE

    run(main)


def test_a_revoked_message_is_failed_before_later_ones_are_sent() -> None:
    """The next owner must not send it behind them."""

    async def main() -> None:
        rig = Rig(1, 2, 3)
        rig.revoked.add("c2")
        waiting = asyncio.ensure_future(rig.next())
        await until(lambda: 2 in rig.settler)
        assert not waiting.done()
        settling = asyncio.ensure_future(rig.settler.run())
        assert await waiting == [1, 3]
        settling.cancel()
        ((each, outcome),) = rig.store.settled
        context = each.context
        assert context == "c2"
        assert isinstance(outcome, Failure)
        assert (outcome.code, outcome.status) == ("revoked", "refused")

    run(main)


def test_a_revoked_message_that_may_have_been_sent() -> None:
    """Is sent again: it may be stored."""

    async def main() -> None:
        rig = Rig(1, 2, sent=1)
        rig.revoked |= {"c1"}
        assert await rig.next() == [1, 2]

    run(main)


def test_slow_effects_hold_back_the_log() -> None:
    """The backlog stays in Redis, and not in this process."""

    async def main() -> None:
        rig = Rig(1, max_in_flight=1)
        rig.queue.add(settled(number) for number in range(100, 103))
        waiting = asyncio.ensure_future(rig.next())
        for _ in range(20):
            await asyncio.sleep(0)
        assert rig.store.reads == []
        effects = asyncio.ensure_future(rig.queue.run())
        assert await waiting == [1]
        effects.cancel()

    run(main)


async def nothing_more(rig: Rig, waiting: asyncio.Task[list[int]]) -> None:
    """Assert that the source gives nothing, and reads nothing, until it is cancelled."""
    reads = len(rig.store.reads)
    await until(lambda: rig.state is State.DRAINING)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert len(rig.store.reads) == reads
    waiting.cancel()


def test_given_back_before_anything_was_read() -> None:
    """The session only stays for the receipts."""

    async def main() -> None:
        rig = Rig(1)
        assert rig.go_to(Event.DRAIN) is State.DRAINING
        await nothing_more(rig, asyncio.ensure_future(rig.next()))

    run(main)


def test_given_back_while_messages_are_on_their_way() -> None:
    """They are sent first: only then the source is asked again."""

    async def main() -> None:
        rig = Rig(1, 2)
        assert await rig.next(1) == [1]
        assert rig.go_to(Event.DRAIN) is State.LAST_BATCH
        await nothing_more(rig, asyncio.ensure_future(rig.next(1)))

    run(main)


def test_given_back_while_it_waits_for_a_put() -> None:
    """What is put then is the next owner's."""

    async def main() -> None:
        rig = Rig(1)
        assert await rig.next() == [1]
        waiting = asyncio.ensure_future(rig.next())
        await rig.watcher.waits.get()
        assert rig.go_to(Event.DRAIN) is State.DRAINING
        rig.watcher.answers.put_nowait(Found())
        await nothing_more(rig, waiting)

    run(main)


def test_given_back_while_effects_are_slow() -> None:
    """When they are done, nothing is read."""

    async def main() -> None:
        rig = Rig(1, max_in_flight=1)
        rig.queue.add(settled(number) for number in range(100, 103))
        waiting = asyncio.ensure_future(rig.next())
        await asyncio.sleep(0)
        assert rig.go_to(Event.DRAIN) is State.DRAINING
        effects = asyncio.ensure_future(rig.queue.run())
        await until(lambda: not len(rig.queue))
        effects.cancel()
        await nothing_more(rig, waiting)

    run(main)


def test_a_batch_of_which_all_are_revoked() -> None:
    """Each has its failure, once, and the next batch is read at once."""

    async def main() -> None:
        rig = Rig(1, 2, 3)
        rig.revoked |= {"c1", "c2"}
        rig.settler.give(entry(1), receipt(1))
        waiting = asyncio.ensure_future(rig.next(2))
        await until(lambda: 2 in rig.settler)
        settling = asyncio.ensure_future(rig.settler.run())
        assert await waiting == [3]
        settling.cancel()
        found = [(each.number, type(outcome)) for each, outcome in rig.store.settled]
        assert found == [(1, Receipt), (2, Failure)]

    run(main)


def test_a_lane_that_is_given_back_while_the_effects_catch_up() -> None:
    """Nothing more is read: the session waits for its receipts."""

    async def main() -> None:
        rig = Rig(1, 2, max_in_flight=1)
        rig.queue.add([settled(number) for number in (5, 6, 7)])
        waiting = asyncio.ensure_future(rig.source.next(10, 1 << 20))
        await asyncio.sleep(0)
        assert not rig.store.reads
        rig.go_to(Event.DRAIN)
        effects = asyncio.ensure_future(rig.queue.run())
        await until(lambda: not len(rig.queue))
        effects.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not rig.store.reads
        assert not waiting.done()
        waiting.cancel()

    run(main)
