"""Message ids as Pulsar writes them: base64 of the protobuf message `MessageIdData`.

It follows what a real broker sends, and is independent of `celery_stargate.pulsar.message_id`: with
shared code the stand-in would share its mistakes.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

_NEGATIVE = 1 << 64  # a negative int64 is a varint of its two's complement
_LEDGER, _ENTRY, _PARTITION, _BATCH_INDEX, _BATCH_SIZE = 1, 2, 3, 4, 6


class MessageId(NamedTuple):
    """Where a message is stored; -1 for a partition or batch index that it does not have.

    Example:
        >>> MessageId.decode(MessageId(1, 17).encode())
        MessageId(ledger=1, entry=17, partition=-1, batch_index=-1)
    """

    ledger: int
    entry: int
    partition: int = -1
    batch_index: int = -1

    def encode(self) -> str:
        """The text in receipts and deliveries. The broker writes a batch size of 0, always."""
        out = bytearray()
        _put(out, _LEDGER, self.ledger)
        _put(out, _ENTRY, self.entry)
        if self.partition >= 0:
            _put(out, _PARTITION, self.partition)
        if self.batch_index >= 0:
            _put(out, _BATCH_INDEX, self.batch_index)
        _put(out, _BATCH_SIZE, 0)
        return base64.b64encode(out).decode()

    @classmethod
    def decode(cls, text: str) -> MessageId:
        """Read an id, as it stands in receipts, and return it; unknown fields are skipped.

        Raises:
            ValueError: the text is not a message id.
        """
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from None
        found = {_PARTITION: -1, _BATCH_INDEX: -1}
        at = 0
        try:
            while at < len(data):
                tag, at = _take(data, at)
                number, kind = tag >> 3, tag & 7
                if kind == 0:
                    value, at = _take(data, at)
                    found[number] = value - _NEGATIVE if value >> 63 else value
                elif kind == 2:
                    length, at = _take(data, at)
                    at += length
                else:
                    raise ValueError(f"a field of kind {kind}")
            return cls(found[_LEDGER], found[_ENTRY], found[_PARTITION], found[_BATCH_INDEX])
        except (IndexError, KeyError):
            raise ValueError("cut off, or without ledger and entry") from None


#: In an `ok` receipt: this send stored nothing; the broker had the message, or dropped it.
NOT_STORED = MessageId(-1, -1)


def _put(out: bytearray, number: int, value: int) -> None:
    out.append(number << 3)
    value %= _NEGATIVE
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _take(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that does not end")
