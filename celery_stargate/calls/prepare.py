"""A call to produce, checked whole before anything is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from celery_stargate.errors import ConfigurationError, InvalidMessage
from celery_stargate.lanes.lane import Lane, lane_for, spread
from celery_stargate.model.entry import label_of
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.hashing import partition_of
from celery_stargate.model.message import Message, check_messages
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic

__all__ = ["Call", "Part", "Preparation", "check_context", "prepare"]


class Part(msgspec.Struct, frozen=True):
    """One message of a call, ready for its lane."""

    lane: Lane
    label: str
    frame: bytes


class Call(msgspec.Struct, frozen=True):
    """What one call records: a context and its messages."""

    context: str
    topic: Topic
    options: ProducerOptions
    is_list: bool
    parts: Sequence[Part]

    @property
    def lanes(self) -> list[Lane]:
        """The lanes of its messages, each once; the first holds the context."""
        return list(dict.fromkeys(part.lane for part in self.parts))


def check_context(context: object) -> None:
    """Check an id that a caller chose.

    Raises:
        InvalidMessage: it is not fit to be a context.
    """
    if not isinstance(context, str) or not context or not context.isprintable():
        raise InvalidMessage("a context must be printable text that is not empty")


class Preparation:
    """Prepares calls to one topic: what is the same for all of them is worked out once.

    Arguments:
        topic: where the messages go.
        options: of the topic.

    Raises:
        ConfigurationError: the topic is none for this delivery.
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

    def call(self, message: object, context: str) -> Call:
        """Check a call's messages and encode their frames.

        Arguments:
            message: one of the forms of :func:`~celery_stargate.message.check_messages`.
            context: the id that Pulsar echoes.

        Raises:
            InvalidMessage: a message cannot be published; it names what is wrong, and the index in
                a list.
        """
        check_context(context)
        messages, is_list = check_messages(message)
        if len(messages) == 1:
            parts = [self._part(messages[0], context, context, 0 if is_list else None)]
        else:
            parts = [
                self._part(each, label_of(context, index), context, index)
                for index, each in enumerate(messages)
            ]
        return Call(context, self._topic, self._options, is_list, parts)

    def _part(self, message: Message, label: str, context: str, place: int | None) -> Part:
        if message.key is not None and self._keyless:
            raise InvalidMessage(
                "it has a key, and Pulsar's batching ignores keys, which breaks Key_Shared "
                "consumers; switch stargate_batching_enabled off, or set "
                "stargate_batching_with_keys=True",
                place,
            )
        try:
            frame = encode_frame(message, label, self._options.max_frame_size)
        except InvalidMessage as error:
            raise InvalidMessage(error.problem, place) from None
        lane = self._lane or lane_for(
            self._topic, self._options.lane_count, message.key, context, self._choose
        )
        return Part(lane, label, frame)


def prepare(message: object, context: str, topic: Topic, options: ProducerOptions) -> Call:
    """Prepare one call, as :class:`Preparation` does.

    Raises:
        InvalidMessage, ConfigurationError: as there.
    """
    return Preparation(topic, options).call(message, context)
