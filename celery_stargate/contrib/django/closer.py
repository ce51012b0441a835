"""Close rows in batches: the relay process consumes the queue of the closing tasks itself.

A task in a worker closes one row in one transaction, so a disk that takes 10 ms for a commit allows
100 rows a second for each process. From a queue of their own, many are closed by one commit: one
thread reads the queue while another commits, so a batch is what came during the commit before.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from django.db import connections
from django.db.utils import Error as DatabaseError
from kombu import Consumer
from kombu.exceptions import KombuError, OperationalError

from celery_stargate.app import Stargate
from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.closing import CLOSE_TASK, check_outcome, close_rows
from celery_stargate.errors import StoreUnavailable
from celery_stargate.support.log import logger_of
from celery_stargate.support.stop_event import StopEvent

__all__ = ["Closer"]

logger = logger_of(__name__)

#: How many messages are read and not acknowledged at most.
_BATCH = 500
#: How long it waits for a message, in seconds: where nothing is to be done, and during a commit.
_IDLE, _BUSY = 0.5, 0.004
#: How long it waits after a failure of the database or the broker, in seconds.
_PAUSE = 1.0


class _Batch(NamedTuple):
    """Closing tasks to do together."""

    messages: list[Any]
    by_database: dict[str, list[Any]]
    #: Of all messages, also of those that were dropped.
    headers: list[Any]


class Closer(threading.Thread):
    """Consumes closing tasks from their queue until it is told to stop.

    A message is acknowledged after the commit; what a crash leaves comes again, and changes nothing
    where it was done.

    Arguments:
        stargate: whose Celery broker holds the queue.
        queue: its name.
        stop: set to end it after the present batch.
    """

    def __init__(self, stargate: Stargate, queue: str, stop: StopEvent) -> None:
        super().__init__(name="stargate-outbox-closer", daemon=True)
        self._stargate = stargate
        self._app = stargate.app
        self._queue = queue
        self._stop_event = stop

    def run(self) -> None:
        """Consume; connect again after a failure."""
        with ThreadPoolExecutor(1, "stargate-outbox-commit") as committing:
            try:
                while not self._stop_event.is_set():
                    with self._app.connection_for_read() as connection:
                        away = (*connection.connection_errors, *connection.channel_errors)
                        try:
                            self._consume(connection, committing)
                        except Exception as error:  # without this thread no row closes
                            expected = (DatabaseError, OperationalError, KombuError, OSError, *away)
                            logger.warning(
                                "closing of outbox rows is tried again: %s",
                                error,
                                exc_info=not isinstance(error, expected),
                            )
                            self._stop_event.wait(_PAUSE)
            finally:
                committing.submit(connections.close_all)

    def _consume(self, connection: Any, committing: ThreadPoolExecutor) -> None:
        taken: list[Any] = []
        closing: Future[list[Any]] | None = None
        queue = self._app.amqp.queues[self._queue]
        # The channel closes before its connection: kombu's Redis transport gives back a message
        # that is just arriving only while the connection knows the channel.
        with (
            connection.channel() as channel,
            Consumer(
                channel,
                [queue],
                on_message=taken.append,
                accept=["json"],
                prefetch_count=_BATCH,
            ),
        ):
            while not self._stop_event.is_set():
                try:
                    connection.drain_events(timeout=_BUSY if closing else _IDLE)
                except TimeoutError:
                    connection.heartbeat_check()
                if closing is not None and closing.done():
                    _acknowledge(closing)
                    closing = None
                if closing is None and taken:
                    closing = committing.submit(self._close, self._read(taken))
                    taken.clear()
            if closing is not None:
                _acknowledge(closing)

    def _read(self, taken: Sequence[Any]) -> _Batch:
        """Return what messages say; what is no closing task is dropped."""
        batch = _Batch([], {}, [message.headers for message in taken])
        for message in taken:
            try:
                (outcome, *_), kwargs, _ = message.decode()
                if message.headers["task"] != CLOSE_TASK:
                    raise ValueError(f"a task {message.headers['task']}")
                check_outcome(outcome)
                using = kwargs["using"]
                if using not in connections:
                    raise ValueError(f"there is no database {using!r}")
                batch.by_database.setdefault(using, []).append(outcome)
            except Exception:
                logger.exception("queue %s: not a closing task, dropped", self._queue)
                message.reject()
            else:
                batch.messages.append(message)
        return batch

    def _close(self, batch: _Batch) -> list[Any]:
        """Close the rows of a batch, in the thread that commits; return what is to acknowledge."""
        try:
            for using, outcomes in batch.by_database.items():
                close_rows(using, outcomes)
        except Exception:
            for database in connections.all(initialized_only=True):
                database.close()
            raise
        # No worker runs these tasks, so nobody else tells that they have started.
        try:
            lanes.note_started(self._stargate, batch.headers)
        except StoreUnavailable as error:
            # They are published again, and change nothing.
            logger.warning("cannot tell that closing tasks have started: %s", error)
        return batch.messages


def _acknowledge(closing: Future[list[Any]]) -> None:
    """Acknowledge the messages of a batch whose commit is over.

    Raises:
        Exception: the commit failed; the messages come again.
    """
    for message in closing.result():
        message.ack()
