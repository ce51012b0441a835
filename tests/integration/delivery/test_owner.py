"""``delivery/owner.py``: every message is stored and settled whatever Pulsar, Redis and the network
do."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery

from celery_stargate import Acknowledger, ProduceError, ProduceTimeout, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import Proxy, Triggered, elapsed, wait_for
from tests.servers import redis as redis_module
from tests.servers.fixtures import PulsarAddress, ServerAddress, require
from tests.servers.redis import RedisServer

TRANSIENT = "org.apache.pulsar.client.api.PulsarClientException$TimeoutException: not now"
PERMANENT = "org.apache.pulsar.client.api.PulsarClientException$NotAllowedException: never"


@pytest.fixture
def app(make_app: MakeApp, local: LocalPulsar) -> Celery:
    """An app on LocalPulsar with a short receipt timeout."""
    return make_app(local.url, receipt_timeout=1.0)


@pytest.fixture
def running(app: Celery) -> Iterator[Acknowledger]:
    """Its acknowledger."""
    with Acknowledger(app) as acknowledger:
        yield acknowledger


def send(app: Celery, payloads: list[str], **options: Any) -> list[Any]:
    """Publish with ``delay``."""
    task = app.tasks["celery_stargate.produce"]
    return [task.delay(payload, **options) for payload in payloads]


def numbers(count: int, begin: int = 0) -> list[str]:
    """Payloads to tell apart."""
    return [str(number) for number in range(begin, begin + count)]


def all_stored(results: list[Any], timeout: float = 30.0) -> None:
    """Wait for all receipts."""
    for result in results:
        assert result.get(timeout=timeout)["status"] == "stored"


def held(app: Celery, topic: str) -> int:
    """How many contexts the topic's lane holds."""
    stargate = Stargate.of(app)
    client = stargate.runtime.connections.sync()
    return int(client.hlen(Lane(topic).key(stargate.settings.prefix, "contexts")))


def first_occurrences(local: LocalPulsar, topic: str) -> list[str]:
    """What the topic holds, each payload once, in the order of its first occurrence."""
    return list(dict.fromkeys(each.decode() for each in local.payloads(topic)))


Fault = Callable[[LocalPulsar], object]


def _refuse_for_now(local: LocalPulsar) -> None:
    for status in (409, 503, 500):
        local.faults.refuse_handshakes(status)


FAULTS: dict[str, Fault] = {
    "drop receipts": lambda local: local.faults.drop_receipts(20),
    "duplicate receipts": lambda local: local.faults.duplicate_receipts(100),
    "reorder receipts": lambda local: local.faults.reorder_receipts(5),
    "garbage": lambda local: local.faults.garbage_receipts(2),
    "an empty object": lambda local: local.faults.garbage_receipts(1, "{}"),
    "error 3 without a context": lambda local: local.faults.garbage_receipts(
        1, '{"result":"send-error:3","errorMsg":"bad json","errorCode":0,"schemaVersion":0}'
    ),
    "an ok that holds no id": lambda local: local.faults.garbage_receipts(
        1, '{"result":"ok","messageId":"%%%","context":"x"}'
    ),
    "ignored frames": lambda local: local.faults.ignore_frames(30),
    "cut after receipts": lambda local: local.faults.close_after_receipts(40),
    "cut after frames": lambda local: local.faults.close_after_frames(40),
    "closed with 1009": lambda local: local.faults.close_after_frames(40, code=1009),
    "closed with 1011": lambda local: local.faults.close_after_receipts(40, code=1011),
    "a transient error": lambda local: local.faults.fail_sends(TRANSIENT, count=1),
    "an error nobody knows": lambda local: local.faults.fail_sends("java.lang.Oops: ?", count=1),
    "handshakes refused for now": _refuse_for_now,
    "a slow handshake": lambda local: local.faults.delay_handshakes(0.5, count=1),
}


#: They store a message and not the one before it.
_LEAVE_GAPS = [
    FAULTS[name] for name in ("ignored frames", "a transient error", "an error nobody knows")
]


class TestFaults:
    """One fault in the middle of some hundred messages."""

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    def test_all_is_stored_in_order_and_told(
        self, app: Celery, local: LocalPulsar, topic: str, fault: Fault
    ) -> None:
        """At least once; the first occurrences in the order of the calls.

        Where Pulsar refuses one message and stores those behind it, which are on their way
        already, nobody can keep that order: they are sent once more behind it.
        """
        results = send(app, numbers(200))
        fault(local)
        with Acknowledger(app):
            results += send(app, numbers(100, 200))
            if fault is FAULTS["reorder receipts"]:
                local.wait_for_messages(topic, 300, 20)
                local.faults.reorder_receipts(0)
            all_stored(results)
        found = first_occurrences(local, topic)
        assert sorted(found, key=int) == numbers(300)
        if fault not in _LEAVE_GAPS:
            assert found == numbers(300)
        assert Stargate.of(app).lanes.backlog(Lane(topic)) == 0

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    def test_what_nothing_follows_is_stored_and_forgotten(
        self, app: Celery, local: LocalPulsar, topic: str, fault: Fault
    ) -> None:
        """No callback for receipts; and there are no failures."""
        stargate = Stargate.of(app)
        alert = app.signature("no")
        # An owner of their own would begin to send before the fault is there.
        with Acknowledger(app) as acknowledger:
            stargate.produce_many(numbers(1), on_error=alert)
            local.wait_for_messages(topic, 1, 20)
            fault(local)
            stargate.produce_many(numbers(300, 1), on_error=alert)
            if fault is FAULTS["reorder receipts"]:
                local.wait_for_messages(topic, 301, 20)
                local.faults.reorder_receipts(0)
            wait_for(lambda: held(app, topic) == 0)
            assert acknowledger.running
        assert sorted(first_occurrences(local, topic), key=int) == numbers(301)
        assert stargate.lanes.backlog(Lane(topic)) == 0
        assert Triggered(app).none()

    def test_results_that_redis_refuses_in_a_script_are_stored_after_it(
        self,
        app: Celery,
        local: LocalPulsar,
        topic: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As without permission, or where their keys are in another slot: nothing is sent again."""
        complete = LeasedLane.complete
        refused = 0

        async def refuse(self: LeasedLane, ignored: Any, results: Any, *others: Any) -> Any:
            nonlocal refused
            if results:
                refused += 1
                raise redis.exceptions.ResponseError("NOPERM")
            return await complete(self, ignored, results, *others)

        monkeypatch.setattr(LeasedLane, "complete", refuse)
        with Acknowledger(app):
            for payload in ("1", "2"):
                all_stored(send(app, [payload]))
        assert local.payloads(topic) == [b"1", b"2"]
        assert refused == 1
        assert caplog.text.count("Let its user SET and PUBLISH") == 1

    def test_what_nothing_follows_is_told_where_it_failed(
        self, app: Celery, local: LocalPulsar, topic: str
    ) -> None:
        """Each failure has its callback, among receipts that have none."""
        local.faults.fail_sends(PERMANENT, when=lambda frame: int(frame.payload) % 10 == 3)
        with Acknowledger(app):
            contexts = Stargate.of(app).produce_many(numbers(50), on_error=app.signature("no"))
            wait_for(lambda: held(app, topic) == 0)
        triggered = Triggered(app)
        failed = [triggered.next()["args"][0]["context"] for _ in range(5)]
        assert sorted(failed) == sorted(contexts[3::10])
        assert triggered.none()

    def test_receipts_twice_store_nothing_twice(
        self, app: Celery, running: Acknowledger, local: LocalPulsar, topic: str
    ) -> None:
        """And no callback is published twice."""
        local.faults.duplicate_receipts(None)
        results = send(app, numbers(50), on_ack=app.signature("yes"))
        all_stored(results)
        triggered = Triggered(app)
        contexts = [triggered.next()["args"][0]["context"] for _ in range(50)]
        assert sorted(contexts) == sorted(result.id for result in results)
        assert triggered.none()
        assert [each.decode() for each in local.payloads(topic)] == numbers(50)

    def test_a_cut_in_full_flight(self, app: Celery, local: LocalPulsar, topic: str) -> None:
        """Two thousand messages, and three times the socket is dropped without a close frame."""
        results = send(app, numbers(2000))
        with Acknowledger(app):
            for stored in (300, 900, 1500):
                local.wait_for_messages(topic, stored, 20)
                local.drop_connections()
            all_stored(results)
        assert first_occurrences(local, topic) == numbers(2000)

    def test_pulsar_away_and_back(
        self, app: Celery, running: Acknowledger, local: LocalPulsar, topic: str
    ) -> None:
        """Connections refused for a while; what was stored before stays."""
        all_stored(send(app, numbers(10)))
        local.stop()
        results = send(app, numbers(50, 10))
        local.start()
        all_stored(results)
        assert first_occurrences(local, topic) == numbers(60)

    def test_a_permanent_error_is_told_at_once_and_the_rest_goes_on(
        self, app: Celery, running: Acknowledger, local: LocalPulsar, topic: str
    ) -> None:
        """Without a new connection."""
        local.faults.fail_sends(PERMANENT, when=lambda frame: frame.payload == b"5")
        results = send(app, numbers(10))
        with pytest.raises(ProduceError, match="NotAllowedException") as caught:
            results[5].get(timeout=10)
        assert caught.value.status == "refused"
        all_stored(results[:5] + results[6:])
        assert first_occurrences(local, topic) == [each for each in numbers(10) if each != "5"]
        assert local.counters.handshakes == 1

    def test_a_permanent_error_of_what_may_have_been_stored_before_is_unknown(
        self, app: Celery, running: Acknowledger, local: LocalPulsar, topic: str
    ) -> None:
        """Its first send is stored and the receipt lost: refused would be wrong (P3)."""
        local.faults.close_after_frames(1)
        (result,) = send(app, ["x"])
        local.wait_for_messages(topic, 1)
        local.faults.fail_sends(PERMANENT)
        with pytest.raises(ProduceError) as caught:
            result.get(timeout=10)
        assert caught.value.status == "unknown"

    def test_one_that_always_fails_ends_at_its_deadline(
        self, app: Celery, running: Acknowledger, local: LocalPulsar, topic: str
    ) -> None:
        """And those behind it are stored."""
        local.faults.fail_sends(TRANSIENT, when=lambda frame: frame.payload == b"poison")
        task = app.tasks["celery_stargate.produce"]
        before = send(app, ["before"])
        poison = task.delay("poison", delivery_timeout=1.0)
        after = send(app, numbers(20))
        with pytest.raises(ProduceTimeout) as caught:
            poison.get(timeout=10)
        assert caught.value.status == "unknown"
        all_stored(before + after)
        assert first_occurrences(local, topic) == ["before", *numbers(20)]

    def test_a_namespace_that_goes_away(
        self, app: Celery, running: Acknowledger, local: LocalPulsar
    ) -> None:
        """Everything that waits is told; what comes later has its own try."""
        local.faults.refuse_handshakes(404, count=1, reason="Namespace not found")
        first = send(app, ["x"])
        with pytest.raises(ProduceError, match="Namespace not found"):
            first[0].get(timeout=10)
        all_stored(send(app, ["y"]))

    def test_a_terminated_topic_is_told(
        self, make_app: MakeApp, pulsar: PulsarAddress, topic: str
    ) -> None:
        """On the real broker, under an open producer and at the next handshake."""
        app = make_app(pulsar.url)
        with Acknowledger(app):
            all_stored(send(app, ["before"]))
            pulsar.admin.terminate(topic)
            for payload in ("under the open one", "with a new one"):
                with pytest.raises(ProduceError, match="(?i)terminated"):
                    send(app, [payload])[0].get(timeout=20)


class TestWindow:
    """What is in flight is bounded, and nothing stays in it for ever."""

    def test_no_more_than_max_in_flight_are_in_flight(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """By count, and one large message always goes."""
        app = make_app(local.url, max_in_flight=7)
        local.faults.hold_receipts()
        results = send(app, numbers(50))
        with Acknowledger(app):
            local.wait_for_messages(topic, 7)
            local.wait_until(lambda: local.counters.frames >= 7)
            Triggered(app).none()
            assert len(local.payloads(topic)) == 7
            local.faults.clear()
            all_stored(results)
        assert first_occurrences(local, topic) == numbers(50)

    def test_no_more_than_max_in_flight_bytes_are_in_flight(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """A message that is larger than all of it goes alone."""
        app = make_app(local.url, max_in_flight_bytes=1000)
        local.faults.hold_receipts()
        results = send(app, ["x" * 2000, *["y" * 300] * 9])
        with Acknowledger(app):
            local.wait_for_messages(topic, 1)
            assert Triggered(app).none()
            assert len(local.payloads(topic)) == 1
            local.faults.clear()
            all_stored(results)

    @pytest.mark.parametrize("form", ["singles", "a list"])
    def test_expired_messages_leave_room(
        self, make_app: MakeApp, local: LocalPulsar, topic: str, form: str
    ) -> None:
        """Their receipts were lost: the next ones do not wait for what never comes."""
        app = make_app(local.url, max_in_flight=5, receipt_timeout=60.0)
        task = app.tasks["celery_stargate.produce"]
        local.faults.drop_receipts(5)
        with Acknowledger(app):
            given: list[Any] = [numbers(5)] if form == "a list" else list(numbers(5))
            lost = [task.delay(each, delivery_timeout=3.0) for each in given]
            # All are in the topic before the next one comes: its receipt must not be dropped.
            local.wait_for_messages(topic, 5)
            next_one = task.delay("next")
            for each in lost:
                with pytest.raises(ProduceTimeout):
                    each.get(timeout=10)
            assert next_one.get(timeout=5)["status"] == "stored"

    def test_a_lost_receipt_does_not_keep_an_idle_lane_from_going_on(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """The socket would be closed when idle; it waits for a receipt, and messages come."""
        app = make_app(local.url, idle_timeout=1.0, receipt_timeout=60.0)
        task = app.tasks["celery_stargate.produce"]
        local.faults.drop_receipts(1)
        with Acknowledger(app):
            task.delay("lost", delivery_timeout=2.5)
            local.wait_for_messages(topic, 1)
            # Longer than it idles.
            assert threading.Event().wait(1.5) is False
            assert task.delay("next").get(timeout=10)["status"] == "stored"

    def test_an_idle_lane_closes_its_socket_and_opens_it_again(
        self, make_app: MakeApp, local: LocalPulsar
    ) -> None:
        """Pulsar need not keep a producer that sends nothing."""
        app = make_app(local.url, idle_timeout=1.0)
        with Acknowledger(app):
            all_stored(send(app, ["x"]))
            local.wait_until(lambda: local.connections == [], 5)
            all_stored(send(app, ["y"]))

    def test_memory_stays_flat_while_pulsar_is_away(self, make_app: MakeApp, topic: str) -> None:
        """Redis holds the backlog of some thirty megabytes, and this process does not."""
        with LocalPulsar() as local:
            app = make_app(local.url, max_in_flight=50)
            local.faults.ignore_frames()
            with Acknowledger(app):
                stargate = Stargate.of(app)
                on_ack = app.signature("yes")
                stargate.produce("x", on_ack=on_ack)
                local.wait_until(lambda: local.counters.frames >= 1)
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                for _ in range(30):
                    stargate.produce(["x" * 10_000] * 75, on_ack=on_ack)
                assert stargate.lanes.backlog(Lane(topic)) == 2251
                local.wait_until(lambda: local.counters.frames >= 50)
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                assert grown < 20_000, f"{grown} kB"


class TestBatching:
    """Pulsar's own batching, on the real broker."""

    def test_its_queue_may_be_smaller_than_our_window(
        self, make_app: MakeApp, pulsar: PulsarAddress, topic: str
    ) -> None:
        """A full queue is an error receipt there: our window has to respect it."""
        app = make_app(
            pulsar.url,
            batching_enabled=True,
            max_pending_messages=20,
            batching_max_publish_delay=0.01,
        )
        results = send(app, numbers(500))
        with Acknowledger(app):
            all_stored(results)
        stats = pulsar.admin.stats(topic)
        assert stats["msgInCounter"] == 500


class TestRedis:
    """Redis away in the middle."""

    def test_restarted(
        self, make_app: MakeApp, local: LocalPulsar, topic: str, tmp_path: Path
    ) -> None:
        """With its file it forgets nothing; all is stored and told."""
        require(redis_module.missing_reason())
        with RedisServer(
            tmp_path / "redis", appendonly=True, config={"appendfsync": "always"}
        ) as server:
            app = make_app(local.url, redis_url=server.url, lease=1.0)
            task = app.tasks["celery_stargate.produce"]
            results = [task.delay(each) for each in numbers(300)]
            with Acknowledger(app):
                local.wait_for_messages(topic, 50)
                server.kill()
                server.start()
                all_stored(results)
                all_stored(send(app, ["after"]))
            assert first_occurrences(local, topic) == [*numbers(300), "after"]
            Stargate.of(app).close()

    def test_its_connections_are_cut_again_and_again(
        self, make_app: MakeApp, local: LocalPulsar, topic: str, redis_server: ServerAddress
    ) -> None:
        """Those of the owner and the callers; nothing is lost or stored twice."""
        parts = urlsplit(redis_server.url)
        assert parts.port is not None
        with Proxy(parts.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}{parts.path}"
            app = make_app(local.url, redis_url=url)
            results: list[Any] = []
            with Acknowledger(app):
                for begin in range(0, 200, 20):
                    results += send(app, numbers(20, begin))
                    proxy.cut()
                all_stored(results)
            Stargate.of(app).close()
        assert first_occurrences(local, topic) == numbers(200)

    def test_away_for_longer_than_the_lease(
        self, make_app: MakeApp, local: LocalPulsar, topic: str, redis_server: ServerAddress
    ) -> None:
        """The lane has an owner again when Redis is back."""
        parts = urlsplit(redis_server.url)
        assert parts.port is not None
        with Proxy(parts.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}{parts.path}"
            app = make_app(local.url, redis_url=url, lease=0.5)
            with Acknowledger(app):
                local.faults.hold_receipts()
                results = send(app, numbers(20))
                local.wait_for_messages(topic, 20)
                proxy.close()
                client = Stargate.of(make_app(local.url)).runtime.connections.sync()
                key = Lane(topic).key(Stargate.of(app).settings.prefix, "lease")
                wait_for(lambda: not client.exists(key), 5.0, "the end of the lease")
                local.faults.clear()
                proxy.open()
                all_stored(results)
            Stargate.of(app).close()
        assert first_occurrences(local, topic) == numbers(20)

    def test_an_unread_backlog_after_a_failover_is_found(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """Settled contexts that stand there again after a failover, behind the owner's back: it
        reads the lane anew, though nothing else is put, and they end."""
        app = make_app(local.url, lease=0.5)
        stargate = Stargate.of(app)
        client = stargate.runtime.connections.sync()
        parts = ("log", "contexts", "deadlines")
        keys = [Lane(topic).key(stargate.settings.prefix, part) for part in parts]
        with Acknowledger(app):
            local.faults.hold_receipts()
            results = send(app, numbers(5))
            local.wait_for_messages(topic, 5)
            older: list[Any] = [client.dump(key) for key in keys]
            local.faults.release_receipts()
            all_stored(results)
            wait_for(lambda: not client.exists(*keys[1:]), 5.0, "the end of the contexts")
            for key, data in zip(keys, older, strict=True):
                client.restore(key, 0, data, replace=True)
            wait_for(lambda: not client.exists(*keys[1:]), 10.0, "their second end")
        assert first_occurrences(local, topic) == numbers(5)

    def test_a_full_redis_lets_the_lane_drain(
        self, make_app: MakeApp, local: LocalPulsar, topic: str, tmp_path: Path
    ) -> None:
        """No more can be recorded, but what is there reaches Pulsar and is told."""
        require(redis_module.missing_reason())
        with RedisServer(tmp_path / "redis") as server:
            # The results go elsewhere: a full result backend is Celery's matter.
            app = make_app(local.url, redis_url=server.url, lease=1.0)
            results = send(app, numbers(50))
            lanes = Stargate.of(app).lanes
            client = Stargate.of(app).runtime.connections.sync()
            client.config_set("maxmemory", 1)
            with Acknowledger(app):
                local.wait_for_messages(topic, 50, 10)
                wait_for(lambda: lanes.backlog(Lane(topic)) == 0, 10.0, "the drained lane")
                all_stored(results)
                client.config_set("maxmemory", 0)
                all_stored(send(app, ["after"]))
            Stargate.of(app).close()


def test_deadlines_are_seen_to_while_pulsar_is_away(make_app: MakeApp, refusing_port: int) -> None:
    """By the owner; those with more time stay."""
    app = make_app(f"ws://127.0.0.1:{refusing_port}")
    task = app.tasks["celery_stargate.produce"]
    with Acknowledger(app):
        long = task.delay("long")
        short = [task.delay("short", delivery_timeout=0.5) for _ in range(250)]
        with elapsed() as seconds:
            for each in short:
                with pytest.raises(ProduceTimeout) as caught:
                    each.get(timeout=10)
                assert caught.value.status == "refused"
        assert seconds() < 8
        assert not long.ready()


def test_revoked_before_it_was_sent(make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
    """It is not sent; those around it are."""
    app = make_app(local.url)
    results = send(app, numbers(5))
    revoked = {results[2].id}
    with Acknowledger(app, revoked=revoked.__contains__):
        all_stored(results[:2] + results[3:])
        wait_for(lambda: results[2].state == "REVOKED", 10.0)
    assert first_occurrences(local, topic) == ["0", "1", "3", "4"]
