"""Shards: rows of one key always belong to the same one, so one relay hands them over in order."""

from __future__ import annotations

import uuid
from zlib import crc32

__all__ = ["SHARDS", "shard_of"]

#: Fixed: rows keep the number that they were written with.
SHARDS = 32


def shard_of(topic: str, key: str | None, row_id: uuid.UUID) -> int:
    """Return the shard of a row: by topic and key, or by its UUID where it has no key."""
    text = str(row_id) if key is None else f"{topic}\n{key}"
    return crc32(text.encode()) % SHARDS
