"""The strategy: a produce task that comes by Celery's broker goes into its lane, past the pool."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from celery.exceptions import TaskRevokedError
from celery.worker.state import task_ready
from celery.worker.strategy import default
from kombu.exceptions import KombuError
from kombu.serialization import loads, prepare_accept_content

from celery_stargate.calls.arguments import Arguments
from celery_stargate.calls.prepare import Call, CallOptions
from celery_stargate.calls.revoking import Revoker
from celery_stargate.calls.runtime import Runtime
from celery_stargate.calls.starts import note_start
from celery_stargate.effects.callbacks import STARTED_HEADER
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import Callbacks, pack
from celery_stargate.effects.tracer import CALL
from celery_stargate.errors import (
    ConfigurationError,
    InvalidMessage,
    StargateError,
    StoreUnavailable,
)
from celery_stargate.model.context import attempt_context
from celery_stargate.model.follow_up import RECEIVED_AT
from celery_stargate.model.message import refuse_ambiguous
from celery_stargate.model.outcome import Failure
from celery_stargate.model.revocation import expired_failure, revoked_failure
from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.task import ProduceTask

__all__ = ["produce"]

logger = logger_of(__name__)

#: How long until a put that Redis did not answer is tried again, in seconds.
_RETRY = 1.0


def produce(task: ProduceTask, app: Celery, consumer: Any) -> Callable[..., Any]:
    """Return the handler of a produce task's messages.

    It is Celery's default one, whole: revoked, expired, ETA, events, rate limits,
    ``task_reserved`` and callbacks are Celery's own
    (``celery.worker.strategy.default``). Only the pool that it hands the request to is ours.
    """
    return default(task, app, _ConsumerView(consumer, _LanePool(app, consumer)))


class _ConsumerView:
    """The worker's consumer, with another pool, and no waiting for a free process of it.

    The consumer's own methods run with this view in its place, so that a task which waited for its
    ETA or its rate limit comes here too.
    """

    def __init__(self, consumer: Any, pool: _LanePool) -> None:
        self._consumer = consumer
        self.pool = pool

    def __getattr__(self, name: str) -> Any:
        method = getattr(type(self._consumer), name, None)
        if isinstance(method, FunctionType):
            return MethodType(method, self)
        return getattr(self._consumer, name)

    def on_task_request(self, request: Any) -> None:
        """Take a request that nothing holds back any more."""
        try:
            request.execute_using_pool(self.pool)
        except TaskRevokedError:
            logger.debug("the task was revoked", context=request.id)


class _LanePool:
    """Stand where the strategy expects a pool, and put each request into its lane.

    The Celery message is acknowledged when the lane has it; until then the broker keeps it.
    """

    def __init__(self, app: Celery, consumer: Any) -> None:
        self._app = app
        self._consumer = consumer

    def apply_async(
        self,
        target: Any,
        args: tuple[Any, ...],
        accept_callback: Callable[..., Any],
        callback: Any = None,
        **options: Any,
    ) -> None:
        """Put a request; ``args`` are what Celery gives its tracer."""
        task, task_id, request, body, content_type, content_encoding = args
        celery_request = accept_callback.__self__  # type: ignore[attr-defined]
        self._put(celery_request, task, task_id, request, body, content_type, content_encoding)

    def _put(self, celery_request: Any, *given: Any) -> None:
        if celery_request.revoked():
            # Meanwhile, while Redis was away.
            return
        try:
            self._record(*given)
        except Exception as error:  # noqa: BLE001  # whatever it is, the message is kept
            # Redis or the result backend is away, and one message must not end the consumer.
            # The broker keeps the message meanwhile, and prefetch bounds how many wait so.
            logger.warning("%r; the task is put again in %.0f s", error, _RETRY, context=given[1])
            self._consumer.timer.call_after(_RETRY, self._put, (celery_request, *given))
            return
        note_start(Runtime.of(self._app), given[2].get(STARTED_HEADER))
        celery_request.on_accepted(os.getpid(), time.monotonic())
        celery_request.acknowledge()
        task_ready(celery_request)

    def _record(
        self, name: str, task_id: str, request: Any, body: Any, content_type: Any, encoding: Any
    ) -> None:
        task: Any = self._app.tasks[name]
        kwargs: Any = {}
        request = {**request, RECEIVED_AT: round(time.time(), 3)}
        packed = pack("the task's request", _plain(request))
        try:
            args, kwargs, embed = self._decode(body, content_type, encoding)
            packed = pack("the task's request", _plain({**request, **(embed or {})}))
            runtime = Runtime.of(self._app)
            arguments = Arguments.read(args, kwargs)
            refuse_ambiguous(arguments.message)
            context = attempt_context(task_id, request.get("retries") or 0)
            call, asked = task.checked(runtime, arguments, context, request)
            if task.needs_arguments:
                kept = {**kwargs, **asked.callbacks.unpacked()}
                again = {**request, **(embed or {}), CALL: (args, kept)}
                packed = pack("the task's request", _plain(again))
            with call.traced():
                self._put_call(call, asked, name, task_id, packed, request)
        except StoreUnavailable:
            raise
        except (StargateError, KombuError, TypeError, ValueError) as error:
            # What delay() would have told its caller, told here as the task's failure.
            if isinstance(error, ConfigurationError):
                logger.warning(
                    "the task fails, because of this worker: %s", error, task=name, context=task_id
                )
            failure = Failure(context=task_id, reason=str(error), code=type(error).__name__)
            self._fail(name, packed, failure, self._on_error(kwargs))

    def _put_call(
        self,
        call: Call,
        asked: CallOptions,
        name: str,
        task_id: str,
        packed: str,
        request: Any,
    ) -> None:
        """Put a call into its lane, unless it was revoked, or has expired.

        Arguments:
            name, task_id: of its task.
            packed, request: the task's request, as text and as it came.

        Raises:
            Whatever the lane's Redis, or the result backend, raises while it is away.
        """
        runtime = Runtime.of(self._app)
        revoker = Revoker(runtime)
        stamped = bool(request.get("stamped_headers"))
        if (_may_be_older(request) and revoker.is_revoked(task_id)) or (
            stamped and revoker.has_revoked_stamp(request)
        ):
            failure = revoked_failure(task_id, str(call.topic))
            self._fail(name, packed, failure, asked.callbacks.on_error)
            return
        seconds = asked.seconds_of_task(call, request.get("expires"), self._app)
        if seconds <= 0:
            failure = expired_failure(task_id, str(call.topic))
            self._fail(name, packed, failure, asked.callbacks.on_error)
            return
        runtime.recorder.put(
            call,
            call.record(asked.callbacks, task=name, request=packed),
            timeout=seconds,
            tombstone=self._visibility_timeout(),
        )
        runtime.owner_notice.look()
        if stamped:
            revoker.check_stamps(call.context, call.lanes, request)

    def _fail(self, name: str, packed: str, failure: Failure, on_error: str | None) -> None:
        effects = Effects(self._app, None, self._consumer.hostname)
        effects.fail(name, packed, failure, on_error)

    def _decode(self, body: Any, content_type: Any, encoding: Any) -> tuple[Any, Any, Any]:
        if not content_type:
            args, kwargs, embed = body
            return args, kwargs, embed
        accept = prepare_accept_content(self._app.conf.accept_content)
        args, kwargs, embed = loads(body, content_type, encoding, accept=accept)
        return args, kwargs, embed

    def _on_error(self, kwargs: Any) -> str | None:
        """Return the call's ``on_error`` where it can be triggered, whatever else is wrong."""
        try:
            return Callbacks.freeze(None, (kwargs or {}).get("on_error"), self._app).on_error
        except InvalidMessage:
            return None

    def _visibility_timeout(self) -> float:
        """How long the broker may deliver the message again: Redis' default is an hour."""
        options = self._app.conf.broker_transport_options or {}
        return float(options.get("visibility_timeout", 3600))


def _may_be_older(request: dict[str, Any]) -> bool:
    """Whether a task may have been revoked before this worker started: it waited, or came again."""
    info = request.get("delivery_info") or {}
    return bool(request.get("eta") or info.get("redelivered"))


def _plain(request: dict[str, Any]) -> dict[str, Any]:
    """Leave out what belongs to the delivery and not to the task."""
    left_out = ("_get_custom_headers", "on_ack", "properties", "errbacks_sent")
    return {
        name: value for name, value in request.items() if value is not None and name not in left_out
    }
