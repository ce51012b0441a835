"""Pulsar's WebSocket producer dialect: frames out, receipts in, errors classed. No I/O.

Source: Pulsar's "WebSocket API" page, ``ProducerHandler`` and ``AbstractWebSocketHandler`` in
pulsar-websocket 4.0, and ``MessageIdData`` in its ``PulsarApi.proto``.
"""

from __future__ import annotations

import msgspec

__all__ = ["Reply", "decode_reply"]


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
