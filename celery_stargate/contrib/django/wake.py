"""What wakes the relay: PostgreSQL's NOTIFY over a poll, and elsewhere the poll."""

from __future__ import annotations

from typing import Any, Protocol

from django.db import connections
from django.db.utils import Error

from celery_stargate.support.log import logger_of
from celery_stargate.support.stop_event import StopEvent

__all__ = ["Listen", "Poll", "Wake", "make_wake", "notify"]

logger = logger_of(__name__)

_CHANNEL = "celery_stargate_outbox"


def notify(using: str) -> None:
    """Wake the relays of a database, where it can.

    Raises:
        django.db.DatabaseError: the database did not answer.
    """
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [_CHANNEL])


class Wake(Protocol):
    """Waits until there may be rows."""

    #: Whether it is told of each commit: what one pass did not read need not be looked for.
    tells: bool

    def wait(self, timeout: float) -> None:
        """Return when woken, and after ``timeout`` seconds at the latest."""

    def close(self) -> None:
        """Give up what it holds."""


class Poll:
    """Waits for the time, or for the end.

    Arguments:
        stop: set when the relay is to end.
    """

    tells = False

    def __init__(self, stop: StopEvent) -> None:
        self._stop = stop

    def wait(self, timeout: float) -> None:
        """Return after the time, or when the relay is to end."""
        self._stop.wait(timeout)

    def close(self) -> None:
        """Hold nothing."""


class Listen:
    """Waits for NOTIFY, by a connection of its own.

    Behind PgBouncer's transaction pooling LISTEN is lost without an error, so the relay reads after
    each ``timeout`` all the same.

    Arguments:
        using: the alias to connect to; its pool, if any, is not used.
        stop: set when the relay is to end.
    """

    tells = True

    def __init__(self, using: str, stop: StopEvent) -> None:
        self._using = using
        self._stop = stop
        self._connection: Any = None

    def wait(self, timeout: float) -> None:
        """Return after a notification or the time, or soon after the relay is to end."""
        if self._stop.is_set():
            return
        try:
            if self._connection is None:
                self._connection = self._listen()
                # What was committed before LISTEN was told to nobody: read first.
                return
            for _ in self._connection.connection.notifies(timeout=timeout, stop_after=1):
                pass
        except (Error, OSError, self._errors()) as error:
            logger.warning("LISTEN on %s failed, the relay polls: %s", self._using, error)
            self.close()
            self._stop.wait(timeout)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _listen(self) -> Any:
        connection = connections[self._using].copy()
        options = connection.settings_dict["OPTIONS"]
        connection.settings_dict["OPTIONS"] = {k: v for k, v in options.items() if k != "pool"}
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {_CHANNEL}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _errors(self) -> type[Exception]:
        # psycopg's own: what waits here is its connection, not Django's cursor.
        found: type[Exception] = connections[self._using].Database.Error
        return found


def make_wake(using: str, listen_using: str | None, stop: StopEvent) -> Wake:
    """Return what wakes the relay of a database: LISTEN with PostgreSQL and psycopg 3."""
    connection = connections[listen_using or using]
    module = getattr(connection, "Database", None)
    if connection.vendor == "postgresql" and getattr(module, "__name__", "") == "psycopg":
        return Listen(listen_using or using, stop)
    return Poll(stop)
