"""The JSON text frame of a message, and the label that Pulsar echoes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from celery_stargate.errors import InvalidMessage
from celery_stargate.model.message import Message
from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["encode_frame", "label_in"]


_encoder = msgspec.json.Encoder()


def encode_frame(
    message: Message, context: str, max_size: int, properties: Mapping[str, str] | None = None
) -> bytes:
    """Return the JSON text frame of a message, as UTF-8.

    Arguments:
        context: the label that Pulsar echoes in the receipt.
        max_size: the broker's ``webSocketMaxTextFrameSize``, in bytes.
        properties: more properties of the message; those that it has itself stay as they are.

    Raises:
        InvalidMessage: the frame is larger than ``max_size``. The broker would close the
            connection (code 1009), and all messages in flight would lose their receipts.
    """
    fields = message.to_frame_fields()
    if properties:
        fields["properties"] = {**properties, **fields.get("properties", {})}
    # The last one: the scripts look for it there, and else must decode the frame.
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
    """Return the label in a frame that :func:`encode_frame` made.

    Raises:
        ValueError: it is not such a frame.
    """
    try:
        return _label_decoder.decode(frame).context
    except UNDECODABLE as error:
        raise ValueError(f"not a frame: {error}") from None
