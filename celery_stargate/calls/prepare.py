"""A call to produce, checked completely before anything is recorded."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from celery_stargate.effects.signatures import Callbacks
from celery_stargate.errors import ConfigurationError, InvalidMessage
from celery_stargate.lanes.lane import Lane, lane_for, spread
from celery_stargate.lanes.record import Record
from celery_stargate.model.context import check_context
from celery_stargate.model.durations import read_timeout, until
from celery_stargate.model.entry import label_of
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.hashing import partition_of
from celery_stargate.model.message import Message, check_messages
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.support.tracing import Carrier, Trace, current

if TYPE_CHECKING:
    from celery import Celery

__all__ = [
    "Call",
    "CallOptions",
    "Part",
    "Preparation",
    "ends_if_raised",
    "new_incarnation",
    "prepare",
]


#: The context manager for a call that is not traced: it does nothing.
_NOTHING = nullcontext()


class Part(msgspec.Struct, frozen=True, gc=False):
    """One message of a call, ready for its lane."""

    lane: Lane
    label: str
    frame: bytes


class Call(msgspec.Struct, frozen=True, gc=False):
    """What one call records: a context and its messages."""

    context: str
    topic: Topic
    options: ProducerOptions
    is_list: bool
    parts: Sequence[Part]
    #: Its trace; None where nothing traces.
    trace: Trace | None = None

    @property
    def lanes(self) -> list[Lane]:
        """The lanes of its messages, each once; the first holds the context."""
        if len(self.parts) == 1:
            return [self.parts[0].lane]
        return list(dict.fromkeys(part.lane for part in self.parts))

    def record(
        self,
        callbacks: Callbacks,
        *,
        task: str | None = None,
        request: str | None = None,
        inbox: str | None = None,
        incarnation: str | None = None,
    ) -> Record:
        """Return what the effects of the call's outcome need.

        Arguments:
            callbacks: what the outcome triggers.
            task: the name of the Celery task that waits for the outcome.
            request: the packed request of that task.
            inbox: the address of a caller that waits.
            incarnation: made by :func:`new_incarnation`, for calls that share one; their contexts
                are new ids. None: a new one.
        """
        return Record(
            self.context,
            is_list=self.is_list,
            task=task,
            request=request,
            on_ack=callbacks.on_ack,
            on_error=callbacks.on_error,
            inbox=inbox,
            incarnation=new_incarnation(callbacks) if incarnation is None else incarnation,
            trace=None if self.trace is None else dict(self.trace.carrier),
        )

    @property
    def carrier(self) -> Carrier | None:
        """The context of its trace; None where nothing traces."""
        return None if self.trace is None else self.trace.carrier

    def active(self) -> AbstractContextManager[object]:
        """Return a context manager: its block runs in the call's trace, and does not end it."""
        return _NOTHING if self.trace is None else self.trace.active()

    def traced(self) -> AbstractContextManager[None]:
        """Return a context manager: its block runs in the call's trace, and ends it."""
        return _NOTHING if self.trace is None else _within(self.trace)

    def ends_trace(self) -> AbstractContextManager[None]:
        """Return a context manager for the block that records the call: its end ends the trace."""
        return _NOTHING if self.trace is None else _ending(self.trace)

    def end_trace(self, error: BaseException | None = None) -> None:
        """Note in its trace that it is recorded, or why it is not."""
        if self.trace is not None:
            self.trace.end(error)


class CallOptions(msgspec.Struct, frozen=True, gc=False):
    """What a caller asks for beside the message; checked, and read once."""

    callbacks: Callbacks
    #: Seconds until the deadline; None where the caller gave none.
    timeout: float | None

    @classmethod
    def read(
        cls, app: Celery, on_ack: object = None, on_error: object = None, timeout: object = None
    ) -> CallOptions:
        """Check what a caller gave.

        Arguments:
            app: the Celery app of the callbacks.
            on_ack, on_error: a signature, group, chain or chord, the mapping of one, or None.
            timeout: seconds, a timedelta, or None.

        Raises:
            InvalidMessage: a callback is no signature, or the timeout is no duration above zero.
        """
        seconds = None if timeout is None else read_timeout(timeout)
        return cls(Callbacks.freeze(on_ack, on_error, app), seconds)

    def seconds(self, default: float) -> float:
        """Return the seconds until the deadline."""
        return default if self.timeout is None else self.timeout

    def seconds_of_task(self, call: Call, expires: Any, app: Celery) -> float:
        """Return the seconds until the deadline of a task's call; 0 or less: it has expired.

        Arguments:
            expires: the header of that name; an earlier time is the deadline.
        """
        seconds = self.seconds(call.options.delivery_timeout)
        return seconds if expires is None else min(seconds, until(expires, app))


def new_incarnation(callbacks: Callbacks) -> str:
    """Return what tells a call from others with the same context; empty without callbacks."""
    return secrets.token_hex(8) if callbacks else ""


class Preparation:
    """Prepares calls to one topic. What is the same for all of them is worked out once.

    Arguments:
        topic: where the messages go.
        options: of the topic.

    Raises:
        ConfigurationError: the topic cannot be published to with these options.
    """

    def __init__(self, topic: Topic, options: ProducerOptions) -> None:
        if options.delivery == "effectively_once" and not topic.persistent:
            raise ConfigurationError(
                "stargate_delivery='effectively_once' needs a persistent topic, and "
                f"{topic} is none"
            )
        self._topic = topic
        self._options = options
        self._lane = Lane(str(topic)) if options.lane_count == 1 else None
        self._choose = (
            partial(partition_of, scheme=options.hashing_scheme) if options.partitions else spread
        )
        self._keyless = options.batching_enabled and not options.batching_with_keys

    @classmethod
    def of(cls, settings: Settings, topic: str | None) -> Preparation:
        """Return what prepares calls to a topic by an app's settings.

        Raises:
            InvalidMessage: the topic.
            ConfigurationError: no URL, no topic, or it cannot be published to with its options.
        """
        settings.require_url()
        return cls(*settings.resolve(topic))

    def call(self, message: object, context: str, trace: Trace | None = None) -> Call:
        """Check a call's messages and encode their frames.

        Arguments:
            message: in a form that :func:`~celery_stargate.model.message.check_messages` takes.
            context: the id that Pulsar echoes.
            trace: of the call.

        Raises:
            InvalidMessage: a message cannot be published; the error names what is wrong, and for a
                list the index.
        """
        check_context(context)
        messages, is_list = check_messages(message)
        carrier = None if trace is None else trace.carrier
        if len(messages) == 1:
            parts = [self._part(messages[0], context, context, 0 if is_list else None, carrier)]
        else:
            parts = [
                self._part(each, label_of(context, index), context, index, carrier)
                for index, each in enumerate(messages)
            ]
        return Call(context, self._topic, self._options, is_list, parts, trace)

    def begin_trace(
        self, context: str, server: str | None, headers: Mapping[str, object] | None = None
    ) -> Trace | None:
        """Begin the trace of a call, if something traces.

        Arguments:
            context: the id of the call.
            server: Pulsar's service URL.
            headers: of the call's task, where it came by Celery's broker.
        """
        tracing = current()
        if tracing is None:
            return None
        return tracing.begin(str(self._topic), context, server, headers or {})

    def _part(
        self,
        message: Message,
        label: str,
        context: str,
        place: int | None,
        properties: Carrier | None,
    ) -> Part:
        if message.key is not None and self._keyless:
            raise InvalidMessage(
                "it has a key, and Pulsar's batching ignores keys, which breaks Key_Shared "
                "consumers; switch stargate_batching_enabled off, or set "
                "stargate_batching_with_keys=True",
                place,
            )
        try:
            frame = encode_frame(message, label, self._options.max_frame_size, properties)
        except InvalidMessage as error:
            raise InvalidMessage(error.problem, place) from None
        lane = self._lane or lane_for(
            self._topic, self._options.lane_count, message.key, context, self._choose
        )
        return Part(lane, label, frame)


def ends_if_raised(trace: Trace | None) -> AbstractContextManager[None]:
    """Return a context manager that ends the trace if its block raises: nothing is recorded."""
    return _NOTHING if trace is None else _ending_if_raised(trace)


@contextmanager
def _ending_if_raised(trace: Trace) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        trace.end(error)
        raise


@contextmanager
def _ending(trace: Trace) -> Iterator[None]:
    with _ending_if_raised(trace):
        yield
    trace.end()


@contextmanager
def _within(trace: Trace) -> Iterator[None]:
    with _ending(trace), trace.active():
        yield


def prepare(
    settings: Settings,
    message: object,
    context: str,
    topic: str | None = None,
    options: Mapping[str, Any] | None = None,
    headers: Mapping[str, object] | None = None,
    *,
    traced: bool = True,
) -> Call:
    """Check one call completely, and return what it records.

    Arguments:
        settings: of the app.
        message: in a form that :func:`~celery_stargate.model.message.check_messages` takes.
        context: the id of the call.
        topic: its full name or its name in the settings; None: the default topic.
        options: producer options that replace those of the topic.
        headers: of the call's task, where it came by Celery's broker.
        traced: whether its trace begins, if something traces; whoever gets the call ends it.

    Raises:
        InvalidMessage: the message, the context or the topic.
        ConfigurationError: no URL, no topic, or a wrong option.
    """
    url = settings.require_url()
    parsed, found = settings.resolve(topic)
    if options:
        found = found.changed(options, f"the options for {parsed}")
    preparation = Preparation(parsed, found)
    trace = preparation.begin_trace(context, url, headers) if traced else None
    with ends_if_raised(trace):
        return preparation.call(message, context, trace)
