"""Publish many messages by one call, each with a context and a receipt of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celery_stargate.calls import eager
from celery_stargate.calls.prepare import Call, CallOptions, Preparation, ends_if_raised
from celery_stargate.calls.runtime import Runtime
from celery_stargate.calls.waiting import is_done
from celery_stargate.effects.signatures import Callbacks
from celery_stargate.errors import InvalidMessage
from celery_stargate.model.message import Message
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Receipt
from celery_stargate.model.topic import Topic
from celery_stargate.support.bound import USUAL, bounded

__all__ = ["callbacks_of_each", "prepare_many", "produce_many"]


def prepare_many(
    messages: object, topic: Topic, options: ProducerOptions, server: str | None = None
) -> list[Call]:
    """Check all messages, and return what each records: a context of its own, with a new id.

    Arguments:
        server: Pulsar's service URL, for the trace that they share.

    Raises:
        InvalidMessage: one cannot be published, with its index; or ``messages`` is one message.
    """
    if isinstance(messages, str | bytes | bytearray | memoryview | Mapping | Message) or not (
        isinstance(messages, Iterable)
    ):
        raise InvalidMessage(
            f"produce_many takes an iterable of messages, not {type(messages).__name__}; "
            "for one message use produce"
        )
    calls, preparation = [], Preparation(topic, options)
    trace = preparation.begin_trace("", server)
    with ends_if_raised(trace):
        for index, message in enumerate(messages):
            try:
                if isinstance(message, list):
                    raise InvalidMessage(
                        "a message is text, bytes, (key, payload), a mapping or a Message, not list"
                    )
                calls.append(preparation.call(message, str(uuid.uuid4()), trace))
            except InvalidMessage as error:
                raise InvalidMessage(error.problem, index) from None
    if trace is not None and not calls:
        trace.end()
    return calls


def callbacks_of_each(
    read: Callable[[], CallOptions], on_ack: Any, on_error: Any
) -> tuple[CallOptions, Callable[[], Callbacks]]:
    """Return the options of the call, and what gives each message its callbacks.

    A plain signature's task gets its id when it is triggered, so one packed signature serves all
    messages. The ids in a group, chain or chord are frozen, and each message needs its own.

    Arguments:
        read: reads the options, and freezes the callbacks again each time.
    """
    options = read()
    given = (each for each in (on_ack, on_error) if each is not None)
    if any(each.get("subtask_type") is not None for each in given):
        return options, lambda: read().callbacks
    return options, lambda: options.callbacks


def produce_many(
    runtime: Runtime,
    messages: Iterable[object],
    topic: str | None = None,
    on_ack: object = None,
    on_error: object = None,
    timeout: object = None,
) -> list[Receipt] | list[str]:
    """Record many messages; with a callback return their contexts, else wait for their receipts.

    Raises:
        InvalidMessage, ConfigurationError, LaneFull: nothing was recorded.
        StoreUnavailable: some messages may be recorded; the text says how many are.
        ProduceError, ProduceTimeout: a message was refused, or its outcome is unknown.
    """
    settings = runtime.settings
    server = settings.require_url()
    parsed, found = settings.resolve(topic)
    options, callbacks = callbacks_of_each(
        lambda: CallOptions.read(runtime.app, on_ack, on_error, timeout), on_ack, on_error
    )
    calls = prepare_many(messages, parsed, found, server)
    if not calls:
        return []
    if eager.is_eager(runtime):
        own = [callbacks() for _ in calls] if options.callbacks else []
        return eager.produce_many(runtime, calls, own, options.seconds(settings.produce_timeout))
    try:
        with bounded(min(options.seconds(settings.produce_timeout), USUAL)):
            runtime.require_owner()
    except BaseException as error:
        calls[0].end_trace(error)
        raise
    contexts = [call.context for call in calls]
    if options.callbacks:
        records = (call.record(callbacks()) for call in calls)
        runtime.recorder.put_many(calls, records, options.seconds(found.delivery_timeout))
        return contexts
    seconds = options.seconds(settings.produce_timeout)
    lanes = dict.fromkeys(part.lane for call in calls for part in call.parts)
    inbox = runtime.inbox_for(calls[0].lanes[0])
    gathering = inbox.gather(contexts)
    ticket = gathering.ticket
    try:
        records = (call.record(options.callbacks, inbox=ticket.address) for call in calls)
        runtime.recorder.put_many(calls, records, seconds)
        # The receipts do not need the frames, which may be large.
        calls.clear()
        waiting = runtime.waiting(seconds, lanes, progress=lambda: gathering.missing)
        waiting.until(lambda pause: is_done(ticket.future, pause))
    finally:
        inbox.forget(ticket)
    return gathering.settled(str(parsed)).receipts()
