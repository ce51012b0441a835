"""Message ids, against samples of a real broker and another reader."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate.testing import MessageId

INT64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CAwQADAA", MessageId(12, 0)),
        ("CBgQABgCMAA=", MessageId(24, 0, 2)),
        ("CBYQABgAMAA=", MessageId(22, 0, 0)),
        ("CBkQACACMAA=", MessageId(25, 0, -1, 2)),
        ("CAAQADAA", MessageId(0, 0)),
        ("CP///////////wEQ////////////ATAA", MessageId(-1, -1)),
    ],
)
def test_samples(text: str, expected: MessageId) -> None:
    """As a real 4.0.7 wrote them."""
    assert MessageId.decode(text) == expected
    assert expected.encode() == text


@given(INT64, INT64, st.integers(-1, 2**31 - 1), st.integers(-1, 2**31 - 1))
def test_there_and_back(ledger: int, entry: int, partition: int, batch_index: int) -> None:
    """All that fits."""
    one = MessageId(ledger, entry, partition, batch_index)
    assert MessageId.decode(one.encode()) == one


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(-1, 1000), st.integers(-1, 1000))
def test_the_native_client_agrees(
    ledger: int, entry: int, partition: int, batch_index: int
) -> None:
    """`pulsar-client` reads the same."""
    native = pytest.importorskip("pulsar").MessageId.deserialize(
        base64.b64decode(MessageId(ledger, entry, partition, batch_index).encode())
    )
    found = (native.ledger_id(), native.entry_id(), native.partition(), native.batch_index())
    assert found == (ledger, entry, partition, batch_index)


@pytest.mark.parametrize("text", ["", "@", "CAw=", "CA==", "EAA=", "/////////////////w=="])
def test_garbage(text: str) -> None:
    """Is a `ValueError`, whatever it is."""
    with pytest.raises(ValueError, match=r"."):
        MessageId.decode(text)


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    """Never another error."""
    with suppress(ValueError):
        MessageId.decode(base64.b64encode(data).decode())
