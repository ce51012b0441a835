"""Buckets: the lanes of a Redis Cluster in groups, each of which is in one slot with all its keys.

On a single server there are no buckets: each lane has a hash tag of its own.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["bucket_tag", "bucket_tags", "in_buckets"]

#: How many slots a Cluster has.
_SLOTS = 16_384


def in_buckets(prefix: str, count: int) -> str:
    """Return the prefix of keys that are in buckets: ``stargate{16}``.

    A prefix of the settings has no brace, so the two cannot be mistaken for each other.

    Arguments:
        prefix: what all keys begin with (``stargate_prefix``).
        count: how many buckets there are.
    """
    return f"{prefix}{{{count}}}"


def bucket_tag(prefix: str, bucket: int) -> tuple[str, str]:
    """Return a prefix without its number of buckets, and the hash tag of one of them.

    Arguments:
        prefix: made by :func:`in_buckets`.
        bucket: its number, from 0; larger numbers begin anew.
    """
    plain, tags = bucket_tags(prefix)
    return plain, tags[bucket % len(tags)]


@lru_cache(maxsize=256)
def bucket_tags(prefix: str) -> tuple[str, tuple[str, ...]]:
    """Return a prefix without its number of buckets, and the hash tags of all of them.

    The tags name the number, so that processes with another one share no key. The buckets' slots
    lie evenly among all slots, as the shards of a Cluster do.

    Arguments:
        prefix: made by :func:`in_buckets`, or without buckets; then there are no tags.
    """
    plain, brace, count = prefix.partition("{")
    return plain, tuple(_tags(int(count.rstrip("}")))) if brace else ()


def _tags(count: int) -> Iterator[str]:
    for bucket in range(count):
        salt = 0
        tag = f"{bucket}/{count}"
        while _slot(tag) * count // _SLOTS != bucket:
            salt += 1
            tag = f"{bucket}/{count}.{salt}"
        yield tag


def _slot(tag: str) -> int:
    """Return the slot of the keys with a hash tag, as Redis computes it."""
    return binascii.crc_hqx(tag.encode(), 0) % _SLOTS
