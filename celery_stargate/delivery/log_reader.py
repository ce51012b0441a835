"""Read a lane's log: what may be sent is returned, what cannot be sent is set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.lanes.leased import Unreadable
from celery_stargate.model.entry import Entry
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.log import logger
from celery_stargate.support.seldom import Seldom

__all__ = ["LogReader", "NewerRecord"]


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
        #: Whether the last wait found something, and nothing could be read since.
        self._in_vain = False
        self._backoff = Backoff(0.05, 5.0, uniform=lane.shared.rng.uniform)
        #: The message that the last read ended at because only a newer version can send it.
        self.newer: NewerRecord | None = None

    async def read(
        self, after: int, count: int, size: int, *, mark: bool, gapless: bool = False
    ) -> list[Entry]:
        """Read messages as :meth:`LeasedLane.read` does, and set aside what cannot be sent."""
        store, retry = self._lane.store, self._lane.retry
        entries = await retry.until_available(
            store.read, after, count, size, mark=mark, gapless=gapless
        )
        self.newer = None
        if store.unreadable:
            await self._set_aside(store.unreadable)
        if entries:
            self._in_vain = False
            self._backoff.reset()
        return entries

    async def wait(self, after: int, timeout: float) -> bool:
        """Wait until the log holds something after a number.

        If the last wait found something that could not be read, pause first: the next one would
        find it, too, and the lane would spin.

        Arguments:
            timeout: seconds to wait at most.

        Returns:
            Whether it does.
        """
        if self._in_vain:
            await asyncio.sleep(self._backoff.next())
        key = self._lane.store.log_key
        self._in_vain = await self._lane.shared.watcher.wait(key, after, timeout)
        return self._in_vain

    async def _set_aside(self, unreadable: list[tuple[int, str]]) -> None:
        store, retry, counters = self._lane.store, self._lane.retry, self._lane.counters
        number, reason = unreadable[-1]
        if reason == Unreadable.NEWER:
            self.newer = NewerRecord(number)
            unreadable = unreadable[:-1]
        if not unreadable:
            return
        counters.set_aside += await retry.until_available(store.set_aside, unreadable)
        if self._log_now():
            number, reason = unreadable[0]
            logger.error(
                "lane %s: %d entries of the log cannot be sent and were set aside; the latest is "
                "number %d: %s",
                *(self._lane.name, counters.set_aside, number, _MEANING.get(reason, reason)),
            )


_MEANING: Mapping[str, str] = {
    Unreadable.DAMAGED: "it is damaged",
    Unreadable.ORPHAN: "there is no record of its context",
    Unreadable.EXPIRED: "a newer version recorded it, and its deadline has passed",
}
