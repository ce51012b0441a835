"""``remote.py``: what a test reads from a Pulsar that it knows by its URL alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from unittest import SkipTest

import pytest

from celery_stargate import Message, produce
from celery_stargate.testing import LocalPulsar
from celery_stargate.testing.remote import RemotePulsar


@pytest.fixture
def local() -> Iterator[LocalPulsar]:
    """A fresh one."""
    with LocalPulsar() as found:
        yield found


def _produce(pulsar: LocalPulsar, *messages: Message) -> None:
    url = f"{pulsar.url}/ws/v2/producer/persistent/public/default/orders"
    produce(url, list(messages), timeout=10)


def test_messages_of_this_test(local: LocalPulsar) -> None:
    """Whole, in order; those from before are left out."""
    _produce(local, Message("old"))
    time.sleep(0.002)  # publish times are milliseconds
    pulsar = RemotePulsar(local.url)
    _produce(local, Message("lamp", key="k", properties={"a": "b"}), Message("chair"))
    assert pulsar.payloads("orders") == [b"lamp", b"chair"]
    [found] = pulsar.assert_produced("orders", payload="lamp", key="k", properties={"a": "b"})
    assert found.topic == "persistent://public/default/orders"
    pulsar.aliases["mine"] = found.topic
    assert len(pulsar.messages("mine")) == 2
    with pytest.raises(AssertionError, match="expected 3 messages"):
        pulsar.assert_produced("orders", count=3, timeout=0)


def test_a_token(local: LocalPulsar) -> None:
    """Is sent, where one is given."""
    with LocalPulsar(tokens={"secret": "admin"}) as guarded:
        assert RemotePulsar(guarded.url, "secret").messages("orders") == []


def test_faults_skip_a_test(local: LocalPulsar) -> None:
    """No real Pulsar has them."""
    pulsar = RemotePulsar(local.url)
    for name in ("faults", "receipts"):
        with pytest.raises(SkipTest, match="no faults on demand"):
            getattr(pulsar, name)
