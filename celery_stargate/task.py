"""Produce tasks: Celery tasks whose work is to get a message surely to Pulsar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import shared_task, uuid
from celery.backends.base import DisabledBackend
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult

from celery_stargate.effects.signatures import Callbacks, pack
from celery_stargate.effects.tracer import OutcomeTask, run
from celery_stargate.errors import ConfigurationError, InvalidMessage
from celery_stargate.model.durations import read_timeout, until
from celery_stargate.model.message import Message

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.app import Stargate
    from celery_stargate.calls.prepare import Call

__all__ = ["ProduceResult", "ProduceTask", "produce_task"]

#: How long the owner of a lane has, past a deadline, before one who waits settles, in seconds.
_OWNER_GRACE_PERIOD = 1.0

#: What makes a call go by Celery's broker: it can wait, or it has a queue of its own.
_BROKER_OPTIONS = ("eta", "countdown", "queue", "exchange", "routing_key")


class ProduceResult(AsyncResult):  # type: ignore[type-arg]
    """The result of a produce task: the receipt, or the list of receipts."""

    #: When the call's deadline passes (monotonic), and what settles it then; None where the call
    #: was made elsewhere.
    _overdue: tuple[float, Callable[[], None]] | None = None

    def see_to(self, deadline: float, settle: Callable[[], None]) -> None:
        """Have the one who waits settle the call past its deadline: nobody else may be alive.

        Arguments:
            deadline: by the monotonic clock.
            settle: settles what is overdue of the call.
        """
        self._overdue = deadline, settle

    def get(self, timeout: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Wait for the receipt, as ``AsyncResult.get`` does.

        Raises:
            ConfigurationError: the app has no result backend, so there is nothing to wait for.
            ProduceError: the message was refused, or nobody can know.
            ProduceTimeout: its deadline passed.
            celery.exceptions.TimeoutError: ``timeout`` passed first; the message goes on.
        """
        if isinstance(self.backend, DisabledBackend):
            raise ConfigurationError(
                "the app has no result backend to wait by: set result_backend, or use "
                "stargate.produce(msg), which waits without one"
            )
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self._overdue is not None:
            deadline, settle = self._overdue
            # An owner that is alive comes first.
            moment = max(deadline, time.monotonic()) + _OWNER_GRACE_PERIOD
            if moment >= end:
                timeout = max(0.0, end - time.monotonic())
                break
            try:
                return super().get(moment - time.monotonic(), *args, **kwargs)
            except CeleryTimeout:
                if time.monotonic() < moment:
                    raise
            settle()
        return super().get(timeout, *args, **kwargs)


class ProduceTask(OutcomeTask):
    """A task that publishes to Pulsar, and is done when the receipt is there.

    ``delay(message, topic=…, on_ack=…, on_error=…, delivery_timeout=…, via=…)`` checks the
    message and records it in a lane before it returns; no worker's pool has a part in it. The
    result is the receipt as a dict (:meth:`Receipt.to_dict <celery_stargate.Receipt>`), for a list
    of messages the list of receipts, in order.

    ``delay`` and ``apply_async`` raise, with nothing recorded:

    * :class:`InvalidMessage`: the message or an option cannot be published;
    * :class:`ConfigurationError`: no ``stargate_url``, no topic, no Redis;
    * :class:`LaneFull`: the lane is at ``stargate_max_backlog``;
    * :class:`StoreUnavailable`: Redis did not answer; this is a
      ``kombu.exceptions.OperationalError`` too, as for any Celery task.

    With ``via="broker"``, a ``countdown``, an ``eta`` or a ``queue``, the call goes by Celery's
    broker, and the worker that gets it puts it into the lane.
    """

    abstract = True

    #: The topic of a task of one's own, or its name in ``stargate_topics``.
    topic: str | None = None
    #: The producer options of a task of one's own.
    producer_options: Mapping[str, Any] | None = None

    Strategy = "celery_stargate.worker.strategy:produce"

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """Record the message in its lane; the arguments are those of ``Task.apply_async``.

        Raises:
            As the class says.
        """
        from celery_stargate.app import Stargate

        app = self.app
        stargate = Stargate.of(app)
        task_id = task_id or uuid()
        given = self.arguments(args, kwargs)
        via = options.pop("via", None) or given.pop("via", None) or stargate.settings.via
        if via not in ("lane", "broker"):
            raise InvalidMessage(f"via must be 'lane' or 'broker', not {via!r}")
        call = self.prepare(stargate, given, task_id)
        callbacks = Callbacks.freeze(given.get("on_ack"), given.get("on_error"), app)
        # The payload stays out of what Celery shows of the arguments in events and logs.
        options.setdefault("argsrepr", _shown(call))
        options.setdefault("kwargsrepr", "{}")
        message = _canonical(given.pop("message"))
        rest = {name: value for name, value in given.items() if value is not None}
        if "delivery_timeout" in rest:
            rest["delivery_timeout"] = read_timeout(rest["delivery_timeout"])
        rest |= callbacks.unpacked()
        own_queue = any(
            getattr(self, each, None) is not None for each in ("queue", "exchange", "routing_key")
        )
        overdue: float | None = None
        if not app.conf.task_always_eager and not (
            via == "broker" or own_queue or any(options.get(each) for each in _BROKER_OPTIONS)
        ):
            timeout = given.get("delivery_timeout")
            timeout = call.options.delivery_timeout if timeout is None else read_timeout(timeout)
            expires = options.get("expires", getattr(self, "expires", None))
            if expires is not None:
                timeout = min(timeout, until(expires, app))
            producer = _LanePublisher(app, stargate, call, timeout, callbacks)
            overdue = time.monotonic() + timeout
        with _closing(producer):
            result = super().apply_async(
                (message,), rest, task_id, producer, link, link_error, shadow, **options
            )
        if overdue is not None and isinstance(result, ProduceResult):
            result.see_to(overdue, partial(stargate.settle_overdue_of, tuple(call.lanes)))
        return result

    def prepare(self, stargate: Stargate, given: Mapping[str, Any], context: str) -> Call:
        """Check a call's arguments, and return what it records.

        Raises:
            InvalidMessage, ConfigurationError: as the class says.
        """
        if given.get("delivery_timeout") is not None:
            read_timeout(given["delivery_timeout"])
        topic = given.get("topic")
        if topic is not None:
            return stargate.prepare(given["message"], context, topic)
        return stargate.prepare(given["message"], context, self.topic, self.producer_options)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> ProduceResult:
        """Return the result of a call by its id."""
        return ProduceResult(
            task_id, backend=self.backend, task_name=self.name, app=self.app, **kwargs
        )

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """Return a signature; a ``(key, payload)`` in it becomes a mapping, which JSON keeps."""
        if args:
            args = (_canonical(args[0]), *args[1:])
        return super().signature(args, *starargs, **starkwargs)

    subtask = signature

    def in_process(self, message: Any, **given: Any) -> Any:
        """Publish and wait in this process, callbacks included; what a direct call does.

        Raises:
            ProduceError, ProduceTimeout: there was no receipt.
            As the class says, else.
        """
        from celery_stargate.app import Stargate

        stargate = Stargate.of(self.app)
        return stargate.produce_in_process(self, {"message": message, **given})

    @staticmethod
    def arguments(args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the arguments of a call by their names.

        Raises:
            TypeError: one is unknown, or there is no message, or more than one.
        """
        positional = tuple(args or ())
        given = dict(kwargs or {})
        if len(positional) > 1 or (positional and "message" in given):
            raise TypeError(
                f"a produce task takes one message, and {len(positional)} positional arguments "
                "were given; give several messages as one list"
            )
        if positional:
            given["message"] = positional[0]
        unknown = given.keys() - _ARGUMENTS
        if unknown or "message" not in given:
            raise TypeError(
                f"a produce task takes message, topic, on_ack, on_error, delivery_timeout and via; "
                f"{'unknown: ' + ', '.join(sorted(unknown)) if unknown else 'no message was given'}"
            )
        return given


_ARGUMENTS = {"message", "topic", "on_ack", "on_error", "delivery_timeout", "via"}


#: The produce task that every app has: ``produce_task.delay(message, topic=…, on_ack=…)``.
produce_task: ProduceTask = shared_task(bind=True, base=ProduceTask, name=ProduceTask.default_name)(
    run
)


def _canonical(message: Any) -> Any:
    """Return a message in a form that JSON keeps: a tuple would come back as a list of two."""
    match message:
        case tuple() if len(message) == 2:
            return {"key": message[0], "payload": message[1]}
        case Message():
            return message.to_dict()
        case list():
            return [_canonical(each) for each in message]
        case {"deliver_after": timedelta() as wait, **rest}:
            return {**rest, "deliver_after": wait.total_seconds()}
    return message


def _shown(call: Call) -> str:
    count = len(call.parts)
    return f"(<{count} message{'s' if count > 1 else ''} for {call.topic}>,)"


class _LanePublisher:
    """Stand where Celery expects a kombu producer, and put the task's message into its lane.

    ``Task.apply_async(producer=…)`` needs of it ``publish``, and a ``connection`` that translates
    errors; the RPC result backend asks for a ``channel`` (``celery.app.base``,
    ``celery.backends.rpc``).
    """

    serializer = None

    def __init__(
        self,
        app: Celery,
        stargate: Stargate,
        call: Call,
        timeout: float,
        callbacks: Callbacks,
    ) -> None:
        self._app = app
        self._stargate = stargate
        self._call = call
        self._timeout = timeout
        self._callbacks = callbacks
        self._acquired: Any = None

    @property
    def connection(self) -> _LanePublisher:
        return self

    # StoreUnavailable is an OperationalError already: there is nothing to translate, or to add.
    recoverable_connection_errors = ()

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield

    def revive(self, connection: object) -> None:
        """Have nothing to revive: redis-py connects again by itself."""

    @property
    def channel(self) -> Any:
        return self._producer.channel

    @property
    def _producer(self) -> Any:
        if self._acquired is None:
            self._acquired = self._app.producer_pool.acquire(block=True, timeout=10.0)
        return self._acquired

    def publish(self, body: Any, headers: Any = None, **properties: Any) -> None:
        """Record the task's message; a ``task-sent`` event goes to Celery's broker."""
        if not headers or headers.get("id") != self._call.context:
            self._producer.publish(body, headers=headers, **properties)
            return
        embed = body[2] if len(body) > 2 else {}
        request = {
            **{name: value for name, value in headers.items() if value is not None},
            **{name: value for name, value in embed.items() if value is not None},
            "correlation_id": properties.get("correlation_id"),
            "reply_to": properties.get("reply_to"),
        }
        if properties.get("priority") is not None:
            request["delivery_info"] = {"priority": properties["priority"], "redelivered": False}
        self._stargate.put(
            self._call,
            self._timeout,
            task=headers["task"],
            request=pack("a link, chain, chord or header of the call", request),
            callbacks=self._callbacks,
        )

    def close(self) -> None:
        if self._acquired is not None:
            self._acquired.release()
            self._acquired = None


@contextmanager
def _closing(producer: Any) -> Iterator[None]:
    try:
        yield
    finally:
        if isinstance(producer, _LanePublisher):
            producer.close()
