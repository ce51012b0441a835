"""``client.py``: ``stargate.produce`` and ``aproduce`` in a process without any worker."""

from __future__ import annotations

import asyncio
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeout

from celery_stargate import (
    Acknowledger,
    ConfigurationError,
    ContextInUse,
    InvalidMessage,
    LaneFull,
    Message,
    ProduceError,
    ProduceTimeout,
    Receipt,
    Stargate,
    StoreUnavailable,
)
from celery_stargate.calls.inbox import Inbox
from celery_stargate.lanes.lane import Lane, lane_for
from celery_stargate.model.topic import Topic
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import WAIT, Proxy, Reader, Triggered, elapsed, read_back, wait_for
from tests.servers import redis as redis_module
from tests.servers.fixtures import PulsarAddress, ServerAddress, require
from tests.servers.redis import RedisServer


@pytest.mark.smoke
def test_produce_waits_for_the_receipt(
    stargate: Stargate, topic: str, pulsar: PulsarAddress
) -> None:
    """The receipt says where Pulsar keeps the message, and there it is."""
    receipt = stargate.produce("hello")
    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.topic, receipt.partition) == ("stored", topic, -1)
    with Reader(pulsar.url, topic) as reader:
        message = reader.next()
        assert message["payload"] == b"hello"
        assert message["messageId"] == receipt.message_id
        assert reader.rest() == []


FORMS: list[tuple[Any, dict[str, Any]]] = [
    ("täxt", {"payload": "täxt".encode()}),
    (b"\x00bytes\xff", {"payload": b"\x00bytes\xff"}),
    (("key", "payload"), {"payload": b"payload", "key": "key"}),
    (
        {"payload": b"..", "key": "k", "properties": {"a": "b"}},
        {"payload": b"..", "key": "k", "properties": {"a": "b"}},
    ),
    (
        Message(payload="m", event_time=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)),
        {"payload": b"m", "eventTime": "2026-01-02T03:04:05.678Z"},
    ),
    ("", {"payload": b""}),
]


@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_each_form_arrives(
    stargate: Stargate, topic: str, pulsar: PulsarAddress, form: Any, expected: dict[str, Any]
) -> None:
    """As one plain reader sees it."""
    stargate.produce(form)
    with Reader(pulsar.url, topic) as reader:
        message = reader.next()
    found: dict[str, Any] = {name: message.get(name) for name in expected}
    if "eventTime" in found:
        moment = datetime.fromisoformat(found.pop("eventTime"))
        expected = dict(expected)
        assert moment == datetime.fromisoformat(expected.pop("eventTime"))
    assert found == expected


def test_a_list_gives_its_receipts_in_order(
    stargate: Stargate, topic: str, pulsar: PulsarAddress
) -> None:
    """All forms in one list; a list of one is a list too."""
    receipts = stargate.produce([form for form, _ in FORMS])
    assert [type(each) for each in receipts] == [Receipt] * len(FORMS)
    with Reader(pulsar.url, topic) as reader:
        messages = reader.take(len(FORMS))
    assert [each["messageId"] for each in messages] == [each.message_id for each in receipts]
    assert [each["payload"] for each in messages] == [each["payload"] for _, each in FORMS]
    (one,) = stargate.produce(["one"])
    assert one.status == "stored"


@pytest.mark.smoke
def test_many_give_their_receipts_in_order(
    stargate: Stargate, topic: str, pulsar: PulsarAddress
) -> None:
    """Over several pipelines; each message is a context of its own, and all stand in order."""
    receipts = stargate.produce_many(f"{number}" for number in range(1200))
    assert [type(each) for each in receipts] == [Receipt] * 1200
    assert len({each.context for each in receipts}) == 1200
    with Reader(pulsar.url, topic) as reader:
        messages = reader.take(1200)
        assert reader.rest() == []
    assert [each["payload"] for each in messages] == [b"%d" % number for number in range(1200)]
    assert [each["messageId"] for each in messages] == [each.message_id for each in receipts]


def test_many_of_which_one_is_refused(make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
    """The others are stored, and the error says so of each."""
    stargate = Stargate.of(make_app(local.url))
    local.faults.fail_sends(
        "org.apache.pulsar.client.api.PulsarClientException$InvalidMessageException: too big",
        when=lambda frame: frame.payload == b"bad",
    )
    with pytest.raises(ProduceError) as caught:
        stargate.produce_many(["a", "bad", "c"])
    outcomes = caught.value.failure["outcomes"]
    assert [each["status"] for each in outcomes] == [
        "stored",
        "refused",
        "stored",
    ]
    assert caught.value.context == outcomes[1]["context"]
    assert local.payloads(topic) == [b"a", b"c"]


def test_many_with_a_callback_each(stargate: Stargate, app: Celery, triggered: Triggered) -> None:
    """The contexts come at once, and each callback gets its message's receipt."""
    contexts = stargate.produce_many(["a", "b", "c"], on_ack=app.signature("shop.stored"))
    receipts = [triggered.next()["args"][0] for _ in contexts]
    assert [each["context"] for each in receipts] == contexts
    assert [each["entry_id"] for each in receipts] == [0, 1, 2]
    assert triggered.none()


def test_many_that_nobody_can_send(make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
    """Their deadline passes, and the call ends: what was never sent is refused."""
    stargate = Stargate.of(make_app(local.url))
    local.faults.refuse_handshakes(503, count=None)
    with elapsed() as seconds, pytest.raises(ProduceTimeout) as caught:
        stargate.produce_many(["a", "b"], timeout=0.5)
    assert seconds() < 10
    assert [each["status"] for each in caught.value.failure["outcomes"]] == ["refused"] * 2
    assert local.payloads(topic) == []


def test_aproduce_waits_without_holding_the_loop(
    stargate: Stargate, topic: str, pulsar: PulsarAddress
) -> None:
    """Many at once in one loop, which goes on meanwhile."""

    async def produce() -> list[Any]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        single = await stargate.aproduce("first")
        several = await asyncio.gather(*(stargate.aproduce(f"{n}") for n in range(20)))
        listed = await stargate.aproduce(["a", "b"])
        ticking.cancel()
        assert ticks > 10
        return [single, *several, *listed]

    receipts = asyncio.run(produce())
    assert len({each.message_id for each in receipts}) == 23
    found = read_back(pulsar.url, topic, 23)
    assert found[0] == b"first"
    assert found[-2:] == [b"a", b"b"]
    assert sorted(found[1:-2]) == sorted(b"%d" % n for n in range(20))


def test_aproduce_with_a_callback_gives_the_context(
    stargate: Stargate, app: Celery, triggered: Triggered
) -> None:
    """At once; the callback comes when the receipt does."""
    context = asyncio.run(stargate.aproduce("x", on_ack=app.signature("shop.stored")))
    assert triggered.next()["args"][0]["context"] == context


def test_cancelling_aproduce_leaves_the_message_on_its_way(
    make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    """What is recorded cannot be taken back, and nobody waits for it any more."""
    stargate = Stargate.of(make_app(local.url))
    local.faults.hold_receipts()

    async def cancel() -> None:
        task = asyncio.ensure_future(stargate.aproduce("x"))
        await asyncio.to_thread(local.wait_for_messages, topic, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    local.faults.release_receipts()
    assert stargate.produce("y").status == "stored"
    assert local.payloads(topic) == [b"x", b"y"]
    assert stargate.runtime.inbox._waiting == {}  # noqa: SLF001


def test_many_threads_produce_at_once(
    stargate: Stargate, topic: str, pulsar: PulsarAddress
) -> None:
    """As a web server does: each gets its own receipt, and its own order is kept."""
    receipts: dict[tuple[int, int], Any] = {}

    def work(name: int) -> None:
        for number in range(10):
            receipts[name, number] = stargate.produce((str(name), f"{name}-{number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({each.message_id for each in receipts.values()}) == 80
    with Reader(pulsar.url, topic) as reader:
        messages = reader.take(80)
    by_id = {each["messageId"]: each["payload"].decode() for each in messages}
    assert all(
        by_id[each.message_id] == f"{name}-{number}" for (name, number), each in receipts.items()
    )
    for name in range(8):
        own = [each["payload"] for each in messages if each["key"] == str(name)]
        assert own == [f"{name}-{number}".encode() for number in range(10)]


def test_all_threads_of_a_process_share_one_inbox(
    stargate: Stargate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that first ask for it at the same moment: outcomes come to one inbox only."""
    both = threading.Barrier(2, timeout=20)
    plain = Inbox.__init__

    def slow(self: Inbox, *args: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait()
        plain(self, *args)

    monkeypatch.setattr(Inbox, "__init__", slow)
    found: list[Inbox] = []
    threads = [
        threading.Thread(target=lambda: found.append(stargate.runtime.inbox)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert found[0] is found[1] is stargate.runtime.inbox


class TestCallbacks:
    """``on_ack`` and ``on_error``: the context comes back at once."""

    @pytest.mark.smoke
    def test_on_ack_gets_the_receipt(
        self, stargate: Stargate, app: Celery, triggered: Triggered, topic: str
    ) -> None:
        """As the first argument, as a task whose id is made from the context."""
        signature = app.signature("shop.stored", args=("more",), kwargs={"a": 1})
        context = stargate.produce("x", on_ack=signature)
        assert isinstance(context, str)
        callback = triggered.next()
        assert (callback["task"], callback["kwargs"]) == ("shop.stored", {"a": 1})
        receipt, more = callback["args"]
        assert more == "more"
        assert (receipt["context"], receipt["topic"]) == (context, topic)
        assert receipt["status"] == "stored"
        assert uuid.UUID(callback["id"]).version == 5
        assert triggered.none()

    def test_of_a_list_it_gets_all_receipts_once(
        self, stargate: Stargate, app: Celery, triggered: Triggered
    ) -> None:
        """In order."""
        stargate.produce(["a", "b", "c"], on_ack=app.signature("shop.stored"))
        receipts = triggered.next()["args"][0]
        assert [each["status"] for each in receipts] == ["stored"] * 3
        assert [each["entry_id"] for each in receipts] == [0, 1, 2]
        assert triggered.none()

    def test_on_error_gets_the_failure_and_on_ack_nothing(
        self, stargate: Stargate, app: Celery, triggered: Triggered
    ) -> None:
        """With Pulsar's own sentence."""
        context = stargate.produce(
            "x",
            topic="persistent://public/nowhere/t",
            on_ack=app.signature("shop.stored"),
            on_error=app.signature("shop.refused"),
        )
        callback = triggered.next()
        assert callback["task"] == "shop.refused"
        failure = callback["args"][0]
        assert (failure["context"], failure["status"]) == (context, "refused")
        assert (failure["code"], failure["reason"]) == ("http-404", "HTTP 404: Namespace not found")
        assert uuid.UUID(callback["id"]).version == 5
        assert triggered.none()

    def test_groups_and_chains_are_triggered_with_ids_fixed_at_the_call(
        self, stargate: Stargate, app: Celery, triggered: Triggered
    ) -> None:
        """So that a repeat after a crash publishes the same tasks."""
        from celery import chain, group

        stargate.produce("x", on_ack=group(app.signature("g.a"), app.signature("g.b")))
        both = [triggered.next(), triggered.next()]
        assert {each["task"] for each in both} == {"g.a", "g.b"}
        assert all(each["args"][0]["status"] == "stored" for each in both)
        stargate.produce("x", on_ack=chain(app.signature("c.a"), app.signature("c.b")))
        first = triggered.next()
        assert first["task"] == "c.a"
        assert [each["task"] for each in first["embed"]["chain"]] == ["c.b"]

    def test_a_context_of_ones_own(
        self, stargate: Stargate, app: Celery, triggered: Triggered
    ) -> None:
        """And a second call with it while it is pending is refused."""
        context = f"order-{uuid.uuid4().hex}"
        assert stargate.produce("x", context=context, on_ack=app.signature("a")) == context
        assert triggered.next()["args"][0]["context"] == context


def test_a_context_that_is_pending_is_refused(
    make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    """The first one keeps its place, and the second message is not sent."""
    app = make_app(local.url)
    stargate = Stargate.of(app)
    local.faults.hold_receipts()
    stargate.produce("one", context="mine", on_ack=app.signature("a"))
    with pytest.raises(ContextInUse, match="'mine'"):
        stargate.produce("two", context="mine")
    with pytest.raises(ContextInUse):
        stargate.produce("three", context="mine", on_ack=app.signature("a"))
    local.faults.clear()
    assert Triggered(app).next()["args"][0]["context"] == "mine"
    assert local.payloads(topic) == [b"one"]


def test_a_second_call_for_a_context_takes_nothing_from_the_first(
    make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    """The first one waits in the same process, and still gets its receipt."""
    stargate = Stargate.of(make_app(local.url))
    local.faults.hold_receipts()
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(_try(stargate, "one", context="mine")))
    first.start()
    local.wait_for_messages(topic, 1)
    with pytest.raises(ContextInUse):
        stargate.produce("two", context="mine")
    local.faults.clear()
    first.join(20)
    assert [type(each) for each in found] == [Receipt], found


class TestRefused:
    """The call raises what Pulsar says."""

    def test_a_namespace_that_is_not_there(self, stargate: Stargate) -> None:
        """At once, not after a timeout."""
        with elapsed() as seconds, pytest.raises(ProduceError) as caught:
            stargate.produce("x", topic="persistent://public/nowhere/t")
        assert seconds() < 5
        assert not isinstance(caught.value, ProduceTimeout)
        assert caught.value.status == "refused"
        assert caught.value.reason == "HTTP 404: Namespace not found"

    def test_one_of_a_list(self, make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
        """The error holds each message's outcome."""
        stargate = Stargate.of(make_app(local.url))
        local.faults.fail_sends(
            "org.apache.pulsar.client.api.PulsarClientException$InvalidMessageException: too big",
            when=lambda frame: frame.payload == b"b",
        )
        with pytest.raises(ProduceError) as caught:
            stargate.produce(["a", "b", "c"])
        outcomes = caught.value.failure["outcomes"]
        assert [each.get("status") for each in outcomes] == ["stored", "refused", "stored"]
        assert outcomes[1]["status"] == "refused"
        assert "InvalidMessageException" in outcomes[1]["reason"]
        assert local.payloads(topic) == [b"a", b"c"]

    def test_a_bad_message_records_nothing(self, stargate: Stargate, topic: str) -> None:
        """And in a list the index is named."""
        bad: Any
        for bad in (object(), {"payload": "x", "nokey": 1}, ("a", "b", "c"), []):
            with pytest.raises(InvalidMessage):
                stargate.produce(bad)
        with pytest.raises(InvalidMessage, match="message 1 of the list") as caught:
            stargate.produce(["fine", 5])
        assert caught.value.index == 1
        assert stargate.lanes.registry.survey()[1] == []

    def test_a_timeout_that_is_none(self, stargate: Stargate) -> None:
        """Also checked before anything is recorded."""
        bad: Any
        for bad in (0, -1, "5", True, float("inf"), float("nan"), timedelta(0)):
            with pytest.raises(InvalidMessage):
                stargate.produce("x", timeout=bad)
        assert stargate.lanes.registry.survey()[1] == []
        assert stargate.produce("x", timeout=timedelta(seconds=20)).status == "stored"


class TestTimeout:
    """A call that waits ends at its deadline, and says whether the message may be there."""

    def test_pulsar_away_is_refused_within_the_bound(
        self, make_app: MakeApp, topic: str, refusing_port: int
    ) -> None:
        """It was never sent."""
        stargate = Stargate.of(make_app(f"ws://127.0.0.1:{refusing_port}"))
        with elapsed() as seconds, pytest.raises(ProduceTimeout) as caught:
            stargate.produce("x", timeout=0.7)
        assert 0.6 < seconds() < 4
        assert caught.value.status == "refused"
        assert "before it could be sent" in caught.value.reason
        assert stargate.lanes.backlog(Lane(topic)) == 0

    def test_pulsar_paused_is_unknown(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """It was sent, and no receipt came; a late one harms nothing."""
        stargate = Stargate.of(make_app(local.url))
        local.faults.hold_receipts()
        with elapsed() as seconds, pytest.raises(ProduceTimeout) as caught:
            stargate.produce("x", timeout=0.7)
        assert seconds() < 4
        assert caught.value.status == "unknown"
        local.faults.clear()
        assert stargate.produce("y").status == "stored"
        assert local.payloads(topic) == [b"x", b"y"]

    def test_a_list_tells_which_were_stored(self, make_app: MakeApp, local: LocalPulsar) -> None:
        """Two receipts came before the pause."""
        stargate = Stargate.of(make_app(local.url))
        local.faults.drop_receipts(1)
        with pytest.raises(ProduceTimeout) as caught:
            stargate.produce(["a", "b", "c"], timeout=0.7)
        outcomes = caught.value.failure["outcomes"]
        assert [each.get("status") for each in outcomes] == ["unknown", "stored", "stored"]
        assert caught.value.status == "unknown"

    def test_aproduce_ends_too(self, make_app: MakeApp, local: LocalPulsar) -> None:
        """Within the same bound."""
        stargate = Stargate.of(make_app(local.url))
        local.faults.hold_receipts()
        with elapsed() as seconds, pytest.raises(ProduceTimeout) as caught:
            asyncio.run(stargate.aproduce("x", timeout=0.7))
        assert seconds() < 4
        assert caught.value.status == "unknown"

    def test_the_waiter_sees_to_it_where_nobody_owns_the_lane(
        self, make_app: MakeApp, local: LocalPulsar
    ) -> None:
        """A worker is known, so no acknowledger starts here; but it is dead."""
        stargate = Stargate.of(make_app(local.url, lease=30.0))
        # A worker that was killed: alive for the others until its time is over.
        client = stargate.runtime.connections.sync()
        key = f"{stargate.settings.prefix}:{{registry}}:workers"
        client.zadd(key, {"dead": (client.time()[0] + 60) * 1000})
        with elapsed() as seconds, pytest.raises(ProduceTimeout) as caught:
            stargate.produce("x", timeout=0.5)
        assert seconds() < 4
        assert caught.value.status == "refused"
        with pytest.raises(ProduceTimeout):
            asyncio.run(stargate.aproduce("x", timeout=0.5))

    def test_a_worker_that_dies_while_a_call_waits_is_replaced(
        self, make_app: MakeApp, topic: str, pulsar: PulsarAddress
    ) -> None:
        """The process that waits then owns lanes itself."""
        stargate = Stargate.of(make_app(lease=1.0))
        client = stargate.runtime.connections.sync()
        key = f"{stargate.settings.prefix}:{{registry}}:workers"
        client.zadd(key, {"dying": (client.time()[0] + 1) * 1000})
        assert stargate.produce("x", timeout=15).status == "stored"
        assert read_back(pulsar.url, topic, 1) == [b"x"]


class TestRedis:
    """Redis away, back again, or not there at all."""

    def test_away_is_told_in_bounded_time(
        self, make_app: MakeApp, pulsar: PulsarAddress, refusing_port: int
    ) -> None:
        """By produce, with a callback or without one, and by delay."""
        app = make_app(pulsar.url, redis_url=f"redis://127.0.0.1:{refusing_port}/0")
        stargate = Stargate.of(app)
        task = app.tasks["celery_stargate.produce"]
        calls: list[Any] = [
            lambda: stargate.produce("x"),
            lambda: stargate.produce("x", on_ack=app.signature("a")),
            lambda: asyncio.run(stargate.aproduce("x")),
            lambda: task.delay("x"),
        ]
        for call in calls:
            with elapsed() as seconds, pytest.raises(StoreUnavailable):
                call()
            assert seconds() < 5

    def test_calls_to_a_frozen_redis_do_not_wait_one_behind_the_other(
        self, make_app: MakeApp, tmp_path: Path
    ) -> None:
        """Eight threads with a second each: each ends about a second later."""
        require(redis_module.missing_reason())
        with RedisServer(tmp_path / "redis") as server:
            app = make_app("ws://127.0.0.1:1", redis_url=server.url)
            stargate = Stargate.of(app)
            client = stargate.runtime.connections.sync()
            key = f"{stargate.settings.prefix}:{{registry}}:workers"
            client.zadd(key, {"alive": (client.time()[0] + 3600) * 1000})
            server.pause()
            try:
                with ThreadPoolExecutor(8) as threads, elapsed() as seconds:
                    calls = [threads.submit(stargate.produce, "x", timeout=1) for _ in range(8)]
                    for call in calls:
                        assert isinstance(call.exception(), StoreUnavailable)
                assert seconds() < 4
            finally:
                server.resume()

    @pytest.mark.parametrize("frozen", [False, True])
    def test_delay_is_told_in_bounded_time_where_results_are_in_that_redis_too(
        self, make_app: MakeApp, tmp_path: Path, frozen: bool
    ) -> None:
        """Celery's Redis backend would try to subscribe for 20 s first."""
        require(redis_module.missing_reason())
        with RedisServer(tmp_path / "redis") as server:
            conf = {"broker_url": server.url, "result_backend": server.url}
            app = make_app("ws://127.0.0.1:1", redis_url=None, conf=conf)
            task = app.tasks["celery_stargate.produce"]
            # So that its backend had a connection, as in a process that has run for a while.
            waited_for = task.delay("x")
            with pytest.raises(CeleryTimeout):
                waited_for.get(timeout=0.1)
            if frozen:
                server.pause()
            else:
                server.kill()
            with elapsed() as seconds, pytest.raises(StoreUnavailable):
                task.delay("x")
            assert seconds() < 8
            server.resume() if frozen else server.start()
            # The second process of a web server has had no connection yet.
            other = make_app("ws://127.0.0.1:1", redis_url=None, conf=conf)
            server.kill()
            with elapsed() as seconds, pytest.raises(StoreUnavailable):
                other.tasks["celery_stargate.produce"].delay("x")
            assert seconds() < 8
            # Celery unsubscribes when the result is collected, and tries for 20 s, too.
            server.start()
            waited_for.forget()

    @pytest.mark.parametrize("count", [150, 300])
    def test_more_threads_than_connections(
        self, make_app: MakeApp, tmp_path: Path, count: int, topic: str
    ) -> None:
        """They wait for one another's connections, and make no more than the setting says."""
        require(redis_module.missing_reason())
        with RedisServer(tmp_path / "redis") as server:
            app = make_app("ws://127.0.0.1:1", redis_url=server.url, redis_max_connections=50)
            task = app.tasks["celery_stargate.produce"]
            begin = threading.Barrier(count)

            def call() -> None:
                begin.wait(WAIT)
                for _ in range(3):
                    task.apply_async(("x",), ignore_result=True)

            with ThreadPoolExecutor(count) as threads:
                for each in [threads.submit(call) for _ in range(count)]:
                    each.result(60)
            assert Stargate.of(app).lanes.backlog(Lane(topic)) == 3 * count
            with redis.Redis.from_url(server.url) as client:
                assert client.info("clients")["connected_clients"] <= 51

    def test_a_waiting_call_outlives_a_restart_of_redis(
        self, make_app: MakeApp, local: LocalPulsar, tmp_path: Path, topic: str
    ) -> None:
        """With an append-only file nothing is forgotten, and the call gets its receipt."""
        require(redis_module.missing_reason())
        with RedisServer(
            tmp_path / "redis", appendonly=True, config={"appendfsync": "always"}
        ) as server:
            stargate = Stargate.of(make_app(local.url, redis_url=server.url, lease=1.0))
            assert stargate.produce("first").status == "stored"
            local.faults.hold_receipts()
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(_try(stargate, "second")))
            thread.start()
            local.wait_for_messages(topic, 2)
            server.kill()
            # The call looks for an owner each half lease: it sees that Redis is away.
            thread.join(0.8)
            server.start()
            local.faults.clear()
            thread.join(20)
            assert isinstance(found[0], Receipt), found
            stargate.close()

    def test_a_waiting_call_outlives_a_time_without_redis(
        self, make_app: MakeApp, local: LocalPulsar, redis_server: ServerAddress, topic: str
    ) -> None:
        """Another process owns the lane; this one loses Redis for longer than it looks away."""
        port = urlsplit(redis_server.url).port
        assert port is not None
        with Proxy(port) as proxy, Acknowledger(make_app(local.url)):
            url = f"redis://127.0.0.1:{proxy.port}{urlsplit(redis_server.url).path}"
            stargate = Stargate.of(make_app(local.url, redis_url=url, lease=0.5))
            wait_for(lambda: stargate.lanes.registry.survey()[0])
            local.faults.hold_receipts()
            found: list[Any] = []
            recorder, recorded = stargate.runtime.recorder, threading.Event()
            put = recorder.put

            def put_and_tell(*args: Any, **options: Any) -> None:
                put(*args, **options)
                recorded.set()

            vars(recorder)["put"] = put_and_tell
            thread = threading.Thread(target=lambda: found.append(_try(stargate, "x")))
            thread.start()
            assert recorded.wait(20)
            local.wait_for_messages(topic, 1)
            proxy.close()
            # Long enough for it to look for an owner, in vain.
            thread.join(1.5)
            assert found == []
            proxy.open()
            local.faults.clear()
            thread.join(20)
            assert isinstance(found[0], Receipt), found
            stargate.close()

    def test_a_call_that_failed_is_not_waited_for_any_more(
        self,
        make_app: MakeApp,
        local: LocalPulsar,
        tmp_path: Path,
        topic: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No thread asks Redis for ever."""
        monkeypatch.setattr("celery_stargate.calls.runtime._GIVE_UP_AFTER", 0.3)
        require(redis_module.missing_reason())
        with RedisServer(tmp_path / "redis") as server:
            stargate = Stargate.of(make_app(local.url, redis_url=server.url, lease=1.0))
            local.faults.hold_receipts()
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(_try(stargate, "x", timeout=1)))
            thread.start()
            local.wait_for_messages(topic, 1)
            server.kill()
            thread.join(20)
            assert isinstance(found[0], ProduceTimeout), found
            assert found[0].status == "unknown"
            assert stargate.runtime.inbox._waiting == {}  # noqa: SLF001
            stargate.close()


def _try(stargate: Stargate, message: Any, **options: Any) -> Any:
    try:
        return stargate.produce(message, **options)
    except Exception as error:  # noqa: BLE001  # looked at by the test
        return error


class TestConfiguration:
    """What is missing is told at once."""

    def test_no_url(self, make_app: MakeApp) -> None:
        """It names the setting."""
        app = make_app(None)
        with pytest.raises(ConfigurationError, match="stargate_url is not set"):
            Stargate.of(app).produce("x")
        with pytest.raises(ConfigurationError, match="stargate_url is not set"):
            app.tasks["celery_stargate.produce"].delay("x")

    def test_no_topic(self, make_app: MakeApp) -> None:
        """It says where to give one."""
        app = make_app("ws://127.0.0.1:1", topic=None)
        with pytest.raises(ConfigurationError, match="stargate_topic"):
            Stargate.of(app).produce("x")

    def test_no_redis(self, make_app: MakeApp) -> None:
        """Neither by setting, nor as the backend's or broker's."""
        app = make_app(
            "ws://127.0.0.1:1",
            conf={
                "broker_url": "memory://",
                "result_backend": None,
                "broker_transport_options": {},
                "result_backend_transport_options": {},
            },
        )
        with pytest.raises(ConfigurationError, match="no Redis for the lanes"):
            Stargate.of(app).produce("x")
        with pytest.raises(ConfigurationError, match="no Redis for the lanes"):
            app.tasks["celery_stargate.produce"].delay("x")

    def test_no_result_backend_where_one_must_wait(
        self, make_app: MakeApp, pulsar: PulsarAddress, topic: str
    ) -> None:
        """``get()`` says so at once; ``stargate.produce`` needs none."""
        app = make_app(
            conf={"result_backend": None, "result_backend_transport_options": {}},
        )
        with Acknowledger(app):
            result = app.tasks["celery_stargate.produce"].delay("x")
            with pytest.raises(ConfigurationError, match="no result backend"):
                result.get(timeout=5)
            assert Stargate.of(app).produce("y").status == "stored"
        assert read_back(pulsar.url, topic, 2) == [b"x", b"y"]


class TestLanes:
    """A topic with several lanes."""

    @pytest.fixture
    def app(self, make_app: MakeApp) -> Celery:
        """Four of them."""
        return make_app(lanes=4)

    def test_a_key_keeps_its_lane_and_its_order(
        self, stargate: Stargate, app: Celery, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Two hundred messages of ten keys, recorded in one order, over four lanes."""
        done = Triggered(app)
        for number in range(200):
            key = str(number % 10)
            on_ack = app.signature("last") if number == 199 else app.signature("one")
            stargate.produce((key, f"{key}:{number}"), on_ack=on_ack)
        with Reader(pulsar.url, topic) as reader:
            messages = reader.take(200)
            assert reader.rest() == []
        for key in map(str, range(10)):
            own = [each["payload"].decode() for each in messages if each["key"] == key]
            assert own == [f"{key}:{number}" for number in range(int(key), 200, 10)]
        chosen = {lane_for(Topic.parse(topic), 4, str(key), "c") for key in range(10)}
        assert len(chosen) > 1
        assert set(stargate.lanes.registry.survey()[1]) >= chosen
        assert done.next()["task"] in ("one", "last")

    def test_a_list_over_all_lanes_gives_its_receipts_in_order(
        self, stargate: Stargate, topic: str, pulsar: PulsarAddress
    ) -> None:
        """One call, one result."""
        receipts = stargate.produce([(str(number), f"{number}") for number in range(40)])
        with Reader(pulsar.url, topic) as reader:
            messages = reader.take(40)
            assert reader.rest() == []
        by_id = {each["messageId"]: each["payload"] for each in messages}
        assert [by_id[each.message_id] for each in receipts] == [b"%d" % n for n in range(40)]
        assert {each.context for each in receipts} == {receipts[0].context}

    def test_a_list_over_all_lanes_triggers_once(
        self, stargate: Stargate, app: Celery, triggered: Triggered
    ) -> None:
        """With all receipts."""
        stargate.produce(
            [(str(number), "x") for number in range(12)], on_ack=app.signature("shop.stored")
        )
        callback = triggered.next()
        assert len(callback["args"][0]) == 12
        assert triggered.none()

    def test_nothing_of_it_stays_in_redis(self, stargate: Stargate, topic: str) -> None:
        """Neither the list's context nor those of its messages."""
        stargate.produce([(str(number), "x") for number in range(12)])
        client = stargate.runtime.connections.sync()
        prefix = stargate.settings.prefix

        def left() -> int:
            return sum(
                client.hlen(Lane(topic, index).key(prefix, part))
                for index in range(4)
                for part in ("contexts", "outcomes")
            )

        wait_for(lambda: left() == 0, 5.0, "finished contexts")

    def test_one_message_that_was_refused_fails_the_list(
        self, make_app: MakeApp, local: LocalPulsar
    ) -> None:
        """With all outcomes in order, whichever lanes they took."""
        stargate = Stargate.of(make_app(local.url, lanes=4))
        local.faults.fail_sends(
            "org.apache.pulsar.client.api.PulsarClientException$NotAllowedException: no",
            when=lambda frame: frame.payload == b"7",
        )
        with pytest.raises(ProduceError) as caught:
            stargate.produce([(str(number), f"{number}") for number in range(12)])
        outcomes = caught.value.failure["outcomes"]
        assert [index for index, each in enumerate(outcomes) if each["status"] == "refused"] == [7]
        assert len(outcomes) == 12

    def test_past_the_deadline_it_tells_each_messages_outcome(
        self, make_app: MakeApp, local: LocalPulsar
    ) -> None:
        """Not one failure for all of them."""
        stargate = Stargate.of(make_app(local.url, lanes=4))
        local.faults.ignore_frames()
        with elapsed() as seconds, pytest.raises(ProduceTimeout) as caught:
            stargate.produce([(str(number), f"{number}") for number in range(8)], timeout=1.0)
        assert seconds() < 8
        outcomes = caught.value.failure["outcomes"]
        assert [each["status"] for each in outcomes] == ["unknown"] * 8


class TestBacklog:
    """``max_backlog``: a lane that is full refuses, and records nothing of the call."""

    def test_a_full_lane(self, make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
        """Pulsar takes nothing; the third message is refused in the caller, a list whole."""
        app = make_app(local.url, max_backlog=2)
        stargate = Stargate.of(app)
        local.faults.ignore_frames()
        on_ack = app.signature("a")
        stargate.produce("1", on_ack=on_ack)
        with pytest.raises(LaneFull):
            stargate.produce(["2", "3"], on_ack=on_ack)
        stargate.produce("4", on_ack=on_ack)
        with pytest.raises(LaneFull) as caught:
            app.tasks["celery_stargate.produce"].delay("5")
        assert (caught.value.backlog, caught.value.limit) == (2, 2)
        assert stargate.lanes.backlog(Lane(topic)) == 2
        local.faults.clear()
        local.drop_connections()
        Triggered(app).next()
        Triggered(app).next()
        assert local.payloads(topic) == [b"1", b"4"]

    def test_a_list_over_lanes_of_which_one_is_full(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """Nothing of it is recorded in the others."""
        app = make_app(local.url, max_backlog=2, lanes=4)
        stargate = Stargate.of(app)
        local.faults.ignore_frames()
        on_ack = app.signature("a")
        for _ in range(2):
            stargate.produce(("k", "full"), on_ack=on_ack)
        with pytest.raises(LaneFull):
            stargate.produce([(str(n), "x") for n in range(4)] + [("k", "x")], on_ack=on_ack)
        assert sum(stargate.lanes.backlog(Lane(topic, index)) for index in range(4)) == 2


def test_close_ends_what_produce_started(make_app: MakeApp) -> None:
    """Its thread, and its leases at once; the next call starts it anew."""
    stargate = Stargate.of(make_app(lease=60.0))
    stargate.produce("x")
    before = {thread.name for thread in threading.enumerate()}
    assert "stargate" in before
    stargate.close()
    assert "stargate" not in {thread.name for thread in threading.enumerate()}
    assert stargate.lanes.registry.survey()[0] == 0
    with elapsed() as seconds:
        assert stargate.produce("y").status == "stored"
    # Long before a lease would have passed.
    assert seconds() < 15
