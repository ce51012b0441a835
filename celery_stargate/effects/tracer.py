"""Run Celery's tracer over an outcome, in the place of a task's own code.

The tracer stores the result and does links, chains, chords and signals, so that every result
backend and option means for a produce task what it means for any task
(``celery.app.trace.build_tracer``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from types import MethodType
from typing import Any, ClassVar, NamedTuple

from celery import Celery, Task, _state, signals, states
from celery.app.task import Context
from celery.app.trace import TraceInfo, build_tracer
from celery.backends.redis import RedisBackend
from celery.exceptions import Retry

from celery_stargate.effects.failures import Interrupted, Kind, kind_of
from celery_stargate.effects.headers import user_headers
from celery_stargate.effects.results.chords import ChordPart
from celery_stargate.effects.results.hooks import has_hooks
from celery_stargate.effects.results.write import ResultBatch, may_batch
from celery_stargate.effects.signatures import unpack
from celery_stargate.effects.together import Together
from celery_stargate.errors import ProduceError
from celery_stargate.lanes.record import Settled
from celery_stargate.model.durations import until
from celery_stargate.model.follow_up import PRODUCE, RECEIVED_AT, RECORDED_AT
from celery_stargate.model.outcome import Failure, error_of
from celery_stargate.model.revocation import EXPIRED, REVOKED, expired_failure
from celery_stargate.support.exits import as_error
from celery_stargate.support.log import logger_of

__all__ = [
    "CALL",
    "OUTCOME",
    "OutcomeTask",
    "OutcomeTracer",
    "Traced",
    "acting_as",
    "no_subscription",
    "run",
]

logger = logger_of(__name__)

#: The field of a stored request with the task's arguments, if a failure may be retried.
CALL = "stargate_call"

#: The field of the tracer's request with the outcome that the task returns or raises.
OUTCOME = "stargate_outcome"


class OutcomeTask(Task):  # type: ignore[type-arg]
    """A task that Celery traces when its message has an outcome; its body is :func:`run`."""

    abstract = True
    #: The name of the task that is traced for a task that is not registered here.
    default_name: ClassVar[str] = PRODUCE

    throws = (ProduceError,)
    # The log line names the context; formatting the whole receipt would cost more than the rest.
    resultrepr_maxsize = 64

    @property
    def is_retried(self) -> bool:
        """Whether Celery may try the task again by itself after a failure."""
        # Celery puts a function around the ``run`` of such a task (``celery.app.autoretry``).
        return hasattr(self, "_orig_run")

    @property
    def needs_arguments(self) -> bool:
        """Whether its end needs the call's arguments: a retry does, and hooks of its own."""
        return self.is_retried or has_hooks(self)

    def in_process(self, message: Any, **given: Any) -> Any:
        """Publish and wait in this process, as a direct call of the task does.

        Raises:
            NotImplementedError: a subclass does not support direct calls.
        """
        raise NotImplementedError


def run(
    self: OutcomeTask,
    message: Any = None,
    *,
    topic: str | None = None,
    on_ack: Any = None,
    on_error: Any = None,
    delivery_timeout: Any = None,
    via: str | None = None,
) -> Any:
    """Return the receipt, or raise the failure, when Celery's tracer calls it with an outcome.

    A direct call publishes the message and waits.
    """
    outcome = getattr(self.request, OUTCOME, None)
    if isinstance(outcome, Failure):
        raise error_of(outcome)
    if isinstance(outcome, BaseException):
        raise outcome
    if outcome is not None:
        return outcome
    return self.in_process(
        message,
        topic=topic,
        on_ack=on_ack,
        on_error=on_error,
        delivery_timeout=delivery_timeout,
    )


@contextmanager
def acting_as(app: Celery) -> Iterator[None]:
    """Make an app the thread's current one: Celery publishes the parts of a canvas with that.

    Meanwhile Celery does not subscribe to the results of what is published: nobody here waits for
    them, and the result backend may be away.
    """
    before = _state.get_current_app()
    app.set_current()
    backend: Any = app.backend
    own = vars(backend).get("on_task_call")
    # Celery has a backend for each thread, unless it is told that one is safe for all.
    alone = not backend.thread_safe and isinstance(backend, RedisBackend)
    if alone:
        backend.on_task_call = no_subscription
    try:
        yield
    finally:
        if alone:
            del backend.on_task_call
        if alone and own is not None:
            backend.on_task_call = own
        before.set_current()


def no_subscription(producer: Any, task_id: str) -> None:
    """Stand in the place of ``RedisBackend.on_task_call``."""


class _Way(Enum):
    """How a tracer treats what the task returns or raises."""

    TRACED = "traced"  #: as any task: retries, hooks, and a result that is stored at once
    BATCHED = "batched"  #: the result is kept until the batch is flushed
    BROKEN = "broken"  #: the task fails, and is not retried: its message is stored


class Traced(NamedTuple):
    """How Celery's tracer ended a task."""

    #: A state of Celery.
    state: str
    #: Why it is no success; None for a success, and for the failure that the message has.
    error: BaseException | None = None
    #: Whether its result is in the batch, and what goes on from it leaves with the others.
    batched: bool = False


class _Info(TraceInfo):
    """What Celery's tracer makes of an error; a passing one leaves the tracer instead.

    If the backend or the broker is away, the effects are repeated. All other errors are Celery's:
    it stores and tells them as it does for any task.
    """

    def handle_error_state(self, task: Any, req: Any, *args: Any, **options: Any) -> Any:
        """Store an error, unless it passes."""
        self._require_permanent(self.retval, task)
        try:
            return super().handle_error_state(task, req, *args, **options)
        except Exception as error:
            self._require_permanent(error, task)
            raise

    def handle_reject(self, task: Any, req: Any, **options: Any) -> None:
        """Store a rejection as a failure, unless the broker is away: then a retry could not go out.

        Celery's worker does so with one that is not to come again; here nothing comes again.
        """
        self._require_permanent(self.retval, task)
        self.state = states.FAILURE
        self.handle_error_state(task, req, eager=False)

    @staticmethod
    def _require_permanent(error: Any, task: Any) -> None:
        # The reason of a `Retry` is the failure that is retried.
        if not isinstance(error, Retry) and kind_of(error, task.backend) is Kind.PASSING:
            raise Interrupted(error)


class OutcomeTracer:
    """Traces tasks in one thread.

    Arguments:
        app: the app of the tasks.
        hostname: the worker's name, for results and events; None outside a worker.
        batch: gets the rows of results that may be stored a moment later.
    """

    def __init__(self, app: Celery, hostname: str | None, batch: ResultBatch) -> None:
        self._app = app
        self._hostname = hostname
        self._batch = batch
        self._tracers: dict[tuple[str, _Way], Callable[..., Any]] = {}
        self._loaded = False

    def trace(
        self,
        task: str,
        context: str,
        request: str | None,
        outcome: Any,
        together: Together | None = None,
    ) -> Traced:
        """Let Celery store a task's outcome and do what goes on from it.

        Arguments:
            task: the name of the task.
            context: its id, if the request has none.
            request: its packed request.
            outcome: what it returns; or a :class:`Failure` or an exception, which it raises.
            together: publishes what goes on from a success, where it can.

        Returns:
            How the task ended.

        Raises:
            Whatever the backend or the broker raises while it is away, and what a hook raises where
            Celery does not catch it.
        """
        fields, args, kwargs = self._fields(request)
        fields[OUTCOME] = outcome
        task_id = fields.get("id") or context
        if isinstance(outcome, Failure):
            outcome = self._expired_or(outcome, fields.get("expires"))
        if isinstance(outcome, Failure) and outcome.code in (REVOKED, EXPIRED):
            self._revoke(task, task_id, Context(fields), outcome)
            return Traced(states.REVOKED)
        published: Sequence[Mapping[str, Any]] = ()
        if isinstance(outcome, BaseException):
            way = _Way.BROKEN
        elif not isinstance(outcome, Failure) and may_batch(
            self._task(task), fields if together is None else _without(fields, together)
        ):
            way = _Way.BATCHED
            if together is not None:
                published = _publish_by(together, fields)
        else:
            way = _Way.TRACED
        tracer, kept = self._tracer(task, way), len(self._batch)
        try:
            with acting_as(self._app):
                info = tracer(task_id, args, kwargs, fields).info
        except Interrupted as stop:
            raise stop.error from None
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001  # a hook's or a receiver's `sys.exit()`
            stored = len(self._batch) > kept
            traced_request = Context({"id": task_id, **fields}, args=args, kwargs=kwargs)
            exited = as_error(error)
            info = None if stored else self._exited(self._task(task), traced_request, exited)
        if info is None:
            for each in published:
                together.note_published(each)  # type: ignore[union-attr]
            return Traced(states.SUCCESS, batched=way is _Way.BATCHED)
        told = isinstance(outcome, Failure) and isinstance(info.retval, ProduceError)
        return Traced(info.state, None if told else info.retval)

    def chord_part(self, settled: Settled) -> ChordPart:
        """Return what counts a task that succeeded, and that is not traced, for its chord."""
        record = settled.record
        fields, args, kwargs = self._fields(record.request)
        fields = {"id": record.context, **fields}
        request = Context(fields, args=args, kwargs=kwargs, called_directly=False)
        return ChordPart(self._task(str(record.task)), request, states.SUCCESS, settled.result)

    def _fields(self, request: str | None) -> tuple[dict[str, Any], tuple[Any, ...], Any]:
        """Return the fields of a task's request as Celery's tracer takes it, and its arguments."""
        given = unpack(request) if request is not None else {}
        args, kwargs = given.pop(CALL, ((), {}))
        for own in (RECORDED_AT, RECEIVED_AT):
            given.pop(own, None)
        fields = {
            "delivery_info": {"priority": None, "redelivered": False},
            **given,
            # Celery would take our own fields for headers of the user, and give them to a retry.
            "headers": user_headers(given),
            "is_eager": False,
            "hostname": self._hostname,
        }
        return fields, tuple(args), kwargs

    def _exited(self, task: Any, request: Any, error: Exception) -> TraceInfo:
        """Store the failure of a task whose code ended its thread, unless its end is stored.

        Returns:
            How the task ended: with the error, or before it.
        """
        ignored = task.ignore_result if request.ignore_result is None else request.ignore_result
        state = states.PENDING if ignored else task.backend.get_state(request.id)
        if state in states.READY_STATES or state == states.RETRY:
            logger.error("a task's code exited after its end", exc_info=error, context=request.id)
            return _Info(state)
        info = _Info(states.FAILURE, error)
        try:
            # Celery takes the traceback from what is handled just now.
            raise error
        except type(error):
            info.handle_error_state(task, request, eager=False, call_errbacks=not ignored)
        return info

    def _revoke(self, name: str, context: str, request: Context, failure: Failure) -> None:
        """Store that a task was revoked, as ``celery.worker.request`` does."""
        task: Any = self._task(name)
        ignored = task.ignore_result if request.ignore_result is None else request.ignore_result
        store = task.store_errors_even_if_ignored or not ignored
        task.backend.mark_as_revoked(context, failure.reason, request=request, store_result=store)
        signals.task_revoked.send(
            sender=task,
            request=request,
            terminated=False,
            signum=None,
            expired=failure.code == EXPIRED,
        )

    def _expired_or(self, failure: Failure, expires: Any) -> Failure:
        """Return a failure, or that of an expired task if this is what Celery's worker calls it.

        Arguments:
            expires: of the task's request.
        """
        never_sent = failure.code == "deadline" and failure.status == "refused"
        if never_sent and expires is not None and until(expires, self._app) <= 0:
            return expired_failure(failure.context, failure.topic)
        return failure

    def _tracer(self, name: str, way: _Way) -> Callable[..., Any]:
        """Return Celery's tracer for a task."""
        tracer = self._tracers.get((name, way))
        if tracer is None:
            task: Any = self._task(name)
            if way is _Way.BATCHED and task.backend is self._app.backend:
                task = type(task)()
                task.backend = self._batch.backend
            elif way is _Way.BROKEN:
                task = type(task)()
                task.run = MethodType(run, task)
            tracer = self._tracers[name, way] = build_tracer(
                name, task, self._app.loader, self._hostname, Info=_Info, app=self._app
            )
        return tracer

    def _load_tasks(self) -> None:
        """Import the modules with the app's tasks, once, as Celery's worker does when it starts."""
        if not self._loaded:
            self._loaded = True
            try:
                self._app.loader.import_default_modules()
            except Exception:  # it is logged, and the effects go on
                logger.exception("the modules with the app's tasks cannot be imported")

    def _task(self, name: str) -> OutcomeTask:
        task: Any = self._app.tasks.get(name)
        if task is None:
            self._load_tasks()
            task = self._app.tasks.get(name)
        if isinstance(task, OutcomeTask):
            return task
        logger.warning(
            "the task is not registered here as a produce task; its outcome is stored all the same",
            task=name,
        )
        return self._app.tasks[OutcomeTask.default_name]  # type: ignore[return-value]


def _without(fields: dict[str, Any], together: Together) -> dict[str, Any]:
    """Return a request without what some producer can publish of what goes on from it."""
    links, steps = fields.get("callbacks") or (), fields.get("chain") or ()
    # Celery makes a group of several links.
    if len(links) > 1 or not all(together.takes(each) for each in (*links, *steps[-1:])):
        return fields
    # Whoever has a producer counts what is kept for chords, too.
    published = ("callbacks", "chain", "chord")
    return {name: value for name, value in fields.items() if name not in published}


def _publish_by(together: Together, fields: dict[str, Any]) -> list[Mapping[str, Any]]:
    """Let Celery publish what goes on from a result by some producer: by options of a signature.

    Returns:
        The signatures that it will publish.
    """
    published: list[Mapping[str, Any]] = []
    for name in ("callbacks", "chain"):
        if fields.get(name):
            *before, each = fields[name]
            published.append(each)
            options = {**each["options"], **together.options_for(each)}
            fields[name] = [*before, {**each, "options": options}]
    return published
