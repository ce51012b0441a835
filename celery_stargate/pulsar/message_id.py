"""Message ids: a small reader for the protobuf message ``MessageIdData``."""

from __future__ import annotations

import binascii

import msgspec

__all__ = ["MessageId"]


class MessageId(msgspec.Struct, frozen=True):
    """Where Pulsar stores a message; -1 for a partition or batch index that it does not have."""

    ledger: int
    entry: int
    partition: int = -1
    batch_index: int = -1

    def encode(self) -> str:
        """Return the id as Pulsar writes it; only for one without partition and batch index."""
        data = b"\x08" + _encoded(self.ledger) + b"\x10" + _encoded(self.entry)
        return binascii.b2a_base64(data, newline=False).decode()

    @classmethod
    def decode(cls, text: str) -> MessageId:
        """Read a message id: base64 of the protobuf ``MessageIdData``.

        Raises:
            ValueError: the text is not a message id.
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
                # Negative int64 and int32 are both encoded as 64-bit two's complement.
                numbers[field] = value - (1 << 64) if value >> 63 else value
            elif wire == 2:
                length, position = _varint(data, position)
                position += length
            else:
                raise ValueError(f"the message id contains wire type {wire}")
        if position != size or 1 not in numbers or 2 not in numbers:
            raise ValueError("the message id has no ledger and entry")
        return cls(numbers[1], numbers[2], numbers.get(3, -1), numbers.get(4, -1))


#: The largest varint in one byte.
_LAST_OF_ONE_BYTE = 0x7F


def _encoded(number: int) -> bytes:
    out = bytearray()
    while number > _LAST_OF_ONE_BYTE:
        out.append(number & _LAST_OF_ONE_BYTE | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


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
