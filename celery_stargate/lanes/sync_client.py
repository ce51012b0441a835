"""The client for threads: each call ends within its caller's bound, and outlives a failover."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry
from redis.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from celery_stargate.lanes.free_list import FreeList
from celery_stargate.lanes.packing import COMMAND_PACKER
from celery_stargate.lanes.passing import Epoch, passing, telling, unavailable
from celery_stargate.support.bound import bounded, call_bound, time_left

__all__ = [
    "BoundedConnection",
    "BoundedPool",
    "BoundedRedis",
    "BoundedSSLConnection",
    "BoundedSentinelConnection",
    "BoundedSentinelPool",
    "BoundedSentinelSSLConnection",
    "BoundedUnixConnection",
    "no_retry",
]

#: How often a call is tried again after its connection broke. A server that says that it cannot
#: serve now is asked again until the bound.
_RETRIES = 2
#: Seconds before the first try again, and at most before each.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.5
#: The least and the most time, in seconds, that a try gets: a connection that has silently died
#: leaves time for a new one.
_LEAST_TRY, _LONGEST_TRY = 0.25, 5.0

_Result = TypeVar("_Result")


def no_retry() -> Retry:
    """Return redis-py's policy that repeats nothing: :class:`BoundedRedis` does."""
    return Retry(NoBackoff(), 0)


class _Bounded:
    """A connection whose timeouts are what is left of the call's bound.

    Arguments:
        epoch: of the process; a connection of an earlier one connects again.
        options: of redis-py's connection.
    """

    _sock: Any
    _socket_timeout: float | None = None
    _socket_connect_timeout: float | None = None

    def __init__(self, *, epoch: Epoch, **options: Any) -> None:
        self._epoch = epoch
        self._made_in = epoch.number
        super().__init__(**{"command_packer": COMMAND_PACKER, **options})

    @property
    def socket_timeout(self) -> float | int | None:
        """Seconds for one read or write."""
        return _at_most(self._socket_timeout)

    @socket_timeout.setter
    def socket_timeout(self, value: float | None) -> None:
        self._socket_timeout = value

    @property
    def socket_connect_timeout(self) -> float | int | None:
        """Seconds to connect."""
        return _at_most(self._socket_connect_timeout)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, value: float | None) -> None:
        self._socket_connect_timeout = value

    def connect(self) -> None:
        """Connect, or go on with a connection of this epoch."""
        number = self._epoch.number
        if self._made_in != number:
            self.disconnect()  # type: ignore[attr-defined]
        super().connect()  # type: ignore[misc]
        self._made_in = number

    def send_packed_command(self, command: Any, check_health: bool = True) -> Any:
        """Send a command within the bound."""
        self._limit()
        return super().send_packed_command(command, check_health)  # type: ignore[misc]

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer within the bound."""
        self._limit()
        return super().read_response(*arguments, **options)  # type: ignore[misc]

    def _limit(self) -> None:
        if self._sock is not None:
            self._sock.settimeout(self.socket_timeout)


class BoundedConnection(_Bounded, redis.Connection):
    """Over TCP."""


class BoundedSSLConnection(_Bounded, redis.SSLConnection):
    """Over TLS."""


class BoundedUnixConnection(_Bounded, redis.UnixDomainSocketConnection):
    """Over a Unix socket."""


class BoundedSentinelConnection(_Bounded, SentinelManagedConnection):
    """To the master that the sentinels name."""


class BoundedSentinelSSLConnection(_Bounded, SentinelManagedSSLConnection):
    """The same over TLS."""


#: What redis-py raises when a call has ended, or its connection is closed.
_ENDS_CALLS = (RedisError, OSError)


class BoundedPool(redis.BlockingConnectionPool):
    """A pool of which a thread waits for a connection, within its call's bound.

    A signal handler may use it while the thread that it interrupts does.

    Arguments:
        options: of redis-py's pool.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "queue_class": FreeList})  # type: ignore[no-untyped-call]

    @property
    def timeout(self) -> float:
        """Seconds to wait for a connection."""
        return _at_most(None)

    @timeout.setter
    def timeout(self, value: object) -> None:
        """Ignore redis-py's own."""

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection that is connected.

        Raises:
            ConnectionError: none was free in time, or Redis cannot be reached.
        """
        try:
            found: Any = super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
        except LostConnection as error:
            if "No connection available" not in str(error):
                raise
            raise LostConnection(
                f"all {self.max_connections} connections of this process are in use; raise "
                "stargate_redis_max_connections"
            ) from None
        # The call may be in a block that handles an error of the program's.
        found.handled_before = sys.exc_info()[1]
        return found

    def release(self, connection: Any) -> None:
        """Take a connection back; close it if something interrupted its call.

        What a signal handler raises may come between a command and its reply. The next call would
        get that reply for its own. redis-py looks only whether one is there already.
        """
        error = sys.exc_info()[1]
        before, connection.handled_before = getattr(connection, "handled_before", None), None
        if error is not None and error is not before and not isinstance(error, _ENDS_CALLS):
            connection.disconnect()
        super().release(connection)  # type: ignore[no-untyped-call]


class BoundedSentinelPool(SentinelConnectionPool, BoundedPool):
    """The same behind Sentinel."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections; when the master is another one, those in use notice it themselves.

        Before version 6 a blocking pool of redis-py does not take the argument that its pool for
        Sentinel gives, and closes all connections.
        """
        try:
            super().disconnect(inuse_connections)
        except TypeError:
            redis.BlockingConnectionPool.disconnect(self)


class BoundedRedis(redis.Redis):
    """A client whose calls end within the bound of their caller, retries included.

    Its pool is one of the pools above. :meth:`behind_sentinel` makes it wait for a failover.
    """

    #: Whether a broken connection is tried again until the bound, as after the death of a master.
    _waits_for_master = False

    def behind_sentinel(self) -> None:
        """Try broken connections again until the bound: the sentinels choose another master."""
        self._waits_for_master = True

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Run a command.

        Raises:
            RedisError, OSError: as redis-py raises them; what passes only after the bound is a
                ConnectionError.
        """
        run = super().execute_command
        return _persist(
            lambda: run(*arguments, **options),  # type: ignore[no-untyped-call]
            self.connection_pool,
            self._waits_for_master,
        )

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline that is bounded as a whole."""
        made = _BoundedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        made.waits_for_master = self._waits_for_master
        return made


class _BoundedPipeline(Pipeline):
    """A pipeline of such a client."""

    waits_for_master = False

    def execute(self, raise_on_error: bool = True) -> Any:
        """Run the commands; an answer by which the server cannot serve now fails all of them."""
        stack, run = self.command_stack, super().execute

        def attempt() -> Any:
            # redis-py forgets the commands after each try.
            self.command_stack = stack
            replies = run(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, RedisError) and passing(reply):
                    raise reply
            return replies

        replies = _persist(attempt, self.connection_pool, self.waits_for_master)
        if raise_on_error:
            self.raise_first_error(stack, replies)  # type: ignore[no-untyped-call]
        return replies


def _persist(call: Callable[[], _Result], pool: Any, waits_for_master: bool) -> _Result:
    """Call until it succeeds, fails for good, or the bound is over."""
    epoch: Epoch = pool.connection_kwargs["epoch"]
    wait, broken = _FIRST_WAIT, 0
    told: Exception | None = None
    with call_bound():
        while True:
            number = epoch.number
            try:
                with bounded(min(max(time_left() / 2, _LEAST_TRY), _LONGEST_TRY)):
                    return call()
            except (RedisError, OSError) as error:
                passes = passing(error)
                if passes:
                    epoch.leave(number)
                elif not isinstance(error, LostConnection | NoAnswer | OSError):
                    raise
                elif not isinstance(error, NoAnswer):
                    broken += 1
                told = telling(error, told)
                if (broken > _RETRIES and not waits_for_master) or time_left() <= wait:
                    found = unavailable(told)
                    if found is error:
                        raise
                    raise found from error
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def _at_most(seconds: float | None) -> float:
    """Return the time that is left, or fewer seconds; never 0, which means not to block.

    Raises:
        TimeoutError: no time is left.
    """
    left = time_left()
    if left <= 0:
        raise NoAnswer("Redis did not answer in time")
    return left if seconds is None else min(left, seconds)
