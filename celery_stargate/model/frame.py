r"""A message's frame: as a lane stores it, as Pulsar gets it, and the label that Pulsar echoes.

Pulsar gets a JSON text with the payload in base64. A lane stores that text for a small payload. A
larger one is stored as bytes, so that Redis does not hold a third more::

    <bytes of the payload, a decimal number>\n<payload><JSON of the other fields>

and the text is made when the frame is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celery_stargate.errors import InvalidMessage
from celery_stargate.model.message import Message
from celery_stargate.support.decoding import UNDECODABLE

__all__ = [
    "encode_frame",
    "fields_in",
    "frame_size",
    "label_in",
    "relabelled",
    "text_frame",
]


#: From how many bytes on a payload is stored as bytes. Base64 of a smaller one costs little, and
#: a worker before record version 2 can send it.
_BYTES_FROM = 1024
#: The longest label, in characters, of a frame that is stored so. The scripts look for a label in
#: the last 1024 bytes, and a character has 4 at most.
_LONGEST_LABEL = 240

_encoder = msgspec.json.Encoder()


def encode_frame(
    message: Message, context: str, max_size: int, properties: Mapping[str, str] | None = None
) -> bytes:
    """Return the frame of a message, as a lane stores it.

    Arguments:
        context: the label that Pulsar echoes in the receipt.
        max_size: the broker's ``webSocketMaxTextFrameSize``, in bytes.
        properties: more properties of the message; those that it has itself stay as they are.

    Raises:
        InvalidMessage: the text frame is larger than ``max_size``. The broker would close the
            connection (code 1009), and all messages in flight would lose their receipts.
    """
    fields = message.to_frame_fields()
    if properties:
        fields["properties"] = {**properties, **fields.get("properties", {})}
    # The last one: the scripts look for it there, and else must decode the frame.
    fields["context"] = context
    payload = fields["payload"]
    if len(payload) < _BYTES_FROM or len(context) > _LONGEST_LABEL:
        frame = _encoder.encode(fields)
        size = len(frame)
    else:
        del fields["payload"]
        frame = _pack(payload, _encoder.encode(fields))
        size = frame_size(frame)
    if size > max_size:
        raise InvalidMessage(
            f"the frame has {size} bytes and the limit is {max_size}; base64 makes a payload "
            "a third larger. Send less, or raise webSocketMaxTextFrameSize in the broker and "
            "stargate_max_frame_size here"
        )
    return frame


def _pack(payload: Any, rest: bytes) -> bytes:
    return b"%d\n%b%b" % (len(payload), payload, rest)


def _unpack(frame: bytes) -> tuple[memoryview, bytes] | None:
    """Return the payload and the JSON behind it; None for a frame that is stored as text."""
    size, line, _ = frame[:20].partition(b"\n")
    if not line or not size.isdigit():
        return None
    begin = len(size) + 1
    end = begin + int(size)
    # "{}" is the shortest JSON.
    return (memoryview(frame)[begin:end], frame[end:]) if end + 2 <= len(frame) else None


_BEFORE, _BEHIND = b'{"payload":', b","


def text_frame(frame: bytes) -> bytes:
    """Return the JSON text, as UTF-8, that Pulsar gets for a frame as a lane stores it."""
    parts = _unpack(frame)
    if parts is None:
        return frame
    payload, rest = parts
    # msgspec writes base64 faster than binascii does.
    return b"".join((_BEFORE, _encoder.encode(payload), _BEHIND, rest[1:]))


def frame_size(frame: bytes) -> int:
    """Return how many bytes :func:`text_frame` has for a frame."""
    parts = _unpack(frame)
    if parts is None:
        return len(frame)
    payload, rest = parts
    return len(_BEFORE) + 2 + (len(payload) + 2) // 3 * 4 + len(_BEHIND) + len(rest) - 1


def fields_in(frame: bytes) -> bytes:
    """Return the JSON of a frame's fields; without the payload, if that is stored as bytes."""
    if frame.startswith(b"{"):
        return frame
    parts = _unpack(frame)
    return frame if parts is None else parts[1]


def relabelled(frame: bytes, label: str) -> bytes | None:
    """Return a frame with another label, as a lane stores it; None if it cannot be read."""
    if len(label) > _LONGEST_LABEL:
        frame = text_frame(frame)
    parts = _unpack(frame)
    try:
        fields = _fields_decoder.decode(frame if parts is None else parts[1])
    except UNDECODABLE:
        return None
    # The label stays the last field, where the scripts look for it.
    fields.pop("context", None)
    fields["context"] = msgspec.Raw(_encoder.encode(label))
    rest = _encoder.encode(fields)
    return rest if parts is None else _pack(parts[0], rest)


class _Labelled(msgspec.Struct):
    context: str


_label_decoder = msgspec.json.Decoder(_Labelled)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def label_in(frame: bytes) -> str:
    """Return the label in a frame as a lane stores it.

    Raises:
        ValueError: it is not such a frame.
    """
    try:
        return _label_decoder.decode(fields_in(frame)).context
    except UNDECODABLE as error:
        raise ValueError(f"not a frame: {error}") from None
