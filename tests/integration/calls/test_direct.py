"""``direct.py``: ``celery_stargate.produce`` by URL, with no app, no Redis and no worker."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import celery_stargate
from celery_stargate import (
    ConfigurationError,
    InvalidMessage,
    ProduceError,
    ProduceTimeout,
    Receipt,
)
from celery_stargate.testing import LocalPulsar
from tests.integration.rig import Reader, elapsed, read_back, topic_path
from tests.servers import credentials
from tests.servers.fixtures import PulsarAddress, require


def url_of(service: str, topic: str, query: str = "") -> str:
    """A producer's URL."""
    return f"{service}/ws/v2/producer/{topic_path(topic)}{query}"


@pytest.mark.smoke
def test_one_message_and_a_list(pulsar: PulsarAddress, topic: str) -> None:
    """A receipt, and receipts in order."""
    url = url_of(pulsar.url, topic)
    receipt = celery_stargate.produce(url, "one")
    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.topic) == ("stored", topic)
    receipts = celery_stargate.produce(url, ["two", b"three", ("k", "four"), {"payload": "five"}])
    with Reader(pulsar.url, topic) as reader:
        messages = reader.take(5)
        assert reader.rest() == []
    assert [each["payload"] for each in messages] == [b"one", b"two", b"three", b"four", b"five"]
    assert [each["messageId"] for each in messages] == [
        each.message_id for each in [receipt, *receipts]
    ]
    assert messages[3]["key"] == "k"


def test_thousands_in_one_call_keep_their_order(pulsar: PulsarAddress, topic: str) -> None:
    """More than may be in flight at once."""
    payloads = [f"{number}" for number in range(3000)]
    receipts = celery_stargate.produce(url_of(pulsar.url, topic), payloads, timeout=60)
    assert len({each.message_id for each in receipts}) == 3000
    assert read_back(pulsar.url, topic, 3000) == [each.encode() for each in payloads]


def test_the_query_is_given_to_pulsar(pulsar: PulsarAddress, topic: str) -> None:
    """And a bad one is Pulsar's to refuse."""
    good = url_of(pulsar.url, topic, "?producerName=mine&compressionType=LZ4")
    assert celery_stargate.produce(good, "x").status == "stored"
    with pytest.raises(ProduceError, match="Invalid compressionType lz4"):
        celery_stargate.produce(url_of(pulsar.url, topic, "?compressionType=lz4"), "x")


def test_a_non_persistent_topic_says_that_it_keeps_nothing(
    pulsar: PulsarAddress, topic: str
) -> None:
    """Stored would be a lie."""
    topic = topic.replace("persistent", "non-persistent", 1)
    assert celery_stargate.produce(url_of(pulsar.url, topic), "x").status == "transient"


def test_inside_a_running_loop(pulsar: PulsarAddress, topic: str) -> None:
    """It has a loop of its own, in a thread of its own."""

    async def call() -> Any:
        return celery_stargate.produce(url_of(pulsar.url, topic), "x")

    assert asyncio.run(call()).status == "stored"


def test_from_many_threads(pulsar: PulsarAddress, topic: str) -> None:
    """Each has a socket of its own."""
    found: list[Any] = []

    def work() -> None:
        found.append(celery_stargate.produce(url_of(pulsar.url, topic), ["a", "b"]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({each.message_id for pair in found for each in pair}) == 8


class TestErrors:
    """What goes wrong is told, and how."""

    def test_pulsars_own_sentence(self, pulsar: PulsarAddress) -> None:
        """At once; for a list with each message's outcome."""
        url = url_of(pulsar.url, "persistent://public/nowhere/t")
        with elapsed() as seconds, pytest.raises(ProduceError) as caught:
            celery_stargate.produce(url, ["a", "b"])
        assert seconds() < 5
        assert caught.value.status == "refused"
        assert "HTTP 404: Namespace not found" in caught.value.reason
        assert [each["code"] for each in caught.value.failure["outcomes"]] == ["http-404"] * 2

    @pytest.mark.parametrize(
        "url",
        [
            "http://h:1/ws/v2/producer/persistent/public/default/t",
            "ws://h:1/ws/v2/reader/persistent/public/default/t",
            "ws://h:1/ws/v2/producer/persistent/public/t",
            "ws:///ws/v2/producer/persistent/public/default/t",
            "nonsense",
            "",
        ],
    )
    def test_a_url_that_is_no_producers(self, url: str) -> None:
        """Before anything is sent."""
        with pytest.raises(ConfigurationError, match="a producer's URL is"):
            celery_stargate.produce(url, "x")

    def test_a_bad_message_sends_nothing(self, local: LocalPulsar, topic: str) -> None:
        """Not even those before it in the list."""
        url = url_of(local.url, topic)
        with pytest.raises(InvalidMessage, match="message 1 of the list"):
            celery_stargate.produce(url, ["fine", 5])
        with pytest.raises(InvalidMessage, match="limit is 1024"):
            celery_stargate.produce(url, "x" * 2000, max_frame_size=1024)
        with pytest.raises(InvalidMessage, match="timeout"):
            celery_stargate.produce(url, "x", timeout=0)
        assert local.counters.handshakes == 0

    def test_nobody_listens(self, topic: str, refusing_port: int) -> None:
        """Refused, within the time given."""
        url = url_of(f"ws://127.0.0.1:{refusing_port}", topic)
        with elapsed() as seconds, pytest.raises(ProduceTimeout) as caught:
            celery_stargate.produce(url, "x", timeout=timedelta(seconds=0.5))
        assert 0.4 < seconds() < 8
        assert caught.value.status == "refused"

    def test_no_receipt_is_unknown(self, local: LocalPulsar, topic: str) -> None:
        """It may be there."""
        local.faults.drop_receipts(1)
        with pytest.raises(ProduceTimeout) as caught:
            celery_stargate.produce(url_of(local.url, topic), ["a", "b"], timeout=0.5)
        outcomes = caught.value.failure["outcomes"]
        assert outcomes[0]["status"] == "unknown"
        assert outcomes[1]["status"] == "stored"

    def test_a_frozen_server_ends_in_time(self, local: LocalPulsar, topic: str) -> None:
        """It does not answer a close frame either, and that must not add its own patience."""
        local.faults.drop_receipts()
        url = url_of(local.url, topic)

        def freeze() -> None:
            local.wait_for_messages(topic, 1)
            local.faults.freeze()

        thread = threading.Thread(target=freeze)
        thread.start()
        with elapsed() as seconds, pytest.raises(ProduceTimeout):
            celery_stargate.produce(url, "x", timeout=1)
        thread.join(10)
        # Far below the ten seconds that websockets waits for a close frame.
        assert seconds() < 8

    def test_a_token_that_is_missing_or_wrong(self, topic: str) -> None:
        """401; with the right one it is stored; and no text holds it."""
        with LocalPulsar(tokens={"g00d": "admin"}) as local:
            url = url_of(local.url, topic)
            for token in (None, "wr0ng", lambda: "wr0ng"):
                with pytest.raises(ProduceError) as caught:
                    celery_stargate.produce(url, "x", token=token)
                assert "HTTP 401" in str(caught.value)
                assert "wr0ng" not in str(caught.value)
            assert celery_stargate.produce(url, "x", token="g00d").status == "stored"
            assert celery_stargate.produce(url, "x", token=lambda: "g00d").status == "stored"

    def test_tls(self, topic: str, tmp_path: Path) -> None:
        """With the authority and a client's certificate; files that are none are named."""
        require(credentials.tls_missing_reason())
        tls = credentials.make_tls(tmp_path, require_client=True)
        with LocalPulsar(ssl_context=tls.server_context()) as local:
            url = url_of(local.url, topic)
            files: Any = {
                "tls_ca": str(tls.ca),
                "tls_certificate": str(tls.client_certificate),
                "tls_key": str(tls.client_key),
            }
            assert celery_stargate.produce(url, "x", **files).status == "stored"
            with pytest.raises(ConfigurationError, match="tls_ca"):
                celery_stargate.produce(url, "x", tls_ca=str(tmp_path / "nowhere"))
            with pytest.raises(ConfigurationError, match="tls_key"):
                celery_stargate.produce(url, "x", tls_certificate=str(tls.client_certificate))


class TestFaults:
    """It sends again what has no receipt, until the time is over."""

    def test_a_cut_connection(self, local: LocalPulsar, topic: str) -> None:
        """All receipts come; what had none was sent again, in order."""
        local.faults.close_after_frames(30)
        payloads = [f"{number}" for number in range(100)]
        receipts = celery_stargate.produce(url_of(local.url, topic), payloads)
        assert len(receipts) == 100
        found = [each.decode() for each in local.payloads(topic)]
        assert list(dict.fromkeys(found)) == payloads

    def test_a_name_that_is_still_taken(self, local: LocalPulsar, topic: str) -> None:
        """409 passes."""
        local.faults.refuse_handshakes(409, count=2)
        assert celery_stargate.produce(url_of(local.url, topic), "x").status == "stored"

    def test_a_transient_error_is_tried_again(self, local: LocalPulsar, topic: str) -> None:
        """And a permanent one is told."""
        local.faults.fail_sends(
            "org.apache.pulsar.client.api.PulsarClientException$TimeoutException: late", count=1
        )
        assert celery_stargate.produce(url_of(local.url, topic), "x").status == "stored"
        local.faults.fail_sends(
            "org.apache.pulsar.client.api.PulsarClientException$NotAllowedException: no", count=1
        )
        with pytest.raises(ProduceError, match="NotAllowedException") as caught:
            celery_stargate.produce(url_of(local.url, topic), "y")
        assert caught.value.status == "refused"

    @pytest.mark.parametrize("text", ["<html>", "", "[]", '{"result":5}', "null", "{" * 5000])
    def test_what_is_no_receipt(self, local: LocalPulsar, topic: str, text: str) -> None:
        """Nobody can tell of which message it speaks: all are sent again."""
        local.faults.garbage_receipts(1, text)
        assert celery_stargate.produce(url_of(local.url, topic), "x").status == "stored"
