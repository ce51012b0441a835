"""``receipts.py``: each code, with a ``LocalPulsar`` and in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_stargate import ProduceError, ProduceTimeout, produce
from celery_stargate.calls.memory import Memory
from celery_stargate.testing import LocalPulsar
from celery_stargate.testing.receipts import MemoryReceipts


@pytest.fixture
def pulsar() -> Iterator[LocalPulsar]:
    """A fresh one."""
    with LocalPulsar() as local:
        yield local


def _produce(pulsar: LocalPulsar, timeout: float = 10.0) -> str:
    url = f"{pulsar.url}/ws/v2/producer/persistent/public/default/orders"
    return produce(url, "lamp", timeout=timeout).status


def test_pulsar_refuses(pulsar: LocalPulsar) -> None:
    """One message, for good."""
    pulsar.receipts.fail_next()
    with pytest.raises(ProduceError) as caught:
        _produce(pulsar)
    assert (caught.value.status, caught.value.failure["code"]) == ("refused", "send-error:8")
    assert _produce(pulsar) == "stored"
    pulsar.assert_produced("orders", payload="lamp", count=1)


def test_a_handshake_is_refused(pulsar: LocalPulsar) -> None:
    """For good, or until it goes."""
    pulsar.receipts.fail_next(404)
    with pytest.raises(ProduceError) as caught:
        _produce(pulsar)
    assert caught.value.failure["code"] == "http-404"
    pulsar.receipts.fail_next(409)
    assert _produce(pulsar) == "stored"


def test_a_connection_is_closed(pulsar: LocalPulsar) -> None:
    """Before the receipt: the message goes again."""
    pulsar.receipts.fail_next(1011)
    assert _produce(pulsar) == "stored"
    pulsar.assert_produced("orders", count=2)
    with pytest.raises(ValueError, match="count must be 1, not 2"):
        pulsar.receipts.fail_next(1009, count=2)


def test_a_receipt_is_lost_or_late(pulsar: LocalPulsar) -> None:
    """The message is stored."""
    pulsar.receipts.fail_next("deadline")
    pulsar.receipts.hold()
    with pytest.raises(ProduceTimeout):
        _produce(pulsar, timeout=0.5)
    pulsar.assert_produced("orders", count=1)
    pulsar.receipts.release()
    assert _produce(pulsar) == "stored"


def test_codes_that_do_not_exist(pulsar: LocalPulsar) -> None:
    """Each error names those that do."""
    with pytest.raises(ValueError, match="one of 'deadline', 'send-error:8' or a number"):
        pulsar.receipts.fail_next("revoked")
    with pytest.raises(ValueError, match="503 is repeated .* one of 400, 401, 403, 404"):
        MemoryReceipts(Memory()).fail_next(503)
