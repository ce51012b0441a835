"""``deduplication.py``: the admin API is asked where it answers, a probe is sent where not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar import deduplication
from celery_stargate.pulsar.deduplication import PROBE, require_deduplication
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.sequence import DeduplicationUnavailable
from celery_stargate.testing import LocalPulsar

TOPIC = Topic.parse("orders")
PROBES = str(Topic.parse(PROBE))
ONCE = ProducerOptions(delivery="effectively_once")


@pytest.fixture(params=[True, False], ids=["deduplicates", "does not"])
def local(request: pytest.FixtureRequest) -> Iterator[LocalPulsar]:
    """A broker that does, and one that does not."""
    with LocalPulsar(deduplication=request.param) as local:
        yield local


@pytest.fixture
def deduplicating() -> Iterator[LocalPulsar]:
    """One that does."""
    with LocalPulsar(deduplication=True) as local:
        yield local


def does(local: LocalPulsar) -> bool:
    """Whether it does, as it was told when it was made."""
    topic = "persistent://public/default/by-hand"
    local.create_topic(topic)
    return bool(_stats(local, topic)["deduplicationStatus"] == "Enabled")


def _stats(local: LocalPulsar, topic: str) -> dict[str, Any]:
    from tests.servers.admin import PulsarAdmin

    return dict(PulsarAdmin(local.http_url).stats(topic))


def ask(
    url: str, topic: Topic = TOPIC, options: ProducerOptions = ONCE, **endpoint: Any
) -> list[Topic]:
    """Ask; return the topics for which producers were made."""
    where = Endpoint(url, **endpoint)
    made: list[Topic] = []

    def make(topic: Topic, options: ProducerOptions, query: Mapping[str, str]) -> Producer:
        made.append(topic)
        return Producer(where, topic, options, urlencode(query))

    async def main() -> None:
        async with asyncio.timeout(10):
            await require_deduplication(where, topic, options, make)

    asyncio.run(main())
    return made


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin API lets nobody look."""

    async def refuse(endpoint: Endpoint, path: str) -> tuple[int, dict[str, Any]]:
        return 403, {}

    monkeypatch.setattr(deduplication, "_ask", refuse)


def test_the_admin_api_tells(local: LocalPulsar) -> None:
    """Of a topic that is there, and no message is sent for it."""
    local.create_topic(str(TOPIC))
    if does(local):
        assert ask(local.url) == []
    else:
        with pytest.raises(DeduplicationUnavailable, match="does not deduplicate") as caught:
            ask(local.url)
        assert caught.value.code == "no-deduplication"
    assert local.payloads(str(TOPIC)) == []


def test_a_topic_that_is_not_there_yet_is_made(deduplicating: LocalPulsar) -> None:
    """By its first producer, which sends nothing."""
    assert ask(deduplicating.url) == [TOPIC]
    assert deduplicating.payloads(str(TOPIC)) == []


def test_partitions_that_nobody_named(deduplicating: LocalPulsar) -> None:
    """Told before anything is sent."""
    deduplicating.create_topic(str(TOPIC), partitions=2)
    with pytest.raises(DeduplicationUnavailable) as caught:
        ask(deduplicating.url)
    assert caught.value.code == "partitioned"
    options = ProducerOptions(delivery="effectively_once", partitions=2)
    assert ask(deduplicating.url, TOPIC.partition(1), options) == []


@pytest.mark.parametrize(
    ("has", "words"),
    [(None, "has no partitions"), (0, "has no partitions.*Leave"), (2, "has 2.*to 2")],
)
def test_partitions_that_the_topic_does_not_have(
    deduplicating: LocalPulsar, has: int | None, words: str
) -> None:
    """A producer of one would make a topic of its own, which nobody reads."""
    if has is not None:
        deduplicating.create_topic(str(TOPIC), partitions=has)
    options = ProducerOptions(delivery="effectively_once", partitions=3)
    with pytest.raises(DeduplicationUnavailable, match=words) as caught:
        ask(deduplicating.url, TOPIC.partition(2), options)
    assert caught.value.code == "no-partition"


@pytest.mark.usefixtures("closed")
def test_where_the_admin_api_is_closed_a_probe_tells(local: LocalPulsar) -> None:
    """One message, twice under one number, beside the topic."""
    expected = does(local)
    if expected:
        assert [topic.name for topic in ask(local.url)] == [PROBE, PROBE]
    else:
        with pytest.raises(DeduplicationUnavailable, match="does not deduplicate"):
            ask(local.url)
    assert len(local.payloads(PROBES)) == (1 if expected else 2)


def test_with_a_server_name_of_its_own_only_the_probe_is_sure(deduplicating: LocalPulsar) -> None:
    """``http.client`` can check no other name than the host's."""
    made = ask(deduplicating.url, tls_server_name="elsewhere")
    assert [topic.name for topic in made] == [PROBE, PROBE]


@pytest.mark.usefixtures("closed")
class TestProbe:
    """What can come of it."""

    def test_refused_for_good(self, deduplicating: LocalPulsar) -> None:
        """Nobody can tell: the error says what both ways said."""
        deduplicating.faults.refuse_handshakes(403)
        with pytest.raises(
            DeduplicationUnavailable, match=r"HTTP 403.*probe topic.*at_least_once"
        ) as caught:
            ask(deduplicating.url)
        assert caught.value.code == "no-deduplication"

    def test_the_topic_is_refused_as_well(self, deduplicating: LocalPulsar) -> None:
        """A token has expired, say: the failure and its policy are those of any such topic."""
        deduplicating.faults.refuse_handshakes(401, count=2)
        with pytest.raises(HandshakeRefused) as caught:
            ask(deduplicating.url)
        assert caught.value.permanent
        assert caught.value.status == 401

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (lambda faults: faults.refuse_handshakes(503), HandshakeRefused),
            (lambda faults: faults.fail_sends("not now"), LinkBroken),
            (lambda faults: faults.garbage_receipts(1, "{"), LinkBroken),
            (lambda faults: faults.close_after_frames(1), LinkBroken),
            (lambda faults: faults.ignore_frames(), LinkBroken),
        ],
        ids=["not now", "an error", "garbage", "cut", "silence"],
    )
    def test_not_just_now(
        self,
        deduplicating: LocalPulsar,
        monkeypatch: pytest.MonkeyPatch,
        fault: Callable[[Any], None],
        error: type[Exception],
    ) -> None:
        """It is asked again later."""
        monkeypatch.setattr(deduplication, "_TIMEOUT", 0.2)
        fault(deduplicating.faults)
        with pytest.raises(error):
            ask(deduplicating.url)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff"])
def test_an_answer_that_is_no_json_object_tells_nothing(
    deduplicating: LocalPulsar, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """The probe does."""

    class Connection:
        status = 200

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def request(self, *_: Any, **__: Any) -> None: ...

        def getresponse(self) -> Connection:
            return self

        def read(self, _: int) -> bytes:
            return body

        def close(self) -> None: ...

    monkeypatch.setattr(deduplication, "HTTPConnection", Connection)
    assert [topic.name for topic in ask(deduplicating.url)] == [PROBE, PROBE]
