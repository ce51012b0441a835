"""A call to produce, checked whole before anything is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from .errors import ConfigurationError, InvalidMessage
from .hashing import partition_of
from .lanes.lane import Lane, lane_for, spread
from .message import check_messages
from .protocol import encode_frame
from .settings import ProducerOptions
from .topic import Topic
from .window import label_of

__all__ = ["Call", "Part", "check_context", "prepare"]


@dataclass(frozen=True, slots=True)
class Part:
    """One message of a call, ready for its lane."""

    lane: Lane
    label: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Call:
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


def prepare(message: object, context: str, topic: Topic, options: ProducerOptions) -> Call:
    """Check a call's messages and encode their frames.

    Arguments:
        message: one of the forms of :func:`~celery_stargate.message.check_messages`.
        context: the id that Pulsar echoes.

    Raises:
        InvalidMessage: a message cannot be published; it names what is wrong, and the index in
            a list.
        ConfigurationError: the topic is none for this delivery.
    """
    check_context(context)
    if options.delivery == "effectively_once" and not topic.persistent:
        raise ConfigurationError(
            f"stargate_delivery='effectively_once' needs a persistent topic, and {topic} is none"
        )
    choose = partial(partition_of, scheme=options.hashing_scheme) if options.partitions else spread
    messages, is_list = check_messages(message)
    parts = []
    for index, each in enumerate(messages):
        place = index if is_list else None
        if each.key is not None and options.batching_enabled and not options.batching_with_keys:
            raise InvalidMessage(
                "it has a key, and Pulsar's batching ignores keys, which breaks Key_Shared "
                "consumers; switch stargate_batching_enabled off, or set "
                "stargate_batching_with_keys=True",
                place,
            )
        label = label_of(context, index if len(messages) > 1 else -1)
        try:
            frame = encode_frame(each, label, options.max_frame_size)
        except InvalidMessage as error:
            raise InvalidMessage(error.problem, place) from None
        lane = lane_for(topic, options.lane_count, each.key, context, choose)
        parts.append(Part(lane, label, frame))
    return Call(context, topic, options, is_list, parts)
