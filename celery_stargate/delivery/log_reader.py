"""Read a lane's log: what may be sent is returned, what cannot be sent is set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from redis.exceptions import RedisError

from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.delivery.watcher import Found
from celery_stargate.lanes.connections import UNAVAILABLE
from celery_stargate.lanes.leased import Unreadable
from celery_stargate.model.entry import Entry
from celery_stargate.support.adaptive_limit import AdaptiveLimit
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["LogReader", "NewerRecord"]

logger = logger_of(__name__)

#: How many bytes of frames one script reads at most, beside one message: it must not hold Redis for
#: long.
_READ_BYTES = 4 << 20
#: How many large messages one read takes at most: the next ones may be much larger.
_LARGE_COUNT = 32
#: How many entries one script sets aside at most: a script must not hold Redis for long.
_BATCH = 200


class NewerRecord(Exception):
    """The next message was recorded by a newer version of the package: leave the lane to it."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"message {number} was recorded by a newer version of celery_stargate, and waits for "
            "a worker of that version"
        )


class LogReader:
    """Reads the log of one lane for its sender and its sources.

    Arguments:
        lane: whose log it is.
    """

    def __init__(self, lane: OwnedLane) -> None:
        self._lane = lane
        self._log_now = Seldom(monotonic=lane.shared.monotonic)
        self._log_slow = Seldom(monotonic=lane.shared.monotonic)
        # A read whose answer takes too long, or more than Redis buffers for a client, would fail
        # each time.
        self._bytes = AdaptiveLimit(_READ_BYTES)
        self._large = AdaptiveLimit(_LARGE_COUNT)
        #: Whether the last wait found something, and nothing could be read since.
        self._in_vain = False
        self._backoff = Backoff(0.05, 5.0, uniform=lane.shared.rng.uniform)
        #: The message that the last read ended at because only a newer version can send it.
        self.newer: NewerRecord | None = None

    @property
    def bytes_at_most(self) -> int:
        """How many bytes of frames the next read gives at most, beside one message."""
        return self._bytes.now

    @property
    def large_at_most(self) -> int:
        """How many messages the next :meth:`read_large` gives at most."""
        return self._large.now

    async def read_large(self, after: int, count: int, size: int) -> list[Entry]:
        """Read messages without Lua, which hashes each byte of what it reads.

        It takes two round trips.

        Arguments:
            after, count, size: as in :meth:`LeasedLane.look`.

        Returns:
            As :meth:`LeasedLane.note`; none if they need :meth:`read`.
        """
        entries = await self._lane.retry.until_available(self._read_large, after, count, size)
        if entries:
            self.newer = None
            self._went_well()
        return entries

    async def read(
        self, after: int, count: int, size: int, *, mark: bool, gapless: bool = False
    ) -> list[Entry]:
        """Read messages as :meth:`LeasedLane.read` does, and set aside what cannot be sent."""
        store, retry = self._lane.store, self._lane.retry
        while True:
            entries = await retry.until_available(
                self._read, after, count, size, mark=mark, gapless=gapless
            )
            self.newer = None
            if not store.unreadable:
                break
            moved = await self._set_aside(store.unreadable)
            if entries or gapless or self.newer is not None or not moved:
                break
        if entries:
            self._went_well()
        return entries

    async def wait(self, after: int, timeout: float, *, to_be_marked: bool = False) -> Found | None:
        """Wait until the log holds something after a number.

        If the last wait found something that could not be read, pause first: the next one would
        find it, too, and the lane would spin.

        Arguments:
            timeout: seconds to wait at most.
            to_be_marked: let the put of the next message mark it, so that :meth:`take` takes it.

        Returns:
            What it holds; None after ``timeout``.
        """
        if self._in_vain:
            await asyncio.sleep(self._backoff.next())
        store = self._lane.store
        store.expected = after + 1 if to_be_marked else 0
        try:
            found = await self._lane.shared.watcher.wait(store.log_key, after, timeout)
        finally:
            store.expected = 0
        self._in_vain = found is not None
        return found

    def take(self, found: Found) -> Entry | None:
        """Return the message that a wait brought, if its put marked it; None for one to be read."""
        if found.entry is None:
            return None
        entry = self._lane.store.take(found.entry)
        if entry is not None:
            self._went_well()
        return entry

    async def _read_large(self, after: int, count: int, size: int) -> list[Entry]:
        store = self._lane.store
        try:
            found = await store.look(after, min(count, self._large.now), size)
        except (RedisError, OSError) as error:
            self._large.failed()
            if self._log_slow():
                logger.warning(
                    "large messages could not be read at once; a script reads fewer of them: %s",
                    error,
                    lane=self._lane.name,
                )
            return []
        self._large.succeeded()
        return await store.note(found) if found else []

    async def _read(
        self, after: int, count: int, size: int, *, mark: bool, gapless: bool
    ) -> list[Entry]:
        size = min(size, self._bytes.now)
        try:
            entries = await self._lane.store.read(after, count, size, mark=mark, gapless=gapless)
        except UNAVAILABLE:
            self._bytes.failed()
            raise
        self._bytes.succeeded()
        return entries

    def _went_well(self) -> None:
        self._in_vain = False
        self._backoff.reset()

    async def _set_aside(self, unreadable: list[tuple[int, str]]) -> int:
        """Set entries aside but one that waits for a newer version; return how many were."""
        store, retry, counters = self._lane.store, self._lane.retry, self._lane.counters
        number, reason = unreadable[-1]
        if reason == Unreadable.NEWER:
            self.newer = NewerRecord(number)
            unreadable = unreadable[:-1]
        moved = 0
        for begin in range(0, len(unreadable), _BATCH):
            some = unreadable[begin : begin + _BATCH]
            moved += await retry.until_available(store.set_aside, some)
        counters.set_aside += moved
        if moved and self._log_now():
            number, reason = unreadable[0]
            logger.error(
                "%d entries of the log cannot be sent and were set aside; the latest is number "
                "%d: %s",
                counters.set_aside,
                number,
                _MEANING.get(reason, reason),
                lane=self._lane.name,
            )
        return moved


_MEANING: Mapping[str, str] = {
    Unreadable.DAMAGED: "it is damaged",
    Unreadable.ORPHAN: "there is no record of its context",
    Unreadable.EXPIRED: "a newer version recorded it, and its deadline has passed",
}
