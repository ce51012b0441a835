"""Errors by which a Redis says that it cannot serve the lanes now, and where to look instead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from redis.exceptions import BusyLoadingError, MasterDownError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoAnswer

__all__ = ["Epoch", "Reason", "note_reason", "passing", "reasons_into", "telling", "unavailable"]

#: What such an error's text holds. redis-py has no class for each of them; and a script of Redis
#: 6.2 that meets one answers with a text of its own, and that word in it.
_WORDS = (
    "READONLY",
    "UNBLOCKED",
    "MASTERDOWN",
    "LOADING",
    "NOREPLICAS",
    # It cannot write to its disk, or a script runs for too long. (Not BUSYGROUP, nor BUSYKEY.)
    "MISCONF",
    "BUSY Redis",
    # redis-py's own, behind Sentinel
    "The previous master is now a slave",
    "No master found for",
)
_CLASSES = (ReadOnlyError, MasterDownError, BusyLoadingError)


class Epoch:
    """Counts how often the Redis behind all connections of a process was left for another one.

    A connection that was made in an earlier epoch is closed before it is used again.
    """

    __slots__ = ("_lock", "number")

    def __init__(self) -> None:
        self.number = 0
        self._lock = threading.RLock()

    def leave(self, number: int) -> None:
        """End an epoch; nothing happens if it has ended already.

        Arguments:
            number: the epoch in which the call began that met the error.
        """
        with self._lock:
            if self.number == number:
                self.number += 1


class Reason:
    """Why the last try of a task's calls failed, for callers that do not wait for its end."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None


_REASON: ContextVar[Reason | None] = ContextVar("celery_stargate_reason", default=None)


@contextmanager
def reasons_into(reason: Reason) -> Iterator[None]:
    """Note in ``reason`` why tries inside the block fail."""
    token = _REASON.set(reason)
    try:
        yield
    finally:
        _REASON.reset(token)


def note_reason(error: Exception) -> None:
    """Note why a try failed, if somebody wants to know."""
    reason = _REASON.get()
    if reason is not None:
        reason.error = telling(error, reason.error)


def passing(error: BaseException) -> bool:
    """Whether a server cannot serve now, and a new connection may lead to one that can.

    Such are a demoted master, a replica without its master, a server that loads its file, and one
    whose disk is full.
    """
    if isinstance(error, _CLASSES):
        return True
    return isinstance(error, RedisError) and any(word in str(error) for word in _WORDS)


def telling(error: Exception, earlier: Exception | None) -> Exception:
    """Return which error of a call says why it failed.

    The last try often ends with the call's bound, without an answer; one before it got a reason.

    Arguments:
        error: of the last try.
        earlier: of the tries before it.
    """
    # Where no node of a Cluster answers, redis-py raises an error whose cause is the last node's.
    late = any(isinstance(each, NoAnswer | TimeoutError) for each in (error, error.__cause__))
    return earlier if late and earlier is not None else error


def unavailable(error: Exception) -> Exception:
    """Return what to raise for an error that did not pass in time."""
    if isinstance(error, LostConnection | OSError) and "No master found" not in str(error):
        return error
    text = str(error)
    if "No master found" in text:
        # What redis-py adds names each sentinel's client.
        text = text.partition(" : ")[0]
        text += "; check master_name in stargate_redis_options, and that a master is up"
    for kind, word in ((ReadOnlyError, "READONLY"), (MasterDownError, "MASTERDOWN")):
        # redis-py takes the word off.
        if isinstance(error, kind) and word not in text:
            text = f"{word} {text}"
    return LostConnection(text)
