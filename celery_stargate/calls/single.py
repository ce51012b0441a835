"""Publish one call, a message or a list, and wait for its outcome or not."""

from __future__ import annotations

import time
from typing import Any

from celery_stargate.calls import eager
from celery_stargate.calls.direct import publish
from celery_stargate.calls.inbox import Ticket
from celery_stargate.calls.loop_calls import LoopCalls
from celery_stargate.calls.loop_inbox import LoopTicket
from celery_stargate.calls.prepare import (
    Call,
    CallOptions,
    ends_if_raised,
    new_incarnation,
)
from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.callbacks import trigger
from celery_stargate.effects.signatures import NO_CALLBACKS, Callbacks
from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.waiter import FirstNumber
from celery_stargate.model.context import new_context
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.outcome import error_of
from celery_stargate.model.outcomes import CallOutcomes, Receipts
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.support.bound import USUAL, bounded

__all__ = ["aproduce", "check", "produce", "produce_in_process"]

#: How long Redis has to record a call, in seconds, however short the message's own time is.
_LEAST_BOUND = 0.5


def check(
    runtime: Runtime,
    message: object,
    context: str | None,
    topic: str | None,
    on_ack: object,
    on_error: object,
    timeout: object,
) -> tuple[Call, CallOptions]:
    """Check a call whole, and return what it records and what it asks for.

    Raises:
        InvalidMessage, ConfigurationError: the call, or the settings.
    """
    preparation = runtime.preparation(topic)
    context = context or new_context()
    trace = preparation.begin_trace(context, runtime.settings.url)
    with ends_if_raised(trace):
        call = preparation.call(message, context, trace)
        return call, CallOptions.read(runtime.app, on_ack, on_error, timeout)


def produce(runtime: Runtime, call: Call, options: CallOptions) -> Receipts | str:
    """Record a call; with a callback return its context, else wait for its receipts.

    Raises:
        LaneFull, ContextInUse: nothing was recorded.
        StoreUnavailable: Redis did not answer; the call may be recorded.
        ProduceError, ProduceTimeout: a message was refused, or its outcome is unknown.
    """
    if eager.is_eager(runtime):
        return eager.produce(runtime, call, options)
    if options.callbacks:
        _record(runtime, call, options)
        return call.context
    seconds = options.seconds(runtime.settings.produce_timeout)
    end = time.monotonic() + seconds
    ticket = _submit(runtime, call, seconds)
    return _wait(runtime, call, end - time.monotonic(), ticket)


async def aproduce(
    runtime: Runtime, message: object, context: str | None, *given: Any
) -> Receipts | str:
    """Check a call and do as :func:`produce` does, without holding the event loop.

    Arguments:
        message, context, given: as :func:`check` takes them.

    Raises:
        As :func:`check` and :func:`produce`. If it is cancelled, a recorded message still goes on.
    """
    here, fresh = runtime.loops.find(), context is None
    if not (here is not None and here.is_durable) and eager.is_eager(runtime):
        return await eager.aproduce(runtime, *check(runtime, message, context, *given))
    if fresh and here is not None:
        # The loop fetches random bytes for many ids at once.
        context = next(here.contexts)
    call, options = check(runtime, message, context, *given)
    with ends_if_raised(call.trace):
        if here is None:
            here = await runtime.loops.here()
        here.note_durable()
        if options.callbacks:
            await _arecord(here, call, options, fresh=fresh)
            return call.context
        ticket = await _await_outcome(runtime, here, call, options, fresh=fresh)
    if ticket.outcomes is None:
        raise error_of(deadline_failure(call.context, str(call.topic), sent=None))
    return ticket.outcomes.answer()


def produce_in_process(runtime: Runtime, call: Call, options: CallOptions) -> Any:
    """Publish, wait and trigger the callbacks in this process, as a direct call of a task does.

    Without a Redis the message goes over a socket of this call's own, and nothing is durable.

    Returns:
        What the task's result is: the receipt as a dict, or the list of such dicts.

    Raises:
        As :func:`produce`.
        ConfigurationError: the delivery needs a Redis, and there is none.
    """
    seconds = options.seconds(runtime.settings.produce_timeout)
    if eager.is_eager(runtime):
        found = eager.produce_in_process(runtime, call, options)
    elif _has_redis(runtime):
        end = time.monotonic() + seconds
        ticket = _submit(runtime, call, seconds, options.callbacks)
        found = _wait(runtime, call, end - time.monotonic(), ticket)
    else:
        found = _publish_directly(runtime, call, seconds, options.callbacks)
    return [each.to_dict() for each in found] if isinstance(found, list) else found.to_dict()


def _record(runtime: Runtime, call: Call, options: CallOptions) -> None:
    seconds = options.seconds(call.options.delivery_timeout)
    # The caller does not wait for the outcome.
    with call.traced(), bounded(min(max(seconds, _LEAST_BOUND), USUAL)):
        runtime.require_owner()
        runtime.recorder.put(call, call.record(options.callbacks), timeout=seconds, exclusive=True)


async def _arecord(here: LoopCalls, call: Call, options: CallOptions, *, fresh: bool) -> None:
    """Record a call from an event loop, for a caller who does not wait for the outcome."""
    seconds, number = options.seconds(call.options.delivery_timeout), FirstNumber()
    bound = min(max(seconds, _LEAST_BOUND), USUAL)
    record = call.record(options.callbacks)
    await here.begin(call, record, number, seconds, bound, fresh=fresh)
    await number.wait()


async def _await_outcome(
    runtime: Runtime, here: LoopCalls, call: Call, options: CallOptions, *, fresh: bool
) -> LoopTicket:
    """Record a call from an event loop, and wait for its outcome or until its time is over."""
    seconds = options.seconds(runtime.settings.produce_timeout)
    schedule, lanes = runtime.schedule(seconds), call.lanes
    inbox = here.inbox_for(lanes[0])
    ticket = inbox.expect(on_its_way=True)
    try:
        record = call.record(NO_CALLBACKS, inbox=ticket.address)
        bound = max(seconds, _LEAST_BOUND)
        await here.begin(call, record, ticket, seconds, bound, fresh=fresh)
        await here.wait(ticket, schedule, lanes)
    finally:
        inbox.forget(ticket)
    return ticket


def _submit(
    runtime: Runtime, call: Call, seconds: float, callbacks: Callbacks = NO_CALLBACKS
) -> Ticket:
    with call.traced(), bounded(max(seconds, _LEAST_BOUND)):
        runtime.require_owner()
        inbox = runtime.inbox_for(call.lanes[0])
        ticket = inbox.begin()
        try:
            record = call.record(callbacks, inbox=ticket.address)
            runtime.recorder.put(call, record, timeout=seconds, exclusive=True)
        except BaseException:
            inbox.forget(ticket)
            raise
    return ticket


def _wait(runtime: Runtime, call: Call, seconds: float, ticket: Ticket) -> Receipts:
    inbox = runtime.inbox_for(call.lanes[0])
    try:
        waiting = runtime.waiting(seconds, call.lanes)
        waiting.until(lambda pause: inbox.wait(ticket, pause))
        return _outcome(ticket, call)
    finally:
        inbox.forget(ticket)


def _outcome(ticket: Ticket, call: Call) -> Receipts:
    if not ticket.future.done():
        raise error_of(deadline_failure(call.context, str(call.topic), sent=None))
    found: Receipts = ticket.future.result()
    return found


def _has_redis(runtime: Runtime) -> bool:
    try:
        return bool(runtime.redis)
    except ConfigurationError:
        return False


def _publish_directly(
    runtime: Runtime, call: Call, seconds: float, callbacks: Callbacks
) -> Receipts:
    if call.options.delivery == "effectively_once":
        raise ConfigurationError(
            "stargate_delivery='effectively_once' needs a Redis for its lanes; set "
            "stargate_redis_url"
        )
    endpoint = Endpoint.of(runtime.settings)
    published = publish(endpoint, call, seconds)
    incarnation = new_incarnation(callbacks)
    outcomes = CallOutcomes(call.context, call.is_list, published, incarnation)
    callback = callbacks.on_error if outcomes.failed else callbacks.on_ack
    trigger(runtime.app, outcomes, callback, trace=call.carrier)
    return outcomes.answer()
