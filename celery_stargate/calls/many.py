"""Publish many messages by one call, each with a context and a receipt of its own."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self

from celery_stargate.calls import eager
from celery_stargate.calls.gathering import Gathered
from celery_stargate.calls.loop_calls import running_loop
from celery_stargate.calls.prepare import (
    Call,
    CallOptions,
    Preparation,
    ends_if_raised,
    new_incarnation,
)
from celery_stargate.calls.runtime import Runtime
from celery_stargate.calls.waiting import Schedule, Waiting
from celery_stargate.effects.database import call_where_allowed
from celery_stargate.effects.signatures import Callbacks
from celery_stargate.errors import InvalidMessage
from celery_stargate.model.context import new_contexts
from celery_stargate.model.message import Message
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Receipt
from celery_stargate.model.topic import Topic
from celery_stargate.support.bound import USUAL, bounded
from celery_stargate.support.daemon_call import await_in_daemon

__all__ = ["aproduce_many", "callbacks_of_each", "prepare_many", "produce_many"]


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
            + (
                "collect them first: [each async for each in …]"
                if isinstance(messages, AsyncIterable)
                else "for one message use produce"
            )
        )
    calls, contexts = [], new_contexts()
    preparation = Preparation(topic, options)
    trace = preparation.begin_trace("", server)
    with ends_if_raised(trace):
        for index, message in enumerate(messages):
            try:
                if isinstance(message, list):
                    raise InvalidMessage(
                        "a message is text, bytes, (key, payload), a mapping or a Message, not list"
                    )
                calls.append(preparation.call(message, next(contexts), trace))
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
    begun = _Begun.of(runtime, messages, topic, on_ack, on_error, timeout)
    if begun.contexts is not None:
        return begun.contexts
    inbox = runtime.inbox_for(begun.lanes[0])
    gathering = inbox.gather(begun.ids)
    ticket = gathering.ticket
    try:
        begun.record(ticket.address)
        waiting = begun.waiting(lambda: gathering.missing)
        waiting.until(lambda pause: inbox.wait(ticket, pause))
    finally:
        inbox.forget(ticket)
    return gathering.settled(begun.topic).receipts()


async def aproduce_many(
    runtime: Runtime,
    messages: Iterable[object],
    topic: str | None = None,
    on_ack: object = None,
    on_error: object = None,
    timeout: object = None,
) -> list[Receipt] | list[str]:
    """Do as :func:`produce_many` does, without holding the event loop.

    The messages are checked and recorded in a thread, where the iterable may block; in eager mode
    where callbacks run, as of :func:`eager.aproduce`.

    Raises:
        As :func:`produce_many`. If it is cancelled, recorded messages still go on.
    """
    begin = partial(_Begun.of, runtime, messages, topic, on_ack, on_error, timeout)
    if eager.is_eager(runtime):
        begun = await call_where_allowed(runtime.app, begin)
    else:
        # Without one this raises, before the thread records anything.
        running_loop()
        begun = await await_in_daemon(begin, "stargate-many")
    if begun.contexts is not None:
        return begun.contexts
    here = await runtime.loops.here()
    inbox = here.inbox_for(begun.lanes[0])
    gathered = Gathered(begun.ids)
    ticket = inbox.expect(gathered)
    try:
        await await_in_daemon(lambda: begun.record(ticket.address), "stargate-many")
        await here.wait(ticket, begun.schedule(), begun.lanes)
    finally:
        inbox.forget(ticket)
    return gathered.settled(begun.topic).receipts()


class _Begun:
    """A call of many messages that is checked, and whose lanes have an owner.

    Arguments:
        runtime: of the app.
        calls: what it records.
        options: what the caller asked for.
        contexts: what the call returns, where it is complete; else None.
    """

    def __init__(
        self,
        runtime: Runtime,
        calls: list[Call],
        options: CallOptions,
        contexts: list[Receipt] | list[str] | None,
    ) -> None:
        self._runtime = runtime
        self._calls = calls
        self._options = options
        self.contexts = contexts
        # Only who waits for receipts needs these.
        waited = calls if contexts is None else []
        self.ids = [call.context for call in waited]
        self.lanes = list(dict.fromkeys(part.lane for call in waited for part in call.parts))
        self.topic = str(calls[0].topic) if calls else ""
        self._seconds = options.seconds(runtime.settings.produce_timeout)

    @classmethod
    def of(
        cls,
        runtime: Runtime,
        messages: Iterable[object],
        topic: str | None,
        on_ack: object,
        on_error: object,
        timeout: object,
    ) -> Self:
        """Check the messages; record them too, if nobody waits for their receipts."""
        settings = runtime.settings
        server = settings.require_url()
        parsed, found = settings.resolve(topic)
        options, callbacks = callbacks_of_each(
            lambda: CallOptions.read(runtime.app, on_ack, on_error, timeout), on_ack, on_error
        )
        calls = prepare_many(messages, parsed, found, server)
        if not calls:
            return cls(runtime, calls, options, [])
        if eager.is_eager(runtime):
            own = [callbacks() for _ in calls] if options.callbacks else []
            seconds = options.seconds(settings.produce_timeout)
            return cls(runtime, calls, options, eager.produce_many(runtime, calls, own, seconds))
        try:
            with bounded(min(options.seconds(settings.produce_timeout), USUAL)):
                runtime.require_owner()
        except BaseException as error:
            calls[0].end_trace(error)
            raise
        if not options.callbacks:
            return cls(runtime, calls, options, None)
        incarnation = new_incarnation(options.callbacks)
        records = (call.record(callbacks(), incarnation=incarnation) for call in calls)
        runtime.recorder.put_many(calls, records, options.seconds(found.delivery_timeout))
        return cls(runtime, calls, options, [call.context for call in calls])

    def record(self, address: str) -> None:
        """Record the messages of a caller that waits at an address."""
        calls = self._calls
        records = (call.record(self._options.callbacks, inbox=address) for call in calls)
        self._runtime.recorder.put_many(calls, records, self._seconds)
        # The receipts do not need the frames, which may be large.
        calls.clear()

    def schedule(self) -> Schedule:
        """Return when the caller does what while it waits for the receipts."""
        return self._runtime.schedule(self._seconds)

    def waiting(self, progress: Callable[[], int]) -> Waiting:
        """Return how the caller waits for the receipts."""
        return self._runtime.waiting(self._seconds, self.lanes, progress=progress)
