"""The table in section 1 of the design, row by row, and 50 numbers in order: on the real broker.

What needs a worker process is in ``tests/acceptance``; here an acknowledger in this process owns
the lanes, and calls in process need nobody.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import Any

import pytest
from celery import Celery

import celery_stargate
from celery_stargate import (
    Acknowledger,
    Failure,
    Message,
    ProduceError,
    Receipt,
    Stargate,
    produce_task,
)
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import Reader, Triggered, read_back, topic_path
from tests.servers.fixtures import PulsarAddress


@pytest.mark.smoke
def test_fifty_numbers_are_read_back_in_order_by_a_plain_reader(
    app: Celery, topic: str, pulsar: PulsarAddress
) -> None:
    """Published one by one with ``delay``; each receipt names the message that the reader gets."""
    with Acknowledger(app):
        results = [produce_task.delay(str(number)) for number in range(50)]
        receipts = [result.get(timeout=20) for result in results]
    with Reader(pulsar.url, topic) as reader:
        messages = reader.take(50)
        assert reader.rest() == []
    assert [int(each["payload"]) for each in messages] == list(range(50))
    assert [each["messageId"] for each in messages] == [each["message_id"] for each in receipts]


class TestTable:
    """Each row: what Stargate does, and what stands for it here."""

    def test_produce_blocks_until_the_receipt(
        self, app: Celery, topic: str, pulsar: PulsarAddress
    ) -> None:
        """``delay().get()``, ``stargate.produce``, ``await stargate.aproduce``."""
        stargate = Stargate.of(app)
        with Acknowledger(app):
            receipt = produce_task.delay("a").get(timeout=20)
        assert receipt["topic"] == topic
        assert receipt["status"] == "stored"
        assert set(receipt) >= {"message_id", "context", "ledger_id", "entry_id", "partition"}
        assert stargate.produce("b").status == "stored"
        assert asyncio.run(stargate.aproduce("c")).status == "stored"
        assert read_back(pulsar.url, topic, 3) == [b"a", b"b", b"c"]

    def test_produce_with_an_mfa(self, app: Celery, triggered: Triggered) -> None:
        """``on_ack`` and ``on_error``, by a task or by a call that gives the context at once."""
        stargate = Stargate.of(app)
        both: dict[str, Any] = {"on_ack": app.signature("yes"), "on_error": app.signature("no")}
        with Acknowledger(app):
            result = produce_task.delay("x", **both)
            callback = triggered.next()
            assert callback["task"] == "yes"
            assert uuid.UUID(callback["id"]).version == 5
            assert callback["args"] == [result.get(timeout=20)]

            result = produce_task.delay("x", topic="persistent://public/nowhere/t", **both)
            callback = triggered.next()
            assert callback["task"] == "no"
            assert uuid.UUID(callback["id"]).version == 5
            with pytest.raises(ProduceError) as caught:
                result.get(timeout=20)
            assert callback["args"] == [caught.value.failure]

            context = stargate.produce("x", **both)
            assert triggered.next()["args"][0]["context"] == context

    def test_produce_by_url_ad_hoc(self, topic: str, pulsar: PulsarAddress) -> None:
        """Its own socket: no app, no Redis, no worker."""
        url = f"{pulsar.url}/ws/v2/producer/{topic_path(topic)}"
        receipts = celery_stargate.produce(url, ["a", "b"])
        assert [each.status for each in receipts] == ["stored", "stored"]
        assert read_back(pulsar.url, topic, 2) == [b"a", b"b"]

    def test_all_message_forms(self, app: Celery, topic: str, pulsar: PulsarAddress) -> None:
        """Raw payload, ``(key, payload)``, a mapping, a Message, and a list of these."""
        forms: list[Any] = [
            "text",
            b"\x00\xff",
            ("k", "keyed"),
            {"payload": b"mapped", "key": "k", "properties": {"a": "b"}},
            Message(payload="message"),
        ]
        with Acknowledger(app):
            for form in forms:
                assert produce_task.delay(form).get(timeout=20)["status"] == "stored"
            receipts = produce_task.delay(forms).get(timeout=20)
        assert [each["status"] for each in receipts] == ["stored"] * 5
        with Reader(pulsar.url, topic) as reader:
            messages = reader.take(10)
        expected = [b"text", b"\x00\xff", b"keyed", b"mapped", b"message"]
        assert [each["payload"] for each in messages] == expected * 2
        assert [each.get("key") for each in messages[:5]] == [None, None, "k", "k", None]
        assert messages[3]["properties"] == {"a": "b"}

    def test_the_acknowledgers_produce_and_ack(self, app: Celery, triggered: Triggered) -> None:
        """A future for the waiter; outcomes from any process."""
        with Acknowledger(app) as acknowledger:
            waiting = acknowledger.produce("ctx", on_ack=app.signature("yes"))
            Acknowledger(app).ack(Receipt(context="ctx"))
            assert waiting.result(timeout=10).context == "ctx"
            assert triggered.next()["task"] == "yes"
            failing = acknowledger.produce("bad")
            acknowledger.ack(Failure(context="bad", reason="why"))
            with pytest.raises(ProduceError, match="why"):
                failing.result(timeout=10)

    def test_a_script_needs_no_worker(self, app: Celery, topic: str, pulsar: PulsarAddress) -> None:
        """``stargate.produce`` starts the acknowledger itself where no worker is alive."""
        stargate = Stargate.of(app)
        assert stargate.lanes.registry.survey()[0] == 0
        assert stargate.produce("x").status == "stored"
        assert stargate.lanes.registry.survey()[0] == 1
        assert read_back(pulsar.url, topic, 1) == [b"x"]

    def test_a_topics_name_in_the_settings(
        self, make_app: MakeApp, topic: str, pulsar: PulsarAddress
    ) -> None:
        """A name for a topic and its options, in place of a registry key; or its full name."""
        other = f"{topic}-other"
        app = make_app(topics={"orders": {"topic": other, "compression_type": "ZSTD"}})
        orders = Stargate.of(app).task("shop.orders", topic="orders")
        with Acknowledger(app):
            assert produce_task.delay("a", topic="orders").get(timeout=20)["topic"] == other
            assert produce_task.delay("b", topic=other).get(timeout=20)["topic"] == other
            assert orders.delay("c").get(timeout=20)["topic"] == other
            assert produce_task.delay("d").get(timeout=20)["topic"] == topic
        assert read_back(pulsar.url, other, 3) == [b"a", b"b", b"c"]
        assert read_back(pulsar.url, topic, 1) == [b"d"]


class TestCanvas:
    """Links and chains go on from the receipt: published by who owns the lane."""

    def test_a_chains_next_task_gets_the_receipt(self, app: Celery, triggered: Triggered) -> None:
        """As its first argument."""
        with Acknowledger(app):
            result = (produce_task.s("x") | app.signature("shop.next", args=("more",))).delay()
            callback = triggered.next()
        parent: Any = result.parent
        assert callback["task"] == "shop.next"
        assert callback["args"][0]["context"] == parent.id
        assert callback["args"][1] == "more"

    def test_link_and_link_error(self, app: Celery, triggered: Triggered) -> None:
        """Celery's own callbacks, by Celery's own hand."""
        with Acknowledger(app):
            produce_task.apply_async(("x",), link=app.signature("linked"))
            assert triggered.next()["task"] == "linked"
            produce_task.apply_async(
                ("x",),
                {"topic": "persistent://public/nowhere/t"},
                link=app.signature("linked"),
                link_error=app.signature("failed"),
            )
            assert triggered.next()["task"] == "failed"
            assert triggered.none()

    def test_a_group_has_all_receipts(self, app: Celery) -> None:
        """In order."""
        from celery import group

        with Acknowledger(app):
            result = group(produce_task.s(str(number)) for number in range(10)).apply_async()
            receipts = result.get(timeout=20)
        assert [each["entry_id"] for each in receipts] == list(range(10))

    @pytest.mark.parametrize("count", [2, 20])
    def test_a_chords_body_gets_all_receipts(
        self, app: Celery, triggered: Triggered, count: int
    ) -> None:
        """Once."""
        from celery import chord

        with Acknowledger(app):
            header = [produce_task.s(str(number)) for number in range(count)]
            chord(header, app.signature("body")).delay()
            callback = triggered.next()
            assert callback["task"] == "body"
            assert [each["entry_id"] for each in callback["args"][0]] == list(range(count))
            assert triggered.none()


class TestInProcess:
    """Called in process it publishes and waits, callbacks included."""

    @pytest.mark.smoke
    def test_a_direct_call(
        self, app: Celery, triggered: Triggered, topic: str, pulsar: PulsarAddress
    ) -> None:
        """The receipt as ``get()`` would give it."""
        receipt = produce_task("x", on_ack=app.signature("yes"))
        assert (receipt["status"], receipt["topic"]) == ("stored", topic)
        assert triggered.next()["args"] == [receipt]
        receipts = produce_task(["a", ("k", "b")])
        assert [each["status"] for each in receipts] == ["stored"] * 2
        assert read_back(pulsar.url, topic, 3) == [b"x", b"a", b"b"]

    def test_a_direct_call_that_is_refused(self, app: Celery, triggered: Triggered) -> None:
        """It raises, and on_error is triggered."""
        with pytest.raises(ProduceError, match="Namespace not found"):
            produce_task("x", topic="persistent://public/nowhere/t", on_error=app.signature("no"))
        callback = triggered.next()
        assert (callback["task"], callback["args"][0]["code"]) == ("no", "http-404")

    def test_apply(self, app: Celery, triggered: Triggered) -> None:
        """An eager result, and its failure."""
        result = produce_task.apply(("x",), {"on_ack": app.signature("yes")})
        assert result.successful()
        assert result.get()["status"] == "stored"
        assert triggered.next()["args"][0]["context"] == result.id
        failed = produce_task.apply(("x",), {"topic": "persistent://public/nowhere/t"})
        assert failed.failed()
        with pytest.raises(ProduceError, match="Namespace not found"):
            failed.get()

    def test_task_always_eager(self, make_app: MakeApp, topic: str, pulsar: PulsarAddress) -> None:
        """``delay`` publishes and waits, and so do the callbacks, in process."""
        app = make_app(conf={"task_always_eager": True, "task_store_eager_result": False})
        seen: list[Any] = []

        @app.task(name="seen", shared=False)
        def see(receipt: Any) -> None:
            seen.append(receipt)

        result = produce_task.delay("x", on_ack=see.s())
        assert result.get()["status"] == "stored"
        assert seen == [result.get()]
        chained = (produce_task.s("y") | see.s()).delay()
        chained.get()
        assert seen[1]["entry_id"] == 1
        assert read_back(pulsar.url, topic, 2) == [b"x", b"y"]

    @pytest.mark.parametrize("eager", [True, False])
    def test_without_redis(
        self, make_app: MakeApp, local: LocalPulsar, topic: str, eager: bool
    ) -> None:
        """As in the tests of those who use it: in memory, with LocalPulsar."""
        app = make_app(
            local.url,
            conf={
                "broker_url": "memory://",
                "result_backend": "cache+memory://",
                "broker_transport_options": {},
                "result_backend_transport_options": {},
                "task_always_eager": eager,
            },
        )
        seen: list[Any] = []

        @app.task(name="seen", shared=False)
        def see(outcome: Any) -> None:
            seen.append(outcome)

        if eager:
            produce_task.delay("x", on_ack=see.s()).get()
            produce_task.delay(["a", "b"], on_ack=see.s()).get()
            assert seen[0]["status"] == "stored"
            assert [each["status"] for each in seen[1]] == ["stored"] * 2
            local.faults.refuse_handshakes(404, count=1, reason="Namespace not found")
            failed = produce_task.delay("y", on_error=see.s())
            assert failed.failed()
            assert "Namespace not found" in seen[2]["reason"]
        else:
            assert produce_task("x")["status"] == "stored"
            assert [each["status"] for each in produce_task(["a", "b"])] == ["stored"] * 2
        assert local.payloads(topic) == [b"x", b"a", b"b"]
        assert "redis" not in str(app.conf.broker_url)
        assert "celery_stargate.acknowledger" in sys.modules


class TestSecrets:
    """P8: no payload, key, token or password in a log line, an error or a repr."""

    def test_of_a_message_and_its_failure(
        self, make_app: MakeApp, local: LocalPulsar, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not even at DEBUG, with faults on the way."""
        caplog.set_level("DEBUG")
        app = make_app(local.url, token="t0ps3cret-token", receipt_timeout=1.0)
        local.faults.garbage_receipts(1)
        local.faults.refuse_handshakes(503, count=1)
        with Acknowledger(app):
            message = {"payload": "p4yload-s3cret", "key": "k3y-s3cret"}
            result = produce_task.delay(message)
            result.get(timeout=20)
            local.faults.refuse_handshakes(404, count=1)
            local.drop_connections()
            with pytest.raises(ProduceError) as caught:
                produce_task.delay(message).get(timeout=20)
        # The stand-in for Pulsar is in this process too, and hears the token.
        said = [each.getMessage() for each in caplog.records if each.name != "websockets.server"]
        said += [str(caught.value), repr(caught.value), repr(Stargate.of(app).settings)]
        assert any("not a receipt" in each for each in said)
        for secret in ("t0ps3cret", "p4yload", "k3y-s3cret"):
            assert not any(secret in each for each in said)
