"""How commands become bytes: with hiredis, and in Python where an argument is large."""

from __future__ import annotations

from typing import Any

from redis._parsers import Encoder
from redis.connection import HiredisRespSerializer, PythonRespSerializer
from redis.utils import HIREDIS_AVAILABLE

__all__ = ["COMMAND_PACKER", "CommandPacker"]

#: From how many bytes on an argument is large.
_LARGE = 2048


class CommandPacker:
    """Packs commands as redis-py's connections want it.

    hiredis is twice as fast as Python for many small arguments. Above some 150 kB it copies a
    command again and again: a script with 1 MB of messages takes it 2 ms, and Python 0.05 ms.
    """

    def __init__(self) -> None:
        self._small: Any = HiredisRespSerializer()
        encoder: Any = Encoder
        encode = encoder("utf-8", "strict", decode_responses=False).encode
        self._large: Any = PythonRespSerializer(6000, encode)

    def pack(self, *arguments: Any) -> list[bytes]:
        """Return a command as bytes.

        Raises:
            redis.exceptions.DataError: an argument is neither bytes nor text nor a number.
        """
        largest = max([len(each) for each in arguments if type(each) is bytes], default=0)
        if largest < _LARGE:
            return list(self._small.pack(*arguments))
        # In one piece: a write for each argument would cost more than the copy.
        return [b"".join(self._large.pack(*arguments))]


#: For all connections; None, which is redis-py's own, where hiredis is not installed.
COMMAND_PACKER = CommandPacker() if HIREDIS_AVAILABLE else None
