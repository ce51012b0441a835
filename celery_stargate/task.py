"""Produce tasks: Celery tasks that publish a message to Pulsar and end with its receipt."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, cast, overload

from celery import shared_task, uuid
from celery.backends.base import DisabledBackend
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult

from celery_stargate.calls.arguments import Arguments, kept_arguments, shown
from celery_stargate.calls.eager import is_eager
from celery_stargate.calls.given import DelayGiven, OneMessage
from celery_stargate.calls.lane_producer import LaneProducer
from celery_stargate.calls.on_commit import OnCommit
from celery_stargate.calls.ownership import NOBODY
from celery_stargate.calls.prepare import Call, CallOptions, ends_if_raised, prepare
from celery_stargate.calls.runtime import Runtime
from celery_stargate.calls.single import produce_in_process
from celery_stargate.calls.waiting import Patience, Waiting
from celery_stargate.effects.tracer import OutcomeTask, run
from celery_stargate.errors import ConfigurationError, InvalidMessage
from celery_stargate.model.durations import until  # noqa: F401  # programs import it from here
from celery_stargate.model.message import refuse_ambiguous, to_json_form
from celery_stargate.support.backoff import Backoff

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature

__all__ = ["ProduceResult", "ProduceTask", "produce_task", "task_class_of", "use_task_class"]

#: An owner of the lane that is alive settles first; the waiter settles after it.
_PATIENCE = Patience(owner_grace=1.0, settle_every=1.0)

#: Seconds after which a waiting call looks for the result again: at first, and at most. Celery's
#: Redis backend subscribes by one connection and then looks by another. If Redis serves the second
#: first, a result that is stored in between is missed by both.
_LOOKS = 2.0, 30.0
#: Seconds of the shortest wait. Celery takes a timeout of 0 for none, and would wait for ever.
_SHORTEST = 0.001

#: What makes a call go by Celery's broker: it can wait, or it has a queue of its own.
_BROKER_OPTIONS = ("eta", "countdown", "queue", "exchange", "routing_key")
_OWN_QUEUE = ("queue", "exchange", "routing_key")

#: What an eager call has checked, until its task takes it.
_CHECKED: ContextVar[list[tuple[Call, CallOptions]]] = ContextVar("celery_stargate_checked")

#: The result of one message is its receipt as a dict, of a list the list of such dicts.
_Receipt = dict[str, Any]
_Found = TypeVar("_Found")


class ProduceResult(AsyncResult, Generic[_Found]):  # type: ignore[type-arg]  # as Celery has it
    """The result of a produce task: the receipt, or the list of receipts, as dicts."""

    #: The call's deadline (monotonic), and what settles it then; None where the call was made in
    #: another process.
    _overdue: tuple[float, Callable[[], None]] | None = None

    def enforce_deadline(self, deadline: float, settle: Callable[[], None]) -> None:
        """Let :meth:`get` settle the call past its deadline: no owner may be alive then.

        Arguments:
            deadline: of the call, by the monotonic clock.
            settle: settles what is overdue of the call.
        """
        self._overdue = deadline, settle

    def get(self, timeout: float | None = None, *args: Any, **kwargs: Any) -> _Found:
        """Wait for the receipt, as ``AsyncResult.get`` does.

        Arguments:
            timeout: seconds to wait at most; None: as long as it takes.
            args, kwargs: as those of ``AsyncResult.get``.

        Returns:
            The receipt as a dict; for a list of messages the list of receipts, in order.

        Raises:
            ConfigurationError: the app has no result backend, so there is nothing to wait for.
            ProduceError: the message was refused, or its outcome is unknown.
            ProduceTimeout: its deadline passed.
            celery.exceptions.TimeoutError: ``timeout`` passed first; the message goes on. The text
                says so if no process owns lanes.
        """
        if isinstance(self.backend, DisabledBackend):
            raise ConfigurationError(
                "the app has no result backend, so get() cannot wait: set result_backend, or use "
                "stargate.produce(msg), which waits without one"
            )
        try:
            return self._wait(timeout, *args, **kwargs)
        except CeleryTimeout as error:
            if Runtime.of(self.app).owner_notice.nobody_owns():
                raise CeleryTimeout(f"{error or 'The operation timed out.'} {NOBODY}") from error
            raise

    def _wait(self, timeout: float | None, *args: Any, **kwargs: Any) -> _Found:
        wait = super().get
        end = math.inf if timeout is None else time.monotonic() + timeout
        found: list[Any] = []
        looks = Backoff(*_LOOKS)

        def done(pause: float) -> bool:
            now = time.monotonic()
            moment = min(now + pause, now + looks.next(), end)
            try:
                found.append(wait(max(_SHORTEST, moment - now), *args, **kwargs))
            except CeleryTimeout:
                # Ours, unless it came early, or the caller's own time is over.
                if time.monotonic() < moment or moment == end:
                    raise
            return bool(found)

        if self._overdue is None:
            while not done(math.inf):
                pass
        else:
            Waiting(self._overdue[0], _PATIENCE, self._overdue[1]).until(done)
        return cast("_Found", found[0])


class ProduceTask(OutcomeTask):
    """A task that publishes to Pulsar, and succeeds when the receipt has arrived.

    ``delay(message, topic=…, on_ack=…, on_error=…, delivery_timeout=…, via=…)`` checks the
    message and records it in a lane before it returns; no pool of a worker takes part. The result
    is the receipt as a dict (:meth:`Receipt.to_dict <celery_stargate.Receipt>`), for a list of
    messages the list of receipts, in order.

    ``delay`` and ``apply_async`` raise, with nothing recorded:

    * :class:`InvalidMessage`: the message or an option cannot be published;
    * :class:`ConfigurationError`: no ``stargate_url``, no topic, no Redis;
    * :class:`LaneFull`: the lane is at ``stargate_max_backlog``.

    They also raise :class:`StoreUnavailable`, which is a ``kombu.exceptions.OperationalError`` too,
    as for any Celery task: Redis did not answer, and the message may be recorded. Call again with
    the same ``task_id``.

    ``autoretry_for``, ``max_retries``, ``retry_backoff``, ``retry_jitter`` and ``retry_kwargs`` do
    what they do for any task: a message that failed is published again by a new attempt, which has
    a deadline of its own.

    With ``via="broker"``, a ``countdown``, an ``eta`` or a ``queue``, the call goes by Celery's
    broker, and the worker that gets it puts it into the lane.

    Example:
        >>> produce_task.delay(("order-17", "one lamp")).get(timeout=10)["status"]
        'stored'
    """

    abstract = True

    #: The topic of a task of one's own, or its name in ``stargate_topics``.
    topic: str | None = None
    #: The producer options of a task of one's own.
    producer_options: Mapping[str, Any] | None = None

    Strategy = "celery_stargate.worker.strategy:produce"
    Request = "celery_stargate.worker.request:ProduceRequest"

    @overload
    def delay(
        self, message: list[Any], **options: Unpack[DelayGiven]
    ) -> ProduceResult[list[_Receipt]]: ...
    @overload
    def delay(
        self, message: OneMessage, **options: Unpack[DelayGiven]
    ) -> ProduceResult[_Receipt]: ...
    def delay(self, *args: Any, **kwargs: Any) -> ProduceResult[Any]:
        """Record the message in its lane.

        Arguments:
            message: text, bytes, ``(key, payload)``, a mapping, a Message, or a list of these.
            topic: its full name or its name in ``stargate_topics``; by default that of the task,
                or ``stargate_topic``.
            on_ack: the signature that gets the receipt.
            on_error: the signature that gets the failure.
            delivery_timeout: seconds or a timedelta until the message's deadline; by default
                ``stargate_delivery_timeout`` (a day).
            via: ``"lane"`` or ``"broker"``; by default ``stargate_via``.

        Returns:
            The result. Its id is the context, and its value is the receipt as a dict.

        Raises:
            As the class says.

        Example:
            >>> result = produce_task.delay("one lamp", topic="orders", on_ack=paid.s())
            >>> result.get(timeout=10)["topic"]
            'persistent://public/default/orders'
        """
        return cast("ProduceResult[Any]", super().delay(*args, **kwargs))

    def apply_async(  # Celery's own signature
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> ProduceResult[Any]:
        """Record the message in its lane; the arguments are those of ``Task.apply_async``.

        Arguments:
            args: ``(message,)``.
            kwargs: the other arguments of :meth:`delay`.
            task_id: the id of the call, which is also its context; by default a new one.
            producer: as in Celery, for calls by its broker.
            link, link_error, shadow, options: as in Celery. A ``countdown``, an ``eta`` or a
                ``queue`` makes the call go by Celery's broker.

        Returns:
            As :meth:`delay`.

        Raises:
            As the class says.

        Example:
            >>> result = produce_task.apply_async(("one lamp",), task_id="order-17")
            >>> result.get(timeout=10)["context"]
            'order-17'
        """
        runtime = Runtime.of(self.app)
        task_id = task_id or uuid()
        given = Arguments.read(args, kwargs)
        if options.get("parent_id"):
            # A step of a canvas: the message is an earlier task's result, which may have been JSON.
            refuse_ambiguous(given.message)
        by_lane = self._goes_by_lane(runtime, options.pop("via", None) or given.via, options)
        call, asked = self.checked(runtime, given, task_id)
        # The payload stays out of what Celery shows of the arguments in events and logs.
        options.setdefault("argsrepr", shown(call))
        options.setdefault("kwargsrepr", "{}")
        message = (to_json_form(given.message),)
        # By their names: a task class of the user's own may take no others by place.
        options |= {"link": link, "link_error": link_error, "shadow": shadow}
        if not by_lane:
            kept = kept_arguments(given.topic, asked.timeout) | asked.callbacks.unpacked()
            # In eager mode the task runs at once, with what was checked here.
            checked = _CHECKED.set([(call, asked)] if is_eager(runtime) else [])
            with call.traced(), _resetting(checked):
                sent = super().apply_async(
                    message, kept, task_id=task_id, producer=producer, **options
                )
            return cast("ProduceResult[Any]", sent)
        # Celery publishes these arguments nowhere: the record has the packed callbacks.
        kept = kept_arguments(
            given.topic, asked.timeout, on_ack=given.on_ack, on_error=given.on_error
        )
        lane: Any
        stored = None
        if self.needs_arguments:
            stored = (
                message,
                kept_arguments(given.topic, asked.timeout) | asked.callbacks.unpacked(),
            )
        lane = LaneProducer(runtime, call, asked, (message, kept), stored)
        with closing(lane), call.traced():
            result = super().apply_async(message, kept, task_id=task_id, producer=lane, **options)
        if isinstance(result, ProduceResult) and lane.deadline is not None:
            lanes = tuple(call.lanes)
            result.enforce_deadline(lane.deadline, lambda: runtime.settle_overdue(lanes))
        return cast("ProduceResult[Any]", result)

    def _goes_by_lane(self, runtime: Runtime, via: Any, options: Mapping[str, Any]) -> bool:
        """Return whether a call goes into its lane at once, and not by Celery's broker.

        Raises:
            InvalidMessage: ``via`` is neither of the two.
        """
        via = via or runtime.settings.via
        if via not in ("lane", "broker"):
            raise InvalidMessage(f"via must be 'lane' or 'broker', not {via!r}")
        if via == "broker" or is_eager(runtime) or options.get("retries"):
            # A retry has the task's id again, which the lane may still know.
            return False
        own_queue = any(getattr(self, each, None) is not None for each in _OWN_QUEUE)
        return not own_queue and not any(options.get(each) for each in _BROKER_OPTIONS)

    def checked(
        self,
        runtime: Runtime,
        given: Arguments,
        context: str,
        headers: Mapping[str, object] | None = None,
        *,
        traced: bool = True,
    ) -> tuple[Call, CallOptions]:
        """Check a call's arguments, and return what it records and what it asks for.

        Arguments:
            headers: of the call's task, where it came by Celery's broker.
            traced: whether the trace of the call begins, if something traces.

        Raises:
            InvalidMessage, ConfigurationError: as the class says.
        """
        # A topic of the call has the options of that topic, not those of the task.
        topic, options = (
            (self.topic, self.producer_options) if given.topic is None else (given.topic, None)
        )
        call = prepare(
            runtime.settings, given.message, context, topic, options, headers, traced=traced
        )
        callbacks = given.on_ack, given.on_error
        with ends_if_raised(call.trace):
            return call, CallOptions.read(runtime.app, *callbacks, given.delivery_timeout)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> ProduceResult[Any]:
        """Return the result of a call by its id."""
        return ProduceResult(
            task_id, backend=self.backend, task_name=self.name, app=self.app, **kwargs
        )

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature[Any]:
        """Return a signature; a ``(key, payload)`` in it becomes a mapping, which JSON keeps."""
        if args:
            args = (to_json_form(args[0]), *args[1:])
        if starargs and "message" in (starargs[0] or ()):
            kwargs = {**starargs[0], "message": to_json_form(starargs[0]["message"])}
            starargs = (kwargs, *starargs[1:])
        return super().signature(args, *starargs, **starkwargs)

    subtask = signature

    if TYPE_CHECKING:

        def s(self, *args: Any, **kwargs: Any) -> Signature[Any]:
            """Return a signature; Celery's types leave open what its task returns."""

        # Where the app's task class has them, as Django's has.

        def delay_on_commit(self, *args: Any, **kwargs: Any) -> ProduceResult[Any]:
            """Call :meth:`delay` when the transaction commits."""

        def apply_async_on_commit(
            self, args: Any = None, kwargs: Any = None, **options: Any
        ) -> ProduceResult[Any]:
            """Call :meth:`apply_async` when the transaction commits."""

    def in_process(self, message: Any, **given: Any) -> Any:
        """Publish and wait in this process, callbacks included; what a direct call does.

        Raises:
            ProduceError, ProduceTimeout: there was no receipt.
            As the class says, else.
        """
        runtime = Runtime.of(self.app)
        context = self.request.id or uuid()
        checked = _CHECKED.get(None)
        if checked and checked[0][0].context == context:
            call, asked = checked.pop()
        else:
            call, asked = self.checked(runtime, Arguments(message, **given), context)
        return produce_in_process(runtime, call, asked)


def task_class_of(app: Celery) -> type[ProduceTask]:
    """Return the class of an app's produce tasks: with the app's own task class, if it has one.

    Arguments:
        app: its ``task_cls`` is Celery's, Django's or one of your own.
    """
    own: Any = app.Task
    if issubclass(own, ProduceTask):
        return cast("type[ProduceTask]", own)
    if issubclass(ProduceTask, own.__bases__):
        return ProduceTask
    bases: tuple[type, ...] = (ProduceTask, own)
    if hasattr(own, "apply_async_on_commit"):
        bases = (OnCommit, *bases)
    made: type[ProduceTask] = type("ProduceTask", bases, {"abstract": True})
    return made


def use_task_class(app: Celery) -> None:
    """Give :data:`produce_task` the app's own task class, if it has one."""
    made, name = task_class_of(app), ProduceTask.default_name
    own: Any = app.Task
    if isinstance(app.tasks[name], own.__bases__):
        return
    register: Any = app
    app.tasks.unregister(name)
    register.task(bind=True, base=made, name=name, shared=False)(run)


#: The produce task that every app has: ``produce_task.delay(message, topic=…, on_ack=…)``. It
#: belongs to Celery's current app; its name is ``celery_stargate.produce``.
produce_task: ProduceTask = shared_task(bind=True, base=ProduceTask, name=ProduceTask.default_name)(
    run
)


@contextmanager
def _resetting(token: Token[Any]) -> Iterator[None]:
    """Reset a context variable after a block."""
    try:
        yield
    finally:
        token.var.reset(token)
