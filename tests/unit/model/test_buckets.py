"""Which slots the buckets of lanes are in."""

from __future__ import annotations

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from celery_stargate.model.buckets import bucket_tag, bucket_tags, in_buckets

TAGS = ("0/16.60", "1/16.23", "2/16")


@pytest.mark.parametrize("count", [1, 2, 3, 16, 100, 256])
def test_the_slots_lie_evenly(count: int) -> None:
    """One bucket in each of so many equal parts of the slots, as the shards of a Cluster are."""
    plain, tags = bucket_tags(in_buckets("a:b", count))
    assert plain == "a:b"
    parts = [key_slot(tag.encode()) * count // REDIS_CLUSTER_HASH_SLOTS for tag in tags]
    assert parts == list(range(count))


def test_another_number_shares_no_tag() -> None:
    """Processes that do not agree do not mix their lanes."""
    assert not set(bucket_tags("p{16}")[1]) & set(bucket_tags("p{8}")[1])


def test_a_prefix_without_buckets() -> None:
    """Has no tags."""
    assert bucket_tags("stargate") == ("stargate", ())


def test_a_tag_stays_what_it_is() -> None:
    """Lanes must be found again by the next version."""
    assert bucket_tags("p{16}")[1][:3] == TAGS
    assert bucket_tag("p{16}", 17) == ("p", TAGS[1])
