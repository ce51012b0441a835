"""The producer by which Celery puts a task's message into its lane."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from celery import signals

from celery_stargate.calls.prepare import Call, CallOptions
from celery_stargate.calls.revoking import Revoker
from celery_stargate.calls.runtime import Runtime
from celery_stargate.calls.starts import note_start
from celery_stargate.calls.subscriptions import subscribe_when_awaited
from celery_stargate.effects.callbacks import STARTED_HEADER
from celery_stargate.effects.signatures import pack
from celery_stargate.effects.tracer import CALL
from celery_stargate.errors import ConfigurationError, InvalidMessage
from celery_stargate.model.follow_up import RECORDED_AT
from celery_stargate.model.revocation import expired_failure, revoked_failure

__all__ = ["LaneProducer"]


class LaneProducer:
    """Stands where Celery expects a kombu producer, and records the task's message in its lane.

    ``Task.apply_async(producer=…)`` needs ``publish``, and a ``connection`` that translates
    errors; the RPC result backend asks for a ``channel`` (``celery.app.base``,
    ``celery.backends.rpc``). What else Celery publishes by it goes to the broker.

    Arguments:
        runtime: of the app.
        call: what the task's message records.
        asked: its callbacks and its timeout.
        given: the task's arguments, as Celery is given them.
        stored: those that its end needs; None if it needs none.
    """

    serializer = None

    def __init__(
        self,
        runtime: Runtime,
        call: Call,
        asked: CallOptions,
        given: tuple[Any, Any],
        stored: tuple[Any, Any] | None = None,
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._asked = asked
        # A receiver of the signal may change them in place.
        self._given = deepcopy(given) if signals.before_task_publish.receivers else given
        self._stored = stored
        #: The deadline of what was recorded (monotonic); None: nothing was.
        self.deadline: float | None = None
        self._acquired: Any = None
        subscribe_when_awaited(runtime.app.backend, LaneProducer)

    @property
    def connection(self) -> LaneProducer:
        """What Celery asks to translate errors: this object itself."""
        return self

    # StoreUnavailable is an OperationalError already: there is nothing to translate, or to add.
    recoverable_connection_errors = ()

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield

    def revive(self, connection: object) -> None:
        """Do nothing: redis-py connects again by itself."""

    @property
    def channel(self) -> Any:
        """A channel to the broker."""
        return self._producer.channel

    @property
    def _producer(self) -> Any:
        if self._acquired is None:
            pool = self._runtime.app.producer_pool
            self._acquired = pool.acquire(block=True, timeout=10.0)
        return self._acquired

    def publish(self, body: Any, headers: Any = None, **properties: Any) -> None:
        """Record the task's message; publish anything else, such as a ``task-sent`` event.

        A message that has expired is not recorded: its task ends as revoked.

        Raises:
            InvalidMessage: JSON cannot carry the task's request, or the arguments are not those of
                the call any more.
            ConfigurationError: the message has Celery's old form, which has no headers.
            LaneFull: the message was not recorded.
            StoreUnavailable: Redis did not answer; the message may be recorded.
        """
        if not headers or headers.get("id") != self._call.context:
            if isinstance(body, dict) and body.get("id") == self._call.context:
                raise ConfigurationError(
                    "task_protocol is 1, and a lane needs 2, Celery's default; set that, or call "
                    "with via='broker'"
                )
            self._producer.publish(body, headers=headers, **properties)
            return
        if (tuple(body[0]), body[1]) != self._given:
            raise InvalidMessage(
                "the arguments of the call were changed, by a receiver of before_task_publish or "
                "an apply_async of your own; a lane takes them as they were given: change them "
                "before the call, or call with via='broker'"
            )
        embed = body[2] if len(body) > 2 else {}
        request = {
            **{name: value for name, value in headers.items() if value is not None},
            **{name: value for name, value in embed.items() if value is not None},
            "correlation_id": properties.get("correlation_id"),
            "reply_to": properties.get("reply_to"),
            RECORDED_AT: round(time.time(), 3),
        }
        if properties.get("priority") is not None:
            request["delivery_info"] = {"priority": properties["priority"], "redelivered": False}
        if self._stored is not None:
            request[CALL] = self._stored
        packed = pack("a link, chain, chord or header of the call", request)
        name, callbacks = headers["task"], self._asked.callbacks
        seconds = self._asked.seconds_of_task(self._call, headers.get("expires"), self._runtime.app)
        stamped = Revoker(self._runtime) if request.get("stamped_headers") else None
        failure = None
        if seconds <= 0:
            failure = expired_failure(self._call.context, str(self._call.topic))
        elif stamped is not None and stamped.has_revoked_stamp(request):
            # Asked before: once it is in its lane, it may be sent at any moment.
            failure = revoked_failure(self._call.context, str(self._call.topic))
        if failure is not None:
            self._runtime.effects.fail(name, packed, failure, callbacks.on_error)
            note_start(self._runtime, headers.get(STARTED_HEADER))
            return
        self.deadline = time.monotonic() + seconds
        record = self._call.record(callbacks, task=name, request=packed)
        self._runtime.recorder.put(self._call, record, timeout=seconds)
        note_start(self._runtime, headers.get(STARTED_HEADER))
        self._runtime.owner_notice.look()
        if stamped is not None:
            stamped.check_stamps(self._call.context, self._call.lanes, request)

    def close(self) -> None:
        """Give the broker's producer back, if one was needed."""
        if self._acquired is not None:
            self._acquired.release()
            self._acquired = None
