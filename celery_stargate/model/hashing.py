"""Which partition a key belongs to, as Pulsar's own clients choose it.

Source: ``JavaStringHash``, ``Murmur3_32Hash`` and ``MathUtils.signSafeMod`` in pulsar-client 4.0;
for ``BoostHash``, the only scheme that the Python client offers, ``boost::hash<std::string>`` of
Boost 1.81 and later, which pulsar-client 3.13 is built with.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["SCHEMES", "partition_of"]

_32 = 0xFFFF_FFFF
_64 = 0xFFFF_FFFF_FFFF_FFFF


def partition_of(key: str, partitions: int, scheme: str | None = None) -> int:
    """Return the partition of a key.

    Arguments:
        partitions: how many the topic has, at least 1.
        scheme: a name in :data:`SCHEMES`; None for the default of Pulsar's Java clients and of its
            WebSocket service, ``JavaStringHash``.

    Raises:
        KeyError: there is no such scheme.
    """
    hashed = SCHEMES[scheme or "JavaStringHash"](key)
    return (hashed & 0x7FFF_FFFF) % partitions


def _java_string(key: str) -> int:
    """Java's ``String.hashCode``: over UTF-16 code units."""
    units = key.encode("utf-16-be", "surrogatepass")
    hashed = 0
    for place in range(0, len(units), 2):
        hashed = 31 * hashed + (units[place] << 8 | units[place + 1]) & _32
    return hashed


def _murmur3(key: str) -> int:
    """MurmurHash3, x86, 32 bits, seed 0."""
    data = key.encode("utf-8", "surrogatepass")
    whole = len(data) & ~3
    hashed = 0
    for place in range(0, whole, 4):
        hashed ^= _murmur3_mix(int.from_bytes(data[place : place + 4], "little"))
        hashed = _rotate(hashed, 13) * 5 + 0xE654_6B64 & _32
    hashed ^= _murmur3_mix(int.from_bytes(data[whole:], "little")) ^ len(data)
    hashed = (hashed ^ hashed >> 16) * 0x85EB_CA6B & _32
    hashed = (hashed ^ hashed >> 13) * 0xC2B2_AE35 & _32
    return hashed ^ hashed >> 16


def _murmur3_mix(word: int) -> int:
    return _rotate(word * 0xCC9E_2D51 & _32, 15) * 0x1B87_3593 & _32


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & _32


def _boost(key: str) -> int:
    """The hash of a text in Boost.ContainerHash 1.81 and later, 64 bits, seed 0."""
    data = key.encode("utf-8", "surrogatepass")
    size = len(data)
    whole = size & ~7
    step = 0x9E37_79B9_7F4A_7C15
    turn = _boost_mix(step)
    hashed = turn ^ size
    words = [int.from_bytes(data[place : place + 8], "little") for place in range(0, whole, 8)]
    for word in [*words, _boost_tail(data[whole:])]:
        turn = turn + step & _64
        hashed ^= _boost_mix(word + turn & _64)
    return _boost_mix(hashed + turn & _64)


def _boost_mix(word: int) -> int:
    product = word * 0xDF44_2D22_CE48_59B9
    return product & _64 ^ product >> 64


def _boost_tail(rest: bytes) -> int:
    """Less than eight bytes as one number, read from both ends, which may overlap."""
    size = len(rest)
    if size >= 4:
        last = int.from_bytes(rest[size - 4 :], "little") << 8 * (size - 4)
        return last | int.from_bytes(rest[:4], "little")
    if size:
        middle, last_place = size - 1 & 2, size >> 1
        return rest[middle] << 8 * middle | rest[last_place] << 8 * last_place | rest[0]
    return 0


#: The hash function of each scheme, by Pulsar's name.
SCHEMES: dict[str, Callable[[str], int]] = {
    "JavaStringHash": _java_string,
    "Murmur3_32Hash": _murmur3,
    "BoostHash": _boost,
}
