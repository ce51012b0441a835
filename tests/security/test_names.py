"""Keys, topics and contexts that a careless program would give another meaning."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery

from celery_stargate import Acknowledger, InvalidMessage, Message, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.topic import Topic, producer_url
from celery_stargate.testing import LocalPulsar
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.rig import Reader
from tests.servers.fixtures import PulsarAddress, ServerAddress

NASTY = [
    *("{a}", "}{", "{}", "a:b:c", "*", "?", "[a-z]", "#0", "a#1", "a\\", "'", '"', "$(true)"),
    *("%2e%2e", "%2e", "%00", "%0d%0aX:y", "%", "%zz", "a?token=x", "a&b=c", "a;b", "+", "a+b"),
    *("é😀", "\u202eabc", "a\u0301", "İ", "ß", "-partition-0x", "__proto__", "a" * 200),
]
#: What no topic's name may have, and a key or a context may.
CONTROL = ["\r\nX-Injected: y", "\n", "\x00", "a\x00b", "\t", " ", "a b", "\x1b[31m", "\x7f"]
#: Names whose parts a URL would drop or join.
PATHS = ["..", ".", "../x", "a/../b", "a//b", "/a", "a/", "./a", "a/.", ""]


@pytest.fixture
def app(make_app: MakeApp, local: LocalPulsar) -> Iterator[Celery]:
    """An app whose lanes are owned here."""
    app = make_app(local.url, lease=1.0)
    with Acknowledger(app):
        yield app


def test_topics_of_any_name(
    app: Celery, local: LocalPulsar, redis_server: ServerAddress, prefix: str, run: Run
) -> None:
    """Each message comes to its topic and to no other; each lane has its own keys."""
    stargate = Stargate.of(app)
    run_id = uuid.uuid4().hex[:8]
    names = [f"persistent://public/default/{name}-{run_id}" for name in NASTY]
    for name in names:
        if not name.isprintable():
            with pytest.raises(InvalidMessage):
                stargate.produce("x", topic=name, timeout=20)
            continue
        receipt: Any = stargate.produce(name, topic=name, timeout=20)
        assert receipt.topic == name
        assert local.payloads(name) == [name.encode()]
        assert len(run("lanes", "--topic", name, "--json", app=app).lines) == 1
    with redis.Redis.from_url(redis_server.url) as client:
        keys = [key.decode() for key in client.scan_iter(count=1000)]
        mine = [key for key in keys if run_id in key]
    lanes = [Lane(name) for name in names if name.isprintable()]
    expected = tuple(lane.key(prefix, "") for lane in lanes)
    assert mine
    assert all(key.startswith((*expected, f"{prefix}:")) for key in mine)
    assert set(local.topics) >= {lane.topic for lane in lanes}


@pytest.mark.parametrize("name", [*CONTROL, *PATHS], ids=repr)
def test_topics_that_are_refused(
    app: Celery, local: LocalPulsar, redis_server: ServerAddress, prefix: str, name: str
) -> None:
    """In the caller, and nothing is recorded."""
    topic = f"persistent://public/default/{name}"
    task = app.tasks["celery_stargate.produce"]
    for call in (
        lambda: Stargate.of(app).produce("x", topic=topic, timeout=5),
        lambda: task.delay("x", topic=topic),
    ):
        with pytest.raises(InvalidMessage) as caught:
            call()
        assert str(caught.value).isprintable()
    assert local.topics == {}
    with redis.Redis.from_url(redis_server.url) as client:
        assert list(client.scan_iter(f"{prefix}:*persistent*")) == []


@pytest.mark.parametrize(
    "tenant", ["..", ".", "", "a b", "{a}", "a?b", "a#b", "a%2fb", "é", "a\r\nb", "a\x00"], ids=repr
)
def test_tenants_and_namespaces_are_pulsars(app: Celery, tenant: str) -> None:
    """They have a small alphabet."""
    for topic in (f"persistent://{tenant}/default/t", f"persistent://public/{tenant}/t"):
        with pytest.raises(InvalidMessage):
            Stargate.of(app).produce("x", topic=topic, timeout=5)


TEXTS = [*NASTY, *CONTROL, *PATHS[:-1], "\ufffe", "\ue000", "\U0010ffff", "x" * 500]


def test_keys_and_properties_of_any_text(app: Celery, local: LocalPulsar, topic: str) -> None:
    """They arrive as they were given."""
    stargate = Stargate.of(app)
    messages = [Message(payload=text, key=text, properties={text: text}) for text in TEXTS]
    stargate.produce(messages, topic=topic, timeout=30)
    found = local.messages(topic)
    assert [each.payload.decode() for each in found] == TEXTS
    assert [each.key for each in found] == TEXTS
    assert [dict(each.properties) for each in found] == [{text: text} for text in TEXTS]


def test_contexts_of_any_text(app: Celery, local: LocalPulsar, topic: str, run: Run) -> None:
    """A context is a caller's, too; its outcome is its own, and it can be shown."""
    stargate = Stargate.of(app)
    for text in TEXTS:
        context = f"{text}-{uuid.uuid4().hex[:6]}"
        try:
            receipt: Any = stargate.produce(text, topic=topic, context=context, timeout=20)
        except InvalidMessage as error:
            assert str(error).isprintable()
            continue
        assert receipt.context == context
        assert unicodedata.is_normalized("NFC", receipt.status)
    assert local.payloads(topic)[0] == TEXTS[0].encode()


def test_keys_and_topics_at_the_real_broker(
    make_app: MakeApp, pulsar: PulsarAddress, topic: str
) -> None:
    """The stand-in reads URLs in Python; Pulsar reads them in Java."""
    app = make_app(lease=1.0)
    texts = ["{}:*", "\r\nX: y", "a\x00b", "é😀", "..", "%2e%2e", "a/b", "?#&="]
    name = f"persistent://public/default/{{}}:*%2e%2e?#&=é😀{uuid.uuid4().hex[:8]}"
    with Acknowledger(app):
        messages = [Message(payload=text, key=text, properties={"p": text}) for text in texts]
        Stargate.of(app).produce(messages, topic=name, timeout=60)
        with Reader(pulsar.url, name) as reader:
            found = reader.take(len(texts))
    assert [each["payload"].decode() for each in found] == texts
    assert [each["key"] for each in found] == texts
    assert [each["properties"]["p"] for each in found] == texts


# No argument of a call changes the host.


@pytest.mark.parametrize(
    "topic",
    [
        *("//evil.example/a/b", "ws://evil.example/a/b", "http://evil.example/x/y"),
        *("persistent://@evil.example/b/c", "persistent://evil.example:80/b/c"),
        *("evil.example/b/c", "persistent://a/b/c?@evil.example/", "persistent://a/b/\\evil"),
        *("persistent://a/b/c#@evil.example", "persistent://a/b/..%2f..%2fevil.example"),
    ],
)
def test_a_topic_never_changes_the_host(topic: str) -> None:
    """It is refused, or a part of the path."""
    try:
        url = producer_url("ws://good.example:8080", Topic.parse(topic), {"producerName": topic})
    except InvalidMessage:
        return
    parts = urlsplit(url)
    assert parts.netloc == "good.example:8080"
    assert parts.path.startswith("/ws/v2/producer/")
    assert not parts.fragment
