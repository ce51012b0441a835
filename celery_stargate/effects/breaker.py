"""A circuit breaker: what is away is known to be away, and tried again seldom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from celery_stargate.support.log import logger_of

__all__ = ["Breaker"]

logger = logger_of(__name__)

#: Seconds between two tries of what is away: the first wait, and the longest.
_FIRST, _LONGEST = 1.0, 30.0
#: Seconds between two log records about the same absence.
_LOG_EVERY = 300.0


class Breaker:
    """Knows whether one dependency is away; safe among threads.

    While it is away, one try at a time is allowed, after waits that grow.

    Arguments:
        name: of the dependency, for the log.
        monotonic: the clock, in seconds.
    """

    def __init__(self, name: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._lock = threading.RLock()
        #: Since when it is away; None if it is not.
        self._since: float | None = None
        self._wait = _FIRST
        self._try_at = 0.0
        self._log_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the dependency is away, and it is not time yet to try it again."""
        return self._since is not None and self._monotonic() < self._try_at

    def allows(self) -> bool:
        """Return whether it may be tried now; a try of what is away excludes others for a while."""
        if self._since is None:
            return True
        with self._lock:
            now = self._monotonic()
            if now < self._try_at:
                return False
            self._try_at = now + self._wait
            return True

    def failed(self, error: BaseException) -> None:
        """Note that it is away."""
        with self._lock:
            now = self._monotonic()
            if self._since is None:
                self._since, self._wait, self._log_at = now, _FIRST, now
            else:
                self._wait = min(self._wait * 2, _LONGEST)
            self._try_at = now + self._wait
            if now < self._log_at:
                return
            self._log_at = now + _LOG_EVERY
            away_for = now - self._since
        logger.warning(
            "%s is away (%.0f s so far); effects that need it are repeated until it is back: %r",
            self._name,
            away_for,
            error,
        )

    def succeeded(self) -> None:
        """Note that it is there."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            logger.warning("%s is back after %.0f s", self._name, self._monotonic() - since)
