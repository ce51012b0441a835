"""Pulsar's replies to a producer's frames. No I/O.

Source: Pulsar's "WebSocket API" page, ``ProducerHandler`` and ``AbstractWebSocketHandler`` in
pulsar-websocket 4.0, and ``MessageIdData`` in its ``PulsarApi.proto``.
"""

from __future__ import annotations

import msgspec

from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["Reply", "decode_reply"]


class Reply(msgspec.Struct, frozen=True):
    """The broker's reply to one frame, not yet classified."""

    result: str
    context: str | None = None
    message_id: str | None = msgspec.field(default=None, name="messageId")
    error: str | None = msgspec.field(default=None, name="errorMsg")


_reply_decoder = msgspec.json.Decoder(Reply)


def decode_reply(frame: bytes | str) -> Reply:
    """Read one reply of the broker.

    Raises:
        ValueError: it is not a JSON object of that form.
    """
    try:
        return _reply_decoder.decode(frame)
    except UNDECODABLE as error:
        raise ValueError(f"not a receipt: {error}") from None
