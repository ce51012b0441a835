"""Lanes that fail: each is set aside by itself, for a growing time, so that the others go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from redis.exceptions import RedisError

from celery_stargate.delivery.log_reader import NewerRecord
from celery_stargate.lanes.lane import Lane
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["AilingLanes"]

logger = logger_of(__name__)

#: The first and the longest time for which a lane is set aside, in seconds.
_FIRST, _LONGEST = 2.0, 120.0


class AilingLanes:
    """The lanes that this process does not take for a while, because they failed.

    Arguments:
        uniform: draws the jitter of a pause between half of it and all.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], monotonic: Callable[[], float]
    ) -> None:
        self._uniform = uniform
        self._monotonic = monotonic
        self._lanes: dict[Lane, _Pause] = {}

    def may_try(self, lane: Lane) -> bool:
        """Whether a lane may be taken now."""
        pause = self._lanes.get(lane)
        return pause is None or self._monotonic() >= pause.until

    def failed(self, lane: Lane, error: BaseException, lasted: float = 0.0) -> None:
        """Set a lane aside; log that at once, and then seldom.

        Arguments:
            error: why it failed.
            lasted: for how many seconds it was owned before: if for long, all begins anew.
        """
        now = self._monotonic()
        pause = self._lanes.get(lane)
        if pause is None or lasted > _LONGEST:
            pause = self._lanes[lane] = _Pause(
                Backoff(_FIRST, _LONGEST, self._uniform), Seldom(monotonic=self._monotonic)
            )
        pause.times += 1
        seconds = pause.backoff.next()
        pause.until = now + seconds
        if pause.log_now():
            logger.error(
                "its owner failed (%d times by now), and this process sets it aside, for %.0f s"
                " this time: %s: %s",
                pause.times,
                math.ceil(seconds),
                type(error).__name__,
                error,
                # What Redis says needs no traceback.
                exc_info=None if isinstance(error, RedisError | NewerRecord) else error,
                lane=lane.name,
            )
        else:
            logger.debug("its owner failed: %s", error, lane=lane.name)

    def keep_only(self, lanes: Iterable[Lane]) -> None:
        """Forget lanes that do not exist any more."""
        if self._lanes:
            for lane in self._lanes.keys() - set(lanes):
                del self._lanes[lane]


class _Pause:
    """How one lane is set aside."""

    __slots__ = ("backoff", "log_now", "times", "until")

    def __init__(self, backoff: Backoff, log_now: Seldom) -> None:
        self.backoff = backoff
        self.log_now = log_now
        self.times = 0
        self.until = 0.0
