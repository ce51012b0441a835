"""Ask the sentinels which server is the master, and leave one that is not the master any more."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import redis.asyncio.sentinel
from redis.exceptions import RedisError
from redis.sentinel import Sentinel

from celery_stargate.lanes.async_tls import renew_sentinels
from celery_stargate.lanes.passing import Epoch
from celery_stargate.lanes.sync_client import no_retry
from celery_stargate.lanes.target import Target
from celery_stargate.support.log import logger_of

__all__ = ["MasterWatch", "async_sentinel", "sync_sentinel"]

logger = logger_of(__name__)

#: How often the sentinels are asked while clients are in use, in seconds.
_EVERY = 2.0
#: For how many seconds after the last call they are.
_IN_USE = 10.0
#: How long one sentinel may take to answer, in seconds: the next one is asked then.
_ONE_SENTINEL = 1.0


def _parameters(target: Target, retry: object) -> dict[str, Any]:
    timeouts: Mapping[str, Any] = {
        "socket_timeout": _ONE_SENTINEL,
        "socket_connect_timeout": _ONE_SENTINEL,
    }
    return {**timeouts, **target.sentinel_parameters, "retry": retry}


def sync_sentinel(target: Target) -> Sentinel:
    """Return redis-py's client of the sentinels, for threads."""
    return Sentinel(  # type: ignore[no-untyped-call]
        target.sentinels,
        min_other_sentinels=target.min_other_sentinels,
        sentinel_kwargs=_parameters(target, no_retry()),
    )


def async_sentinel(target: Target, retry: object) -> redis.asyncio.sentinel.Sentinel:
    """Return redis-py's client of the sentinels, for one event loop."""
    made = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        list(target.sentinels),
        min_other_sentinels=target.min_other_sentinels,
        sentinel_kwargs=_parameters(target, retry),
    )
    return renew_sentinels(made)


class MasterWatch:
    """Ends an epoch when the sentinels name another master.

    A master that is cut off from its sentinels still answers, and its clients would stay with it.
    A thread asks while clients are in use, and ends some seconds after the last call.

    Arguments:
        target: behind Sentinel.
        epoch: of this process.
    """

    def __init__(self, target: Target, epoch: Epoch) -> None:
        self._target = target
        self._epoch = epoch
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._used = 0.0
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def touch(self) -> None:
        """Note that a client is in use, and ask the sentinels from now on."""
        self._used = time.monotonic()
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stopped.clear()
                thread = threading.Thread(
                    target=self._watch, name="stargate-sentinels", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    # There are too many threads. The call needs none; the next one tries again.
                    logger.debug("the sentinels are not asked yet: %s", error)
                    return
                self._thread = thread

    def close(self) -> None:
        """Ask no more."""
        self._stopped.set()

    def _watch(self) -> None:
        sentinel = sync_sentinel(self._target)
        known: object = None
        try:
            while time.monotonic() - self._used < _IN_USE:
                number = self._epoch.number
                try:
                    found = sentinel.discover_master(self._target.master_name)  # type: ignore[no-untyped-call]
                except RedisError as error:
                    # Calls meet the same, and say so.
                    logger.debug("the sentinels name no master: %s", type(error).__name__)
                else:
                    if known is not None and found != known:
                        logger.warning("the sentinels name another master: %s:%s", *found)
                        self._epoch.leave(number)
                    known = found
                if self._stopped.wait(_EVERY):
                    return
        finally:
            for each in sentinel.sentinels:
                each.close()
