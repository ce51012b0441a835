"""Read a lane's log for a session: the messages in their order, as far as they may be sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from celery_stargate.delivery.effects_queue import EffectsQueue
from celery_stargate.delivery.log_reader import LogReader
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.delivery.settler import Settler
from celery_stargate.delivery.states import Event, State
from celery_stargate.delivery.watcher import Found
from celery_stargate.lanes.progress import Progress
from celery_stargate.model.entry import Entry
from celery_stargate.model.revocation import revoked_failure
from celery_stargate.pulsar.sequence import leading_run

__all__ = ["LaneSource"]

#: From how many bytes of a frame on, on average, messages are read as large ones.
_LARGE = 32 << 10


class LaneSource:
    """Gives one session the messages of a lane's log.

    Arguments:
        lane: to read.
        settler: gets the failures of revoked messages.
        effects: while they cannot keep up, nothing is read.
        log: reads the lane's log.
        progress: how far the lane's messages had come before this session.
        first: the number of the first message to send.
        last: the number of the last one; None for no bound.
    """

    def __init__(
        self,
        lane: OwnedLane,
        settler: Settler,
        effects: EffectsQueue,
        log: LogReader,
        progress: Progress,
        first: int,
        last: int | None = None,
    ) -> None:
        self._lane = lane
        self._settler = settler
        self._effects = effects
        self._log = log
        self.progress = progress
        self.first = first
        #: The highest number that may have been sent, by this session or before it.
        self.sent = progress.sent
        self._after = first - 1
        self._last = last
        #: Whether the log may hold more than was read.
        self._more = True
        #: The next message, if its put marked it.
        self._marked: Entry | None = None
        #: How many bytes the frames of the last read had, on average.
        self._usual = 1
        #: Whether Pulsar is to know the lane's numbers: then the session ends at a gap.
        self._gapless = lane.options.delivery == "effectively_once"

    @property
    def after(self) -> int:
        """The number of the last message that was given, or passed over."""
        return self._after

    async def next(self, count: int, size: int) -> Sequence[Entry]:
        """Return the next messages; none when the session is to end.

        Arguments:
            count: how many at most.
            size: bytes of frames at most; one message always.

        Raises:
            Fenced: another owner has the lane.
        """
        machine, changes = self._lane.machine, self._lane.changes
        while True:
            # All that was given before is in the window now.
            self._report_sent()
            if machine.state is not State.READY:
                # The session stays for the receipts, until the owner stops.
                await _until_cancelled()
            await changes.until(lambda: self._effects.keeps_up)
            if machine.state is not State.READY:
                continue
            if self._last is not None:
                if self._after >= self._last:
                    return ()
                count = min(count, self._last - self._after)
            if not self._more:
                found = await self._wait_for_put()
                if found is None:
                    return ()
                if self._effects.keeps_up:
                    self._marked = self._log.take(found)
                self._more = True
                continue
            machine.apply(Event.READ)
            entries = await self._read(count, size)
            if not entries:
                self._report_sent()
                if self._log.newer is not None:
                    # What is in flight has its receipts first.
                    return ()
                if self._gapless and await self._gap_after(self._after):
                    return ()
                continue
            wanted = await self._wanted(entries)
            if self._gapless:
                # Behind a gap Pulsar's numbers would not be the lane's: that is for the next
                # session.
                wanted = leading_run(wanted, self._after)
                if not wanted:
                    self._report_sent()
                    return ()
                self._after = wanted[-1].number
            else:
                self._after = entries[-1].number
            if wanted:
                return wanted

    def _report_sent(self) -> None:
        """Report that nothing is on its way from the log to the window any more."""
        if self._lane.machine.state in (State.READING, State.LAST_BATCH):
            self._lane.machine.apply(Event.BATCH_SENT)
            self._lane.changes.notify()

    async def _read(self, count: int, size: int) -> list[Entry]:
        if self._marked is not None:
            marked, self._marked = self._marked, None
            # What is behind it ends the next wait at once.
            self._more = False
            self.sent = max(self.sent, marked.number)
            return [marked]
        size = min(size, self._log.bytes_at_most)
        # By the size of the last ones: what does not fit is looked at in vain.
        count = min(count, max(1, size // self._usual))
        entries: list[Entry] = []
        if self._usual >= _LARGE and not self._gapless:
            count = min(count, self._log.large_at_most)
            entries = await self._log.read_large(self._after, count, size)
        if not entries:
            entries = await self._log.read(
                self._after, count, size, mark=True, gapless=self._gapless
            )
        held = sum(len(each.frame) for each in entries)
        # If there is room left, nothing is behind them. What is put meanwhile ends the wait for
        # a put at once.
        self._more = self._log.newer is not None or len(entries) == count or 2 * held > size
        if entries:
            self._usual = max(1, held // len(entries))
            self.sent = max(self.sent, entries[-1].number)
        return entries

    async def _wanted(self, entries: list[Entry]) -> list[Entry]:
        """Return the messages that were not revoked."""
        wanted = [each for each in entries if not self._revoked(each)]
        if len(wanted) < len(entries):
            # Settle the revoked ones before a later message is sent: the next owner would not know
            # that they were revoked, and send them behind it.
            await self._settler.until_at_most(0)
        return wanted

    async def _wait_for_put(self) -> Found | None:
        """Wait until the log holds another message; return None after the idle timeout."""
        machine, settings = self._lane.machine, self._lane.shared.settings
        machine.apply(Event.END_OF_LOG)
        # With numbers a put must not mark: a Redis that came back without its tail would mark a
        # message whose number Pulsar has, and the next owner would send it under that name.
        mark = not self._gapless
        found = await self._log.wait(self._after, settings.idle_timeout, to_be_marked=mark)
        if found is None:
            # The connection is closed now. A put meanwhile must not mark a message in vain.
            await self._lane.retry.until_available(self._lane.store.expect_nothing)
        else:
            machine.apply(Event.PUT)
        return found

    async def _gap_after(self, number: int) -> bool:
        """Whether the next message's number does not follow this one."""
        found = await self._log.read(number, 1, 1, mark=False)
        return bool(found) and found[0].number != number + 1

    def _revoked(self, entry: Entry) -> bool:
        """Fail a message whose task was revoked, unless it may have been sent already."""
        revoked = self._lane.shared.services.revoked
        if entry.number <= self.progress.sent or not revoked(entry.context):
            return False
        if entry.number not in self._settler:
            failure = revoked_failure(entry.context, self._lane.store.lane.topic)
            self._settler.give(entry, failure)
        return True


async def _until_cancelled() -> None:
    await asyncio.get_running_loop().create_future()
