"""``hashing.py``: known hashes. Pulsar's own choices are asked for in the integration tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate.model.hashing import SCHEMES, partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [("", 0), ("a", 97), ("hello", 99162322), ("key-1", 101943363), ("😀", 1772899)],
)
def test_java_strings(key: str, hashed: int) -> None:
    """As ``"…".hashCode()`` prints them."""
    assert SCHEMES["JavaStringHash"](key) == hashed


@pytest.mark.parametrize(
    ("key", "hashed"),
    [("", 0), ("a", 0x3C2569B2), ("abc", 0xB3DD93FA), ("hello", 0x248BFA47), ("test", 0xBA6BD213)],
)
def test_murmur3(key: str, hashed: int) -> None:
    """The published values for seed 0."""
    assert SCHEMES["Murmur3_32Hash"](key) == hashed


@pytest.mark.parametrize(
    ("key", "partition"),
    [
        ("a", 13),
        ("ab", 17),
        ("abc", 91),
        ("abcd", 50),
        ("abcde", 49),
        ("abcdefg", 67),
        ("abcdefgh", 19),
        ("abcdefghi", 51),
        ("abcdefghijklmnop", 71),
        ("ßλ😀", 16),
    ],
)
def test_boost(key: str, partition: int) -> None:
    """What pulsar-client 3.13 chose of 101 partitions, for each length that is read otherwise."""
    assert partition_of(key, 101, "BoostHash") == partition


@given(st.text(), st.integers(1, 1024), st.sampled_from([*SCHEMES, None]))
def test_any_text_has_a_partition(key: str, partitions: int, scheme: str | None) -> None:
    """Lone surrogates, too."""
    assert 0 <= partition_of(key, partitions, scheme) < partitions
    assert partition_of(key, 1, scheme) == 0


def test_the_default_is_javas() -> None:
    """As the WebSocket service has it."""
    assert partition_of("hello", 7) == 99162322 % 7
