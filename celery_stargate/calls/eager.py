"""Eager mode (``task_always_eager``): publish over a socket of the call's own; callbacks run here.

No Redis, no worker and no thread of ours take part, so that a test's transaction sees what the
callbacks see. Nothing is durable. With ``memory://`` there is no socket either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
from celery.exceptions import Ignore

from celery_stargate.calls.direct import apublish_once, publish_once
from celery_stargate.calls.prepare import Call, CallOptions, new_incarnation
from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.callbacks import trigger
from celery_stargate.effects.database import call_where_allowed
from celery_stargate.effects.signatures import Callbacks
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.outcome import Outcome, Receipt, error_of
from celery_stargate.model.outcomes import CallOutcomes, Receipts
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.support.log import logger_of
from celery_stargate.support.tracing import Carrier

__all__ = ["aproduce", "is_eager", "produce", "produce_in_process", "produce_many"]

logger = logger_of(__name__)


def is_eager(runtime: Runtime) -> bool:
    """Whether the app's ``task_always_eager`` is set.

    Raises:
        ConfigurationError: it is not, and ``stargate_url`` is ``memory://``.
    """
    if runtime.app.conf.task_always_eager:
        return True
    if runtime.settings.in_memory:
        runtime.settings.require_service()
    return False


def produce(runtime: Runtime, call: Call, options: CallOptions) -> Receipts | str:
    """Publish a call; with a callback run it and return the context, else return the receipts.

    Raises:
        ProduceError, ProduceTimeout: a message was refused, or its outcome is unknown; with a
            callback only if there is no ``on_error`` and ``task_eager_propagates`` is set.
        What a callback raises, if ``task_eager_propagates`` is set.
    """
    found = _publish(runtime, call, options.seconds(runtime.settings.produce_timeout))
    return _answer(runtime, call, found, options.callbacks)


async def aproduce(runtime: Runtime, call: Call, options: CallOptions) -> Receipts | str:
    """Do as :func:`produce` does, in the running event loop.

    Callbacks run in its thread; under Django as by ``sync_to_async``.

    Raises:
        As :func:`produce`.
    """
    seconds = options.seconds(runtime.settings.produce_timeout)
    if runtime.memory is not None:
        found = _publish(runtime, call, seconds)
    else:
        found = await apublish_once(Endpoint.of(runtime.settings), call, seconds)
    answer = partial(_answer, runtime, call, found, options.callbacks)
    return await call_where_allowed(runtime.app, answer) if options.callbacks else answer()


def produce_in_process(runtime: Runtime, call: Call, options: CallOptions) -> Receipts:
    """Publish the call of a task, run its callback, and return the receipts.

    Raises:
        ProduceError, ProduceTimeout: a message was refused, or its outcome is unknown.
        What a callback raises, if ``task_eager_propagates`` is set.
        celery.exceptions.Ignore: a test holds the receipt, so the task has no result yet.
    """
    found = _publish(runtime, call, options.seconds(runtime.settings.produce_timeout))
    outcomes = _outcomes(call, found, options.callbacks)
    # A failure without a callback is raised by whoever releases it: the task has ended by then.
    late = partial(_call_back, runtime, outcomes, options.callbacks, call.carrier)
    if runtime.memory is not None and runtime.memory.defer(late):
        raise Ignore
    callback = _callback(outcomes, options.callbacks)
    trigger(runtime.app, outcomes, callback, trace=call.carrier)
    return outcomes.answer()


def produce_many(
    runtime: Runtime, calls: Sequence[Call], callbacks: Sequence[Callbacks], seconds: float
) -> list[Receipt] | list[str]:
    """Publish many calls of one message each over one connection; then run their callbacks.

    Arguments:
        calls: to one topic; at least one.
        callbacks: one for each call; empty: the receipts are returned.
        seconds: until the deadline of all messages.

    Raises:
        As :func:`produce`.
    """
    together = msgspec.structs.replace(
        calls[0], is_list=True, parts=[call.parts[0] for call in calls]
    )
    found = _publish(runtime, together, seconds)
    if not callbacks:
        return _of_list(calls, _awaited(runtime, found)).receipts()
    for call, outcome, own in zip(calls, found, callbacks, strict=True):
        _answer(runtime, call, (outcome,), own)
    return [call.context for call in calls]


def _publish(runtime: Runtime, call: Call, seconds: float) -> tuple[Outcome, ...]:
    if runtime.memory is not None:
        call.end_trace()
        return runtime.memory.publish(call)
    return publish_once(Endpoint.of(runtime.settings), call, seconds)


def _awaited(runtime: Runtime, found: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """Return what a caller gets that waits: if a test holds the receipts, none in time."""
    if runtime.memory is None or not runtime.memory.holding:
        return found
    return tuple(deadline_failure(each.context, each.topic, sent=True) for each in found)


def _outcomes(call: Call, found: tuple[Outcome, ...], callbacks: Callbacks) -> CallOutcomes:
    return CallOutcomes(call.context, call.is_list, found, new_incarnation(callbacks))


def _of_list(calls: Sequence[Call], found: tuple[Outcome, ...]) -> CallOutcomes:
    """Return all outcomes under the context that failed first, as a durable call does."""
    failed = [each.context for each in found if not isinstance(each, Receipt)]
    context = failed[0] if failed else calls[0].context
    return CallOutcomes(context, is_list=True, outcomes=found)


def _callback(outcomes: CallOutcomes, callbacks: Callbacks) -> str | None:
    return callbacks.on_error if outcomes.failed else callbacks.on_ack


def _answer(
    runtime: Runtime, call: Call, found: tuple[Outcome, ...], callbacks: Callbacks
) -> Receipts | str:
    outcomes = _outcomes(call, found, callbacks)
    if not callbacks:
        return msgspec.structs.replace(outcomes, outcomes=_awaited(runtime, found)).answer()
    call_back = partial(_call_back, runtime, outcomes, callbacks, call.carrier)
    if runtime.memory is None or not runtime.memory.defer(call_back):
        call_back()
    return outcomes.context


def _call_back(
    runtime: Runtime, outcomes: CallOutcomes, callbacks: Callbacks, trace: Carrier | None
) -> None:
    callback = _callback(outcomes, callbacks)
    if outcomes.failed and callback is None:
        if runtime.app.conf.task_eager_propagates:
            raise error_of(outcomes.failure)
        logger.error("the message failed: %s", outcomes.failure, context=outcomes.context)
    trigger(runtime.app, outcomes, callback, trace=trace)
