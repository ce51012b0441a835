"""Close rows in batches: the relay process consumes the queue of the closing tasks itself.

A task in a worker closes one row in one transaction, so a disk that takes 10 ms for a commit allows
100 rows a second for each process. From a queue of their own, many are closed by one commit.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.utils import Error as DatabaseError
from kombu import Consumer
from kombu.exceptions import KombuError, OperationalError

from celery_stargate.app import Stargate
from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.closing import CLOSE_TASK, check_outcome, close_rows
from celery_stargate.errors import StoreUnavailable
from celery_stargate.support.log import logger_of

__all__ = ["Closer"]

logger = logger_of(__name__)

_BATCH = 500
#: How long it waits for a message: the first of a batch, and each further one, in seconds.
_FIRST, _NEXT = 0.5, 0.004
#: How long a batch is gathered at most, in seconds: a steady stream has no pause. Under load
#: batches are large all the same, for messages come while the one before is committed.
_GATHER = 0.02
#: How long it waits after a failure of the database or the broker, in seconds.
_PAUSE = 1.0


class Closer(threading.Thread):
    """Consumes closing tasks from their queue until it is told to stop.

    A message is acknowledged after the commit; what a crash leaves comes again, and changes nothing
    where it was done.

    Arguments:
        stargate: whose Celery broker holds the queue.
        queue: its name.
        stop: set to end it after the present batch.
    """

    def __init__(self, stargate: Stargate, queue: str, stop: threading.Event) -> None:
        super().__init__(name="stargate-outbox-closer", daemon=True)
        self._stargate = stargate
        self._app = stargate.app
        self._queue = queue
        self._stop_event = stop

    def run(self) -> None:
        """Consume; connect again after a failure."""
        try:
            while not self._stop_event.is_set():
                with self._app.connection_for_read() as connection:
                    away = (*connection.connection_errors, *connection.channel_errors)
                    try:
                        self._consume(connection)
                    except Exception as error:  # without this thread no row closes
                        expected = (DatabaseError, OperationalError, KombuError, OSError, *away)
                        logger.warning(
                            "closing of outbox rows is tried again: %s",
                            error,
                            exc_info=not isinstance(error, expected),
                        )
                        for database in connections.all(initialized_only=True):
                            database.close()
                        self._stop_event.wait(_PAUSE)
        finally:
            connections.close_all()

    def _consume(self, connection: Any) -> None:
        taken: list[Any] = []
        queue = self._app.amqp.queues[self._queue]
        with Consumer(
            connection.channel(),
            [queue],
            on_message=taken.append,
            accept=["json"],
            prefetch_count=_BATCH,
        ):
            until = math.inf
            while not self._stop_event.is_set():
                try:
                    connection.drain_events(timeout=_NEXT if taken else _FIRST)
                    until = min(until, time.monotonic() + _GATHER)
                    if len(taken) < _BATCH and time.monotonic() < until:
                        continue
                except TimeoutError:
                    connection.heartbeat_check()
                if taken:
                    self._close(taken)
                    taken.clear()
                until = math.inf

    def _close(self, taken: Sequence[Any]) -> None:
        by_database: dict[str, list[Any]] = {}
        good = []
        for message in taken:
            try:
                (outcome, *_), kwargs, _ = message.decode()
                if message.headers["task"] != CLOSE_TASK:
                    raise ValueError(f"a task {message.headers['task']}")
                check_outcome(outcome)
                using = kwargs["using"]
                if using not in connections:
                    raise ValueError(f"there is no database {using!r}")
                by_database.setdefault(using, []).append(outcome)
            except Exception:
                logger.exception("queue %s: not a closing task, dropped", self._queue)
                message.reject()
            else:
                good.append(message)
        for using, outcomes in by_database.items():
            close_rows(using, outcomes)
        # No worker runs these tasks, so nobody else tells that they have started.
        try:
            lanes.note_started(self._stargate, [message.headers for message in taken])
        except StoreUnavailable as error:
            # They are published again, and change nothing.
            logger.warning("cannot tell that closing tasks have started: %s", error)
        for message in good:
            message.ack()
