"""Effectively once, on the real broker: each message once and in order, whatever is cut meanwhile;
what the broker cannot keep is refused."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pulsar as native
import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError

from celery_stargate import Acknowledger, ProduceError, ProduceTimeout, Stargate
from celery_stargate.calls import prepare as call_module
from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.hashing import partition_of
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar import deduplication as deduplication_module
from celery_stargate.pulsar.sequence import producer_query
from celery_stargate.testing import LocalPulsar
from tests.contract.wire import Broker, frame, ids
from tests.faults.proxy import ToxicProxy
from tests.integration.conftest import MakeApp
from tests.integration.rig import Proxy, read_back, wait_for
from tests.servers.fixtures import PulsarAddress

ONCE = "effectively_once"

#: What a text frame begins with (RFC 6455, section 5.2).
TEXT_FRAME = b"\x81"
#: The id that the WebSocket service gives a copy that the broker dropped: ledger and entry -1.
NOT_STORED = "CP///////////wEQ////////////ATAA"


@pytest.fixture
def proxy(pulsar: PulsarAddress) -> Iterator[Proxy]:
    """What stands between us and the broker, to be cut."""
    port = urlsplit(pulsar.url).port
    assert port is not None
    with Proxy(port) as proxy:
        yield proxy


@pytest.fixture
def app(make_app: MakeApp, proxy: Proxy) -> Celery:
    """An app whose way to the broker can be cut."""
    return make_app(f"ws://127.0.0.1:{proxy.port}", delivery=ONCE)


def send(app: Celery, payloads: list[Any], **options: Any) -> list[Any]:
    """Publish with ``delay``."""
    task = app.tasks["celery_stargate.produce"]
    return [task.delay(payload, **options) for payload in payloads]


def statuses(results: list[Any], timeout: float = 30.0) -> set[str]:
    """Wait for all receipts; return their statuses."""
    return {result.get(timeout=timeout)["status"] for result in results}


def texts(count: int, begin: int = 0) -> list[str]:
    """Payloads to tell apart."""
    return [str(number) for number in range(begin, begin + count)]


def held(pulsar: PulsarAddress, topic: str, count: int) -> list[str]:
    """What the topic holds: at least ``count`` messages, in order."""
    return [payload.decode() for payload in read_back(pulsar.url, topic, count)]


def generation(app: Celery, topic: str, index: int = 0) -> str:
    """The generation of a lane."""
    stargate = Stargate.of(app)
    client = stargate.runtime.connections.sync()
    found: Any = client.hget(Lane(topic, index).key(stargate.settings.prefix, "meta"), "generation")
    return (found or b"").decode()


class TestOnce:
    """Cuts, take-overs, gaps, errors, false oks."""

    def test_cut_again_and_again(
        self, app: Celery, proxy: Proxy, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Nothing stands there twice, nothing is missing; what was stored before a cut says so."""
        results = send(app, texts(3000))
        stats = Stargate.of(app).lanes
        with Acknowledger(app):
            for left in (2500, 1800, 1100, 400):
                wait_for(lambda left=left: stats.backlog(Lane(topic)) < left)  # type: ignore[misc]
                proxy.cut()
            assert statuses(results) <= {"stored", "deduplicated"}
        assert held(pulsar, topic, 3000) == texts(3000)

    def test_a_receipt_that_was_lost(
        self, app: Celery, proxy: Proxy, topic: str, pulsar: PulsarAddress
    ) -> None:
        """The message goes again, is not stored again, and its receipt says so."""
        with Acknowledger(app):
            lose_a_receipt(proxy)
            (result,) = send(app, ["0"])
            receipt = result.get(timeout=20)
        assert proxy.lost == 1
        assert receipt["status"] == "deduplicated"
        assert receipt["message_id"] is None
        assert held(pulsar, topic, 1) == ["0"]

    def test_the_next_owner_goes_on_with_the_numbers(
        self, app: Celery, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Under the same name: the broker knows what the last one sent."""
        for begin in range(0, 90, 30):
            results = send(app, texts(30, begin))
            with Acknowledger(app):
                assert statuses(results) == {"stored"}
                name = f"stargate-0-{generation(app, topic)}"
                publishers = pulsar.admin.stats(topic)["publishers"]
                assert [each["producerName"] for each in publishers] == [name]
        assert held(pulsar, topic, 90) == texts(90)

    def test_a_gap(
        self, make_app: MakeApp, proxy: Proxy, topic: str, pulsar: PulsarAddress
    ) -> None:
        """A message that is never sent leaves a hole in the numbers: what comes after it goes by
        another connection, which begins with its number, and can be sent again."""
        app = make_app(f"ws://127.0.0.1:{proxy.port}", delivery=ONCE)
        task = app.tasks["celery_stargate.produce"]
        with Acknowledger(app, revoked=lambda context: context == "revoked"):
            assert statuses(send(app, texts(10))) == {"stored"}
            revoked = task.apply_async(("x",), task_id="revoked")
            with pytest.raises(TaskRevokedError):
                revoked.get(timeout=20)
            lose_a_receipt(proxy)
            assert statuses(send(app, texts(1, 10))) == {"deduplicated"}
            assert statuses(send(app, texts(10, 11))) == {"stored"}
        assert held(pulsar, topic, 21) == texts(21)

    def test_late_ones_leave_gaps(self, app: Celery, topic: str, pulsar: PulsarAddress) -> None:
        """A message whose deadline passes before it is sent is refused, and no name is lost."""
        before = send(app, texts(10))
        (late,) = send(app, ["late"], delivery_timeout=0.01)
        after = send(app, texts(10, 10))
        with Acknowledger(app):
            with pytest.raises(ProduceTimeout) as caught:
                late.get(timeout=20)
            assert caught.value.status == "refused"
            assert statuses(before + after) == {"stored"}
            name = generation(app, topic)
            assert statuses(send(app, texts(10, 20))) == {"stored"}
            assert generation(app, topic) == name
        assert held(pulsar, topic, 30) == texts(30)

    def test_a_gap_in_full_flight(
        self, make_app: MakeApp, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Revoked ones among many, found as they are read."""
        app = make_app(delivery=ONCE)
        results = send(app, texts(500))
        revoked = {results[number].id for number in (0, 7, 8, 250, 499)}
        with Acknowledger(app, revoked=lambda context: context in revoked):
            wanted = [result for result in results if result.id not in revoked]
            assert statuses(wanted) == {"stored"}
        expected = [text for text in texts(500) if results[int(text)].id not in revoked]
        assert held(pulsar, topic, len(expected)) == expected

    def test_an_error_receipt(
        self,
        app: Celery,
        proxy: Proxy,
        topic: str,
        pulsar: PulsarAddress,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The broker's proxy refuses a message and takes no number for it: all behind it in flight
        have other numbers than the lane's, and what is sent after that has its own again."""
        before = send(app, texts(200))
        with monkeypatch.context() as patch:
            patch.setattr(call_module, "encode_frame", _no_base64)
            (bad,) = send(app, ["bad"])
        after = send(app, texts(200, 200))
        with Acknowledger(app):
            with pytest.raises(ProduceError, match="Base64") as caught:
                bad.get(timeout=20)
            assert caught.value.failure["code"] == "send-error:7"
            assert statuses(before + after) == {"stored"}
            lose_a_receipt(proxy)
            assert statuses(send(app, texts(1, 400))) == {"deduplicated"}
        assert held(pulsar, topic, 401) == texts(401)

    def test_a_transient_error_receipt(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """Its message goes again under another name, for its number may hide it; none is there
        twice."""
        app = make_app(local.url, delivery=ONCE)
        local.faults.fail_sends(
            "org.apache.pulsar.client.api.PulsarClientException$MemoryBufferIsFullError: not now",
            when=lambda frame: frame.payload == b"50",
            count=1,
        )
        results = send(app, texts(200))
        with Acknowledger(app):
            assert statuses(results) == {"stored"}
        found = [payload.decode() for payload in local.payloads(topic)]
        assert sorted(found, key=int) == texts(200)
        names = {message.producer for message in local.messages(topic)}
        assert len(names) == 2

    def test_a_false_ok(self, app: Celery, topic: str, pulsar: PulsarAddress) -> None:
        """A Redis that came back with an older state: the name's numbers are used. The broker drops
        what is new and says ok; nobody believes it."""
        assert statuses_of_first(app, topic)
        used = producer_query(0, generation(app, topic), 100)
        with Broker(pulsar.url, pulsar.http_url).producer(topic, **used) as producer:
            ids(producer.ask(frame(b"from the lost time")))
        results = send(app, texts(50))
        name = generation(app, topic)
        with Acknowledger(app):
            assert statuses(results) == {"stored"}
        assert generation(app, topic) != name
        assert held(pulsar, topic, 52) == ["first", "from the lost time", *texts(50)]

    def test_what_pulsar_itself_sends_again(
        self, make_app: MakeApp, topic: str, pulsar: PulsarAddress
    ) -> None:
        """When a topic is unloaded, Pulsar's client in the WebSocket service sends again what has
        no receipt, and the broker drops the copies: `ok`, and nothing stored by that send. We sent
        each message once, and it stands there once. (In a fault run these were 305 copies.)
        """
        port = urlsplit(pulsar.url).port
        assert port is not None
        changed = 0

        def change(frames: list[bytes]) -> list[bytes]:
            nonlocal changed
            receipts = [json.loads(each[2:]) for each in frames if each[:1] == TEXT_FRAME]
            # One is stored on this connection for all to see.
            again = [each for each in receipts if int(each["context"].rpartition("-")[2]) > 0]
            changed += len(again)
            for each in again:
                each["messageId"] = NOT_STORED
            texts = [json.dumps(each).encode() for each in receipts]
            return [bytes((0x81, len(each))) + each for each in texts]

        with ToxicProxy(port) as link:
            link.frames = change
            app = make_app(f"ws://127.0.0.1:{link.port}", delivery=ONCE)
            task = app.tasks["celery_stargate.produce"]
            results = [
                task.apply_async((each,), task_id=f"m-{number}")
                for number, each in enumerate(texts(100))
            ]
            with Acknowledger(app):
                assert statuses(results) == {"stored", "deduplicated"}
        assert changed == 99
        assert held(pulsar, topic, 100) == texts(100)

    def test_lists(self, app: Celery, topic: str, pulsar: PulsarAddress) -> None:
        """A list's messages have numbers of their own, one after another."""
        results = send(app, [texts(20), texts(20, 20)])
        with Acknowledger(app):
            for result in results:
                assert {each["status"] for each in result.get(timeout=20)} == {"stored"}
        assert held(pulsar, topic, 40) == texts(40)


def lose_a_receipt(proxy: Proxy) -> None:
    """Cut the connection in the place of the answer to the next message."""
    proxy.lose_answer_to(lambda data: data[:1] == TEXT_FRAME)


def _no_base64(message: object, context: str, *_: object) -> bytes:
    """A frame that no caller can make."""
    return json.dumps({"payload": "%%%", "context": context}).encode()


def statuses_of_first(app: Celery, topic: str) -> bool:
    """Publish one message, so that the lane has a generation."""
    with Acknowledger(app):
        return statuses(send(app, ["first"])) == {"stored"}


class TestPartitions:
    """One lane for each partition."""

    def test_once_and_in_order_of_each_key(
        self, make_app: MakeApp, proxy: Proxy, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Cut in the middle; each key's messages stand in its partition, in order."""
        pulsar.admin.create_partitioned_topic(topic, 3)
        app = make_app(f"ws://127.0.0.1:{proxy.port}", delivery=ONCE, partitions=3)
        keys = [f"key-{number}" for number in range(20)]
        messages = [(keys[number % 20], str(number)) for number in range(1500)]
        results = send(app, messages)
        with Acknowledger(app):
            for left in (900, 300):
                wait_for(lambda left=left: _backlog(app, topic, 3) < left)  # type: ignore[misc]
                proxy.cut()
            receipts = [result.get(timeout=30) for result in results]
        assert {receipt["status"] for receipt in receipts} <= {"stored", "deduplicated"}
        for (key, _), receipt in zip(messages, receipts, strict=True):
            assert receipt["partition"] == partition_of(key, 3)
            assert receipt["topic"] == topic
        for partition in range(3):
            expected = [text for key, text in messages if partition_of(key, 3) == partition]
            assert held(pulsar, f"{topic}-partition-{partition}", len(expected)) == expected

    def test_a_list_over_partitions_makes_no_gaps(
        self, make_app: MakeApp, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Its place in the first lane takes no numbers there: no connection is made for it."""
        pulsar.admin.create_partitioned_topic(topic, 2)
        app = make_app(delivery=ONCE, partitions=2)
        lists = [[(f"k{key}", f"{turn}-{key}") for key in range(8)] for turn in range(10)]
        with Acknowledger(app) as acknowledger:
            for each in lists:
                (result,) = send(app, [each])
                assert [one["status"] for one in result.get(timeout=20)] == ["stored"] * 8
            assert acknowledger.running
        for partition in range(2):
            wanted = [
                text for each in lists for key, text in each if partition_of(key, 2) == partition
            ]
            assert held(pulsar, f"{topic}-partition-{partition}", len(wanted)) == wanted

    def test_a_topic_without_partitions_gets_none(
        self, make_app: MakeApp, topic: str, pulsar: PulsarAddress
    ) -> None:
        """A producer of one would make a topic that nobody reads, and get receipts for it."""
        app = make_app(delivery=ONCE, partitions=3)
        with Acknowledger(app):
            (result,) = send(app, [("a", "1")])
            with pytest.raises(ProduceError) as caught:
                result.get(timeout=20)
        assert caught.value.failure["code"] == "no-partition"
        assert not [each for each in pulsar.admin.topics("public/default") if topic in each]

    def test_a_broker_that_makes_topics_with_partitions(
        self, make_app: MakeApp, pulsar: PulsarAddress
    ) -> None:
        """It is asked as Pulsar's clients ask: it makes the topic, and not a partition alone."""
        namespace = f"public/partitioned-{uuid.uuid4().hex}"
        pulsar.admin.create_namespace(namespace)
        policy = {"allowAutoTopicCreation": True, "topicType": "partitioned"}
        pulsar.admin.call(
            "POST",
            f"namespaces/{namespace}/autoTopicCreation",
            policy | {"defaultNumPartitions": 3},
        )
        topic = f"persistent://{namespace}/orders"
        app = make_app(delivery=ONCE, partitions=3, topic=topic)
        with Acknowledger(app):
            assert statuses(send(app, [("a", "1"), ("b", "2"), ("c", "3")])) == {"stored"}
        assert pulsar.admin.partitions(topic) == 3

    @pytest.mark.parametrize("scheme", ["JavaStringHash", "Murmur3_32Hash"])
    def test_the_broker_chooses_the_same_for_a_thousand_keys(
        self, topic: str, pulsar: PulsarAddress, scheme: str
    ) -> None:
        """The WebSocket service's own Java client is the judge."""
        pulsar.admin.create_partitioned_topic(topic, 7)
        keys = _keys()
        broker = Broker(pulsar.url, pulsar.http_url)
        with broker.producer(topic, hashingScheme=scheme) as producer:
            receipts = producer.ask(*(frame(key=key, context=str(n)) for n, key in enumerate(keys)))
        places = {int(one["context"]): ids([one])[0].partition for one in receipts}
        assert [places[n] for n in range(1000)] == [partition_of(key, 7, scheme) for key in keys]

    def test_pulsar_client_chooses_the_same_for_a_thousand_keys(
        self, topic: str, pulsar: PulsarAddress
    ) -> None:
        """By the C++ client's scheme, the only one that its Python one offers."""
        pulsar.admin.create_partitioned_topic(topic, 7)
        client = native.Client(
            pulsar.service_url, logger=native.ConsoleLogger(native.LoggerLevel.Error)
        )
        try:
            producer = client.create_producer(topic)
            keys = _keys()
            chosen = [producer.send(b"", partition_key=key).partition() for key in keys]
        finally:
            client.close()
        assert chosen == [partition_of(key, 7, "BoostHash") for key in keys]


def _keys() -> list[str]:
    draw = random.Random(7)
    letters = "abcdefgh0123-_ßλ€😀"
    return ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(1000)]


def _backlog(app: Celery, topic: str, lanes: int) -> int:
    return sum(Stargate.of(app).lanes.backlog(Lane(topic, index)) for index in range(lanes))


class TestRefused:
    """What the broker cannot keep is told at once, and nothing is sent."""

    @pytest.fixture
    def plain(self, pulsar: PulsarAddress) -> str:
        """A topic in a namespace without deduplication."""
        namespace = f"public/plain-{uuid.uuid4().hex[:8]}"
        pulsar.admin.create_namespace(namespace)
        pulsar.admin.set_namespace_deduplication(namespace, enabled=False)
        return f"persistent://{namespace}/orders"

    @pytest.fixture(params=["admin", "probe"])
    def way(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """How the broker is asked: by its admin API, or where that is closed by a probe."""
        way = str(request.param)
        if way == "probe":

            async def closed(endpoint: object, path: str) -> tuple[int, dict[str, Any]]:
                return 403, {}

            monkeypatch.setattr(deduplication_module, "_ask", closed)
        return way

    def test_a_broker_that_does_not_deduplicate(
        self, make_app: MakeApp, plain: str, pulsar: PulsarAddress, way: str
    ) -> None:
        """The error says what to set."""
        app = make_app(delivery=ONCE, topic=plain)
        with Acknowledger(app):
            (result,) = send(app, ["a"])
            with pytest.raises(ProduceError, match="brokerDeduplicationEnabled") as caught:
                result.get(timeout=20)
        assert caught.value.status == "refused"
        assert caught.value.failure["code"] == "no-deduplication"
        if way == "admin":
            assert pulsar.admin.stats(plain)["msgInCounter"] == 0
        else:
            assert "stargate-deduplication-probe" in str(pulsar.admin.topics(namespace_of(plain)))

    @pytest.mark.usefixtures("way")
    def test_a_broker_that_does(self, app: Celery) -> None:
        """By either way."""
        with Acknowledger(app):
            assert statuses(send(app, ["a"])) == {"stored"}

    def test_one_that_begins_to(self, make_app: MakeApp, plain: str, pulsar: PulsarAddress) -> None:
        """When it is set right, the next message goes; the worker need not be started again."""
        app = make_app(delivery=ONCE, topic=plain)
        with Acknowledger(app):
            (result,) = send(app, ["a"])
            with pytest.raises(ProduceError):
                result.get(timeout=20)
            pulsar.admin.set_namespace_deduplication(namespace_of(plain), enabled=True)

            def goes() -> bool:
                (result,) = send(app, ["b"])
                try:
                    return bool(result.get(timeout=20)["status"] == "stored")
                except ProduceError:
                    return False

            assert wait_for(goes)

    @pytest.mark.usefixtures("way")
    def test_partitions_that_nobody_named(
        self, make_app: MakeApp, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Each has numbers of its own: the error says how many lanes it takes."""
        pulsar.admin.create_partitioned_topic(topic, 2)
        app = make_app(delivery=ONCE)
        with Acknowledger(app):
            results = send(app, [("a", "1"), ("b", "2"), ("c", "3")])
            codes = set()
            for result in results:
                try:
                    codes.add(result.get(timeout=20)["status"])
                except ProduceError as error:
                    codes.add(error.failure["code"])
        assert "partitioned" in codes
        assert codes <= {"partitioned", "stored"}

    def test_a_topic_that_is_not_persistent(self, make_app: MakeApp) -> None:
        """Refused in the caller."""
        topic = "non-persistent://public/default/orders"
        app = make_app(delivery=ONCE, topic=topic)
        with pytest.raises(ConfigurationError, match="needs a persistent topic"):
            send(app, ["a"])


def namespace_of(topic: str) -> str:
    """Return ``tenant/namespace``."""
    parsed = Topic.parse(topic)
    return f"{parsed.tenant}/{parsed.namespace}"


def test_a_redis_that_goes_back_under_a_living_owner(
    app: Celery, topic: str, pulsar: PulsarAddress
) -> None:
    """As after a failover that lost the last second: the next messages are given numbers that were
    used. The owner sees it, and sends them under another name; none is taken for an old one."""
    stargate = Stargate.of(app)
    client = stargate.runtime.connections.sync()
    key = Lane(topic).key(stargate.settings.prefix, "meta")
    with Acknowledger(app):
        assert statuses(send(app, texts(10))) == {"stored"}
        older: Any = client.hgetall(key)
        assert statuses(send(app, texts(10, 10))) == {"stored"}
        before = generation(app, topic)
        client.delete(Lane(topic).key(stargate.settings.prefix, "log"))
        client.hset(key, mapping=older)
        results = send(app, texts(10, 20))
        assert statuses(results) == {"stored"}
        assert generation(app, topic) != before
    assert held(pulsar, topic, 30) == texts(30)
