"""Pulsar's WebSocket producer dialect: frames out, receipts in, errors classed. No I/O.

Source: Pulsar's "WebSocket API" page, ``ProducerHandler`` and ``AbstractWebSocketHandler`` in
pulsar-websocket 4.0, and ``MessageIdData`` in its ``PulsarApi.proto``.
"""

from __future__ import annotations

import binascii
import html
import re
from enum import Enum
from typing import Any

import msgspec

from .errors import InvalidMessage
from .message import Message

__all__ = [
    "MessageId",
    "Reply",
    "Verdict",
    "classify_handshake",
    "classify_reply",
    "decode_reply",
    "encode_frame",
    "ends_producer",
    "handshake_sentence",
    "label_in",
]

_encoder = msgspec.json.Encoder()


def encode_frame(message: Message, context: str, max_size: int) -> bytes:
    """Return the JSON text frame of a message, as UTF-8.

    Arguments:
        context: what Pulsar echoes in the receipt.
        max_size: the broker's ``webSocketMaxTextFrameSize``, in bytes.

    Raises:
        InvalidMessage: the frame is larger than ``max_size``: the broker would close the
            connection on it (1009), and everything in flight there with it.
    """
    fields = message.to_frame_fields()
    fields["context"] = context
    frame = _encoder.encode(fields)
    if len(frame) > max_size:
        raise InvalidMessage(
            f"the frame has {len(frame)} bytes and the limit is {max_size}; base64 makes a payload "
            "a third larger. Send less, or raise webSocketMaxTextFrameSize in the broker and "
            "stargate_max_frame_size here"
        )
    return frame


class _Labelled(msgspec.Struct):
    context: str


_label_decoder = msgspec.json.Decoder(_Labelled)


def label_in(frame: bytes) -> str:
    """Return what Pulsar echoes of a frame that :func:`encode_frame` made.

    Raises:
        ValueError: it is no such frame.
    """
    try:
        return _label_decoder.decode(frame).context
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"not a frame: {error}") from None


class MessageId(msgspec.Struct, frozen=True):
    """Where Pulsar keeps a message."""

    ledger: int
    entry: int
    partition: int = -1
    batch_index: int = -1

    @classmethod
    def decode(cls, text: str) -> MessageId:
        """Read a message id: base64 of the protobuf ``MessageIdData``.

        Raises:
            ValueError: the text is no such thing.
        """
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            raise ValueError("the message id is not base64") from None
        numbers: dict[int, int] = {}
        position, size = 0, len(data)
        while position < size:
            tag, position = data[position], position + 1
            if tag > _LAST_OF_ONE_BYTE:
                tag, position = _varint(data, position - 1)
            field, wire = tag >> 3, tag & 7
            if wire == 0:
                value, position = _varint(data, position)
                # Negative int64 and int32 both travel as 64-bit two's complement.
                numbers[field] = value - (1 << 64) if value >> 63 else value
            elif wire == 2:
                length, position = _varint(data, position)
                position += length
            else:
                raise ValueError(f"the message id holds wire type {wire}")
        if position != size or 1 not in numbers or 2 not in numbers:
            raise ValueError("the message id has no ledger and entry")
        return cls(numbers[1], numbers[2], numbers.get(3, -1), numbers.get(4, -1))


#: The largest varint in one byte.
_LAST_OF_ONE_BYTE = 0x7F


def _varint(data: bytes, position: int) -> tuple[int, int]:
    if position < len(data) and data[position] <= _LAST_OF_ONE_BYTE:
        return data[position], position + 1
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("the message id is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7


class Reply(msgspec.Struct, frozen=True):
    """What the broker says to one frame, before it is classed."""

    result: str
    context: str | None = None
    message_id: str | None = msgspec.field(default=None, name="messageId")
    error: str | None = msgspec.field(default=None, name="errorMsg")


_reply_decoder = msgspec.json.Decoder(Reply)


def decode_reply(frame: bytes | str) -> Reply:
    """Read one reply of the broker.

    Raises:
        ValueError: it is no JSON object of that form, however hostile.
    """
    try:
        return _reply_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"not a receipt: {error}") from None


class Verdict(Enum):
    """What a reply or a refused handshake means for the messages concerned."""

    OK = "ok"  #: the broker has it
    PERMANENT = "permanent"  #: told at once: sending again would not help
    TRANSIENT = "transient"  #: sent again until the deadline


#: The exceptions of Pulsar's client that no second send can mend, as ``errorMsg`` names them
#: (``PulsarClientException`` in pulsar-client-api 4.0). Any other text is transient.
PERMANENT_EXCEPTIONS = frozenset(
    {
        "AuthorizationException",
        "CryptoException",
        "IncompatibleSchemaException",
        "InvalidConfigurationException",
        "InvalidMessageException",
        "InvalidTopicNameException",
        "NotAllowedException",
        "NotFoundException",
        "NotSupportedException",
        "TopicDoesNotExistException",
        "TopicTerminatedException",
        "UnsupportedAuthenticationException",
    }
)

#: Those after which a producer stores nothing more (``ProducerImpl.isValidProducerState``).
_LAST_EXCEPTIONS = frozenset(
    {"AlreadyClosedException", "ProducerFencedException", "TopicTerminatedException"}
)

_EXCEPTION_NAME = re.compile(r"(?:PulsarClientException\$|\b)([A-Z]\w*Exception)\b")
_TERMINATED = re.compile(r"topic.{0,300}\bterminated\b", re.IGNORECASE | re.DOTALL)


def classify_reply(reply: Reply) -> Verdict:
    """Class a reply.

    ``send-error:7`` is our bad input; 3 is bad JSON, carries no context, and leaves everything in
    flight unknown; 8 is everything from the broker, and classed by the exception it names.
    """
    if reply.result == "ok":
        return Verdict.OK
    if reply.result == "send-error:7":
        return Verdict.PERMANENT
    text = reply.error or ""
    if reply.result == "send-error:8" and (
        any(name in PERMANENT_EXCEPTIONS for name in _EXCEPTION_NAME.findall(text))
        or _TERMINATED.search(text)
    ):
        return Verdict.PERMANENT
    return Verdict.TRANSIENT


def ends_producer(reply: Reply) -> bool:
    """Whether an error says that its producer takes nothing more, nothing behind it either."""
    return not _LAST_EXCEPTIONS.isdisjoint(_EXCEPTION_NAME.findall(reply.error or ""))


def classify_handshake(status: int, sentence: str = "") -> Verdict:
    """Class a refused handshake by its HTTP status, and where that is not enough by its sentence.

    400, 401, 403 and 404 are permanent, and so is a 503 for a terminated topic; everything else
    (409 a name still taken, 429, 500, 503, 504) may pass. A redirect is permanent: a token does
    not follow it.
    """
    if status in (400, 401, 403, 404) or 300 <= status < 400 or _TERMINATED.search(sentence):
        return Verdict.PERMANENT
    return Verdict.TRANSIENT


# No pattern has more than one way to match, so that no page takes long.
_TAGS = re.compile(r"<[^<>]*>")
_MESSAGE_ROW = re.compile(r"<th> ?MESSAGE: ?</th> ?<td>([^<]*)</td>", re.IGNORECASE)
#: What the broker told the proxy, inside the proxy's own sentence.
_BROKER_SENTENCE = re.compile(r'"errorMsg"\s*:\s*"((?:[^"\\]|\\.)+)"')
_TITLE = re.compile(r"<title> ?(?:Error \d{3} ?)?([^<]*)</title>", re.IGNORECASE)


def handshake_sentence(status: int, body: bytes | None) -> str:
    """Return the sentence in the page with which Jetty refuses a handshake, at most 500 characters.

    Where the page has none, the status alone is told.
    """
    text = " ".join((body or b"")[:20_000].decode("utf-8", "replace").split())
    broker = _BROKER_SENTENCE.search(_unescape(text))
    if broker:
        return f"HTTP {status}: {plain(broker.group(1))}"
    for pattern in (_MESSAGE_ROW, _TITLE):
        found = pattern.search(text)
        sentence = found and plain(found.group(1))
        if sentence:
            return f"HTTP {status}: {sentence}"
    rest = plain(_TAGS.sub(" ", text))
    return f"HTTP {status}: {rest}" if rest else f"HTTP {status} at the handshake"


def plain(text: Any) -> str:
    """Return a foreign text as one printable line of at most 500 characters."""
    line = " ".join(_unescape(str(text)).split())
    return "".join(c if c.isprintable() else "?" for c in line)[:500]


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:
        # A numeric entity of more digits than Python reads.
        return text
