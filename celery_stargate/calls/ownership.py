"""Notice that no process owns lanes, and log it: messages are recorded then, and wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from celery_stargate.errors import ConfigurationError, StoreUnavailable
from celery_stargate.support.bound import bounded
from celery_stargate.support.log import logger_of

__all__ = ["NOBODY", "OwnerNotice"]

logger = logger_of(__name__)

#: What to do about it.
NOBODY = (
    "no process owns lanes, so recorded messages wait: start a worker whose app has Stargate(app), "
    "without --without-stargate and with stargate_worker on"
)

#: Seconds between two checks.
_LOOK_EVERY = 60.0
#: How long one check takes at most, in seconds.
_LOOK_BOUND = 1.0


class OwnerNotice:
    """Checks from time to time, while calls are recorded, whether any process owns lanes.

    Arguments:
        count: returns how many processes own lanes.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        count: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._monotonic = monotonic
        self._look_at = 0.0
        self._told = False

    def look(self) -> None:
        """Log a warning if no process owns lanes; once, until a process has owned lanes again."""
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        nobody = self.nobody_owns()
        if nobody and not self._told:
            logger.warning("%s", NOBODY)
        self._told = nobody

    def nobody_owns(self) -> bool:
        """Whether no process owns lanes now; False if Redis does not answer, or there is none."""
        try:
            with bounded(_LOOK_BOUND):
                return self._count() == 0
        except (StoreUnavailable, ConfigurationError) as error:
            logger.debug("cannot tell whether any process owns lanes: %s", error)
            return False
