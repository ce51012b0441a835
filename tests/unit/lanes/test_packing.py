"""How commands become bytes."""

from __future__ import annotations

from typing import Any

import pytest
from redis.connection import PythonRespSerializer
from redis.exceptions import DataError

from celery_stargate.lanes.packing import CommandPacker
from celery_stargate.lanes.passing import Epoch
from celery_stargate.lanes.sync_client import BoundedConnection


def encoded(given: Any) -> bytes:
    """An argument as Redis gets it."""
    return given if isinstance(given, bytes) else str(given).encode()


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 6001, 200_000])
def test_the_same_bytes_whoever_packs_them(size: int) -> None:
    """Numbers, text and bytes; a command of two words is split."""
    arguments: list[Any] = ["CONFIG GET", "\u00e4", 17, -1.5, b"\x00\r\n" + b"x" * size, b"", ""]
    plain: Any = PythonRespSerializer(6000, encoded)
    [packed] = CommandPacker().pack(*arguments)
    assert packed == b"".join(plain.pack(*arguments))


@pytest.mark.parametrize("size", [10, 10_000])
def test_what_redis_does_not_take(size: int) -> None:
    """It is redis-py's own error, and sends nothing. It may be a payload, and is not shown."""
    for argument in (object(), ["s3cr3t"], None, True):
        with pytest.raises(DataError) as caught:
            CommandPacker().pack("SET", "a", b"x" * size, argument)
        assert "s3cr3t" not in str(caught.value)


def test_callers_pack_with_it() -> None:
    """The connections of threads."""
    connection: Any = BoundedConnection(epoch=Epoch())
    assert isinstance(connection._command_packer, CommandPacker)  # noqa: SLF001
