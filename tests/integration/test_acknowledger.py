"""``acknowledger.py``: contexts that somebody acknowledges, and lanes that are shared."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery

from celery_stargate import (
    Acknowledger,
    ConfigurationError,
    ContextInUse,
    Failure,
    InvalidMessage,
    ProduceError,
    ProduceTimeout,
    Receipt,
    Stargate,
    StoreUnavailable,
)
from celery_stargate.delivery.supervisor import Supervisor
from celery_stargate.effects import callback_stage, callbacks
from celery_stargate.effects.run import callback_id
from celery_stargate.lanes import leased as owner_module
from celery_stargate.lanes import outbox as caller_module
from celery_stargate.lanes.lane import CONTEXTS, Lane
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import Proxy, Triggered, elapsed, read_back, wait_for
from tests.servers.fixtures import PulsarAddress, ServerAddress


class TestContexts:
    """``produce(ctx)`` and ``ack(outcome)``: Stargate's own game, across processes."""

    @pytest.mark.smoke
    def test_a_receipt_releases_the_future(self, app: Celery) -> None:
        """With all that the acknowledging side gave."""
        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("ctx")
            assert not future.done()
            assert acknowledger.ack(Receipt(context="ctx", value={"a": [1, None]}))
            found = future.result(timeout=5)
            assert found == Receipt(context="ctx", value={"a": [1, None]})

    def test_a_failure_raises_in_the_future(self, app: Celery) -> None:
        """With its reason and outcome."""
        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("ctx")
            acknowledger.ack(Failure(context="ctx", reason="no stock", status="unknown"))
            with pytest.raises(ProduceError) as caught:
                future.result(timeout=5)
            assert (caught.value.reason, caught.value.status) == ("no stock", "unknown")

    def test_from_a_process_that_was_never_started(self, app: Celery) -> None:
        """``ack`` needs no thread of its own."""
        with Acknowledger(app) as waiting:
            future = waiting.produce("ctx")
            assert Acknowledger(app).ack(Receipt(context="ctx"))
            assert future.result(timeout=5).context == "ctx"

    def test_from_another_process(
        self, app: Celery, redis_server: ServerAddress, prefix: str
    ) -> None:
        """Which knows no more than the settings."""
        script = f"""
from celery import Celery
from celery_stargate import Acknowledger, Receipt, Stargate
app = Celery(broker={redis_server.url!r}, backend={redis_server.url!r})
app.conf.stargate_prefix = {prefix!r}
app.conf.stargate_url = "ws://127.0.0.1:1"
Stargate(app)
assert Acknowledger(app).ack(Receipt(context="ctx", value="from afar"))
assert not Acknowledger(app).ack(Receipt(context="ctx"))
"""
        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("ctx")
            subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
            assert future.result(timeout=5).value == "from afar"

    def test_second_late_and_unknown_outcomes_harm_nothing(
        self, app: Celery, caplog: pytest.LogCaptureFixture
    ) -> None:
        """They are logged, and the answer says that they changed nothing."""
        caplog.set_level("INFO", logger="celery_stargate")
        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("ctx")
            assert acknowledger.ack(Receipt(context="ctx", value=1))
            assert not acknowledger.ack(Receipt(context="ctx", value=2))
            assert not acknowledger.ack(Failure(context="ctx"))
            assert not acknowledger.ack(Receipt(context="never"))
            assert future.result(timeout=5).value == 1
        assert "an outcome changed nothing: late context=never" in caplog.text

    def test_a_context_in_use_is_refused_and_the_first_one_still_waits(self, app: Celery) -> None:
        """Two cannot wait for one id."""
        with Acknowledger(app) as acknowledger:
            first = acknowledger.produce("ctx")
            with pytest.raises(ContextInUse):
                acknowledger.produce("ctx")
            acknowledger.ack(Receipt(context="ctx", value=1))
            assert first.result(timeout=5).value == 1

    def test_past_its_deadline_the_future_raises(self, app: Celery) -> None:
        """Nobody acknowledged it; a late receipt changes nothing."""
        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("ctx", timeout=0.3)
            with elapsed() as seconds, pytest.raises(ProduceTimeout):
                future.result(timeout=10)
            assert 0.2 < seconds() < 3
            assert not acknowledger.ack(Receipt(context="ctx"))

    @pytest.mark.parametrize("context", ["", "two\nlines", "\x00", 5, None, b"bytes", "x" * 513])
    def test_a_context_that_is_no_printable_text_is_refused(
        self, app: Celery, context: Any
    ) -> None:
        """Before anything is recorded; nobody would ever be released by it."""
        acknowledger = Acknowledger(app)
        with pytest.raises(InvalidMessage, match="context"):
            acknowledger.produce(context)
        assert Stargate.of(app).lanes.registry.survey() == (0, [])

    @pytest.mark.parametrize("context", ["order 17", "ü", "a:b{c}#0", "x" * 512])
    def test_any_printable_text_is_a_context(self, app: Celery, context: str) -> None:
        """Also one that looks like a key."""
        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce(context)
            acknowledger.ack(Receipt(context=context))
            assert future.result(timeout=5).context == context

    def test_callbacks_are_triggered_with_ids_of_their_own(
        self, app: Celery, triggered: Triggered
    ) -> None:
        """And the future is released as well."""
        with Acknowledger(app) as acknowledger:
            # An owner that takes the lane over just now would do the effects as well.
            with pytest.raises(ProduceTimeout):
                acknowledger.produce("warm up", timeout=0.05).result(timeout=10)
            both: Any = {"on_ack": app.signature("yes"), "on_error": app.signature("no")}
            good = acknowledger.produce("good", **both)
            acknowledger.ack(Receipt(context="good", value=7))
            assert good.result(timeout=5).value == 7
            callback = triggered.next()
            assert (callback["task"], uuid.UUID(callback["id"]).version) == ("yes", 5)
            assert callback["args"][0]["value"] == 7

            bad = acknowledger.produce("bad", **both)
            acknowledger.ack(Failure(context="bad", reason="r"))
            with pytest.raises(ProduceError):
                bad.result(timeout=5)
            callback = triggered.next()
            assert (callback["task"], uuid.UUID(callback["id"]).version) == ("no", 5)
            assert callback["args"][0]["reason"] == "r"
            assert triggered.none()

    def test_a_callback_that_is_no_signature_is_refused(self, app: Celery) -> None:
        """And nothing is recorded."""
        acknowledger = Acknowledger(app)
        with pytest.raises(InvalidMessage, match="on_ack must be a signature"):
            acknowledger.produce("ctx", on_ack=print)  # type: ignore[arg-type]
        assert Stargate.of(app).lanes.registry.survey() == (0, [])

    def test_redis_away(self, make_app: MakeApp, refusing_port: int) -> None:
        """Bounded, for both."""
        url = f"redis://127.0.0.1:{refusing_port}/0"
        acknowledger = Acknowledger(make_app("ws://127.0.0.1:1", redis_url=url))
        with elapsed() as seconds:
            with pytest.raises(StoreUnavailable):
                acknowledger.produce("ctx")
            with pytest.raises(StoreUnavailable):
                acknowledger.ack(Receipt(context="ctx"))
        assert seconds() < 5

    def test_a_deadline_where_nobody_owns_lanes(self, app: Celery) -> None:
        """The one who waits sees to it, for nobody else is alive."""
        future = Acknowledger(app).produce("ctx", timeout=0.2)
        with pytest.raises(ProduceTimeout) as caught:
            future.result(timeout=8)
        assert caught.value.status == "refused"

    def test_a_lost_answer_of_redis_loses_no_outcome(
        self, make_app: MakeApp, redis_server: ServerAddress
    ) -> None:
        """The outcome was read, and its reader never heard of it: it is read again."""
        address = urlsplit(redis_server.url)
        assert address.port is not None
        with Proxy(address.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}{address.path}"
            waiting = Acknowledger(make_app("ws://127.0.0.1:1", redis_url=url))
            acking = Acknowledger(make_app("ws://127.0.0.1:1"))
            proxy.lose_answer_to(lambda data: b"XREAD" in data)
            future = waiting.produce("ctx", timeout=20)
            assert acking.ack(Receipt(context="ctx"))
            assert future.result(timeout=10).context == "ctx"
            assert proxy.lost == 1

    def test_a_repeated_outcome_is_not_that_of_a_second_life(self, app: Celery) -> None:
        """Effects may be done twice; a context that is used again waits for its own."""
        acknowledger = Acknowledger(app)
        inboxes = Stargate.of(app).lanes.inboxes
        told: list[tuple[str, CallOutcomes]] = []
        notify = inboxes.notify

        def noting(address: str, call: CallOutcomes) -> None:
            told.append((address, call))
            notify(address, call)

        vars(inboxes)["notify"] = noting
        first = acknowledger.produce("ctx")
        acknowledger.ack(Receipt(context="ctx", value=1))
        assert first.result(timeout=5).value == 1
        second = acknowledger.produce("ctx")
        notify(*told[0])
        acknowledger.ack(Receipt(context="ctx", value=2))
        assert second.result(timeout=5).value == 2

    def test_many_contexts_from_many_threads(self, app: Celery) -> None:
        """Each future gets its own outcome."""
        with Acknowledger(app) as acknowledger:
            futures: dict[str, Any] = {}

            def work(name: int) -> None:
                for number in range(20):
                    context = f"{name}-{number}"
                    futures[context] = acknowledger.produce(context)

            threads = [threading.Thread(target=work, args=(name,)) for name in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            for context in sorted(futures, reverse=True):
                assert acknowledger.ack(Receipt(context=context, value=context))
            found = {context: futures[context].result(timeout=10).value for context in futures}
        assert found == {context: context for context in futures}
        assert len(found) == 100


class TestMessages:
    """A message in a lane, acknowledged from outside."""

    def test_a_receipt_for_a_pending_message_counts(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """By its context alone, or with its topic; Pulsar's own comes too late."""
        app = make_app(local.url)
        local.faults.hold_receipts()
        with Acknowledger(app) as acknowledger:
            task = app.tasks["celery_stargate.produce"]
            one, two = task.delay("one"), task.delay("two")
            local.wait_for_messages(topic, 2)
            assert not acknowledger.ack(Failure(context=one.id, reason="says who"))
            assert acknowledger.ack(Receipt(context=one.id))
            assert acknowledger.ack(Receipt(context=two.id, topic=topic))
            assert one.get(timeout=10)["context"] == one.id
            assert two.get(timeout=10)["context"] == two.id
            local.faults.clear()
            assert task.delay("three").get(timeout=10)["status"] == "stored"


class TestLife:
    """Start, stop, and what happens when it breaks."""

    def test_without_a_stargate_there_is_none(self) -> None:
        """The error says what to call."""
        with pytest.raises(ConfigurationError, match="has no Stargate"):
            Acknowledger(Celery("bare", set_as_current=False))

    def test_started_twice_it_runs_once_and_may_be_started_again(self, app: Celery) -> None:
        """Its worker's entry comes and goes with it."""
        acknowledger = Acknowledger(app)
        lanes = Stargate.of(app).lanes
        for _ in range(2):
            acknowledger.start()
            acknowledger.start()
            wait_for(lambda: lanes.registry.survey()[0] == 1, 5.0)
            assert sum(each.name == "stargate" for each in threading.enumerate()) == 1
            assert acknowledger.running
            acknowledger.stop()
            assert not acknowledger.running
            assert lanes.registry.survey()[0] == 0
        acknowledger.stop()

    def test_stopped_at_once_after_the_start(self, app: Celery) -> None:
        """No race leaves a thread behind."""
        for _ in range(10):
            acknowledger = Acknowledger(app)
            acknowledger.start()
            acknowledger.stop(timeout=0)
        assert all(each.name != "stargate" for each in threading.enumerate())

    def test_a_stop_waits_for_receipts_and_releases_the_lanes(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """The next owner has the lane at once, and sends nothing twice."""
        app = make_app(local.url, lease=30.0, drain_timeout=10.0)
        task = app.tasks["celery_stargate.produce"]
        first = Acknowledger(app)
        first.start()
        local.faults.hold_receipts()
        results = [task.delay(str(number)) for number in range(50)]
        local.wait_for_messages(topic, 50)
        stopping = threading.Thread(target=first.stop)
        stopping.start()
        later = task.delay("later")
        local.faults.clear()
        stopping.join(15)
        assert not first.running
        assert [each.get(timeout=10)["entry_id"] for each in results] == list(range(50))
        with elapsed() as seconds, Acknowledger(app):
            assert later.get(timeout=10)["status"] == "stored"
        assert seconds() < 5
        assert local.payloads(topic) == [b"%d" % n for n in range(50)] + [b"later"]

    def test_a_stop_is_bounded_where_no_receipt_comes(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """What has none is left to the next owner, who sends it again."""
        app = make_app(local.url)
        local.faults.drop_receipts()
        with Acknowledger(app) as acknowledger:
            result = app.tasks["celery_stargate.produce"].delay("x")
            local.wait_for_messages(topic, 1)
            with elapsed() as seconds:
                acknowledger.stop(timeout=0.3)
            assert seconds() < 5
        local.faults.clear()
        with Acknowledger(app):
            assert result.get(timeout=10)["status"] == "stored"

    def test_a_loop_that_fails_is_started_again(
        self, app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever the error; it is logged, and work goes on."""
        share, failures = Supervisor._share, [ValueError("broken on purpose")]  # noqa: SLF001

        async def fail_once(self: Any) -> None:
            await share(self)
            if failures:
                raise failures.pop()

        monkeypatch.setattr(Supervisor, "_share", fail_once)
        with Acknowledger(app):
            result = app.tasks["celery_stargate.produce"].delay("x")
            assert result.get(timeout=10)["status"] == "stored"
        assert "broken on purpose" in caplog.text
        assert failures == []

    def test_an_unreadable_lane_stops_no_other_one(
        self, app: Celery, prefix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What another version, or a hand, wrote into the list of lanes."""
        client = Stargate.of(app).runtime.connections.sync()
        bad = [b"no lane", b"x#y", b"ftp://a/b/c#0", b"persistent://only/two#0", b"\xff#0"]
        client.zadd(f"{prefix}:{{registry}}:lanes", dict.fromkeys(bad, 0))
        with Acknowledger(app):
            result = app.tasks["celery_stargate.produce"].delay("x")
            assert result.get(timeout=10)["status"] == "stored"
        assert "are ignored" in caplog.text
        assert "it starts again" not in caplog.text

    def test_effects_that_fail_are_repeated(
        self,
        app: Celery,
        triggered: Triggered,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The broker was away just when the callback was to be published: it comes later."""
        monkeypatch.setattr(owner_module, "GRACE_MS", 300)
        monkeypatch.setattr(caller_module, "GRACE_MS", 300)
        broken = [True, True]
        trigger = callbacks.trigger
        ids: set[str] = set()

        def fail_twice(*args: Any, **options: Any) -> None:
            ids.add(callback_id(args[1].context, args[1].incarnation, "on_ack"))
            if broken:
                broken.pop()
                raise OSError("the broker is away")
            trigger(*args, **options)

        monkeypatch.setattr(callback_stage, "trigger", fail_twice)
        with Acknowledger(app):
            task = app.tasks["celery_stargate.produce"]
            result = task.delay("x", on_ack=app.signature("yes"))
            callback = triggered.next()
        assert callback["args"][0]["context"] == result.id
        assert ids == {callback["id"]}, "each try has the same id"
        assert broken == []
        assert "Celery's broker is away" in caplog.text


class TestSharing:
    """Outbox are spread over the living, and taken over from the dead."""

    def apps(self, make_app: MakeApp, url: str, **settings: Any) -> tuple[Celery, Celery]:
        """Two workers' apps."""
        return make_app(url, **settings), make_app(url, **settings)

    def owners(self, app: Celery, topic: str, lanes: int) -> list[str | None]:
        """Who holds the lease of each lane of a topic."""
        stargate = Stargate.of(app)
        client = stargate.runtime.connections.sync()
        found: list[Any] = [
            client.get(Lane(topic, index).key(stargate.settings.prefix, "lease"))
            for index in range(lanes)
        ]
        return [each and each.decode().rpartition(":")[0] for each in found]

    def fill(self, app: Celery, count: int) -> list[Any]:
        """Put messages of many keys, so that every lane has some."""
        task = app.tasks["celery_stargate.produce"]
        return [task.delay((str(number), f"{number}")) for number in range(count)]

    def test_two_have_about_half_each(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """Also where the first one had them all before the second came."""
        one, two = self.apps(make_app, local.url, lanes=6, lease=1.0)
        with Acknowledger(one):
            for result in self.fill(one, 60):
                result.get(timeout=10)
            assert len(set(self.owners(one, topic, 6))) == 1
            with Acknowledger(two):

                def fair() -> bool:
                    owners = self.owners(one, topic, 6)
                    # Seven lanes with that of the contexts: four and three.
                    counts = sorted(owners.count(each) for each in set(owners) if each)
                    return None not in owners and counts in ([2, 4], [3, 3])

                wait_for(fair, 10.0, "a fair share")
                for result in self.fill(two, 60):
                    result.get(timeout=10)
            # The one that is left takes up the others' lanes at once.
            wait_for(lambda: len(set(self.owners(one, topic, 6))) == 1, 5.0)
            for result in self.fill(one, 60):
                result.get(timeout=10)
        assert len(local.payloads(topic)) == 180

    def test_a_stopped_ones_lane_is_taken_over_long_before_its_lease_ends(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """It is given back, and the others are told."""
        one, two = self.apps(make_app, local.url, lease=30.0)
        first, second = Acknowledger(one), Acknowledger(two)
        first.start()
        task = one.tasks["celery_stargate.produce"]
        task.delay("a").get(timeout=10)
        second.start()
        wait_for(lambda: Stargate.of(two).lanes.registry.survey()[0] == 2, 5.0)
        first.stop()
        with elapsed() as seconds:
            assert task.delay("b").get(timeout=10)["status"] == "stored"
        second.stop()
        assert seconds() < 5
        assert local.payloads(topic) == [b"a", b"b"]

    def test_a_calling_process_hands_its_lanes_to_a_worker(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """At once, long before its lease ends, and stops to own lanes itself."""
        app = make_app(local.url, lease=30.0)
        stargate = Stargate.of(app)
        stargate.produce("a")
        [own] = self.owners(app, topic, 1)
        assert own is not None
        with Acknowledger(make_app(local.url, lease=30.0)), elapsed() as seconds:
            wait_for(lambda: self.owners(app, topic, 1)[0] not in (own, None), 10.0)
            assert seconds() < 5
            assert stargate.produce("b").status == "stored"
        assert local.payloads(topic) == [b"a", b"b"]

    def test_a_frozen_ones_lane_is_taken_over_and_it_is_fenced(
        self,
        make_app: MakeApp,
        local: LocalPulsar,
        topic: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Its loop stands still for longer than the lease; all is stored, in order."""
        one, two = self.apps(make_app, local.url, lease=0.6)
        task = one.tasks["celery_stargate.produce"]
        with Acknowledger(one) as frozen:
            task.delay("0").get(timeout=10)
            with Acknowledger(two):
                loop = frozen._delivery.loop  # noqa: SLF001
                assert loop is not None
                thawed = threading.Event()
                loop.call_soon_threadsafe(thawed.wait, 15)
                results = [task.delay(str(number)) for number in range(1, 21)]
                try:
                    for result in results:
                        assert result.get(timeout=10)["status"] == "stored"
                finally:
                    thawed.set()
                later = [task.delay(str(number)) for number in range(21, 41)]
                for result in later:
                    result.get(timeout=10)
                wait_for(lambda: "another owner has it now" in caplog.text, 5.0)
        found = local.payloads(topic)
        assert list(dict.fromkeys(found)) == [b"%d" % number for number in range(41)]

    def test_a_dead_ones_lane_is_taken_over_within_two_leases(
        self, make_app: MakeApp, local: LocalPulsar, topic: str
    ) -> None:
        """Its loop ends without a word: no release, no close, as after kill -9."""
        one, two = self.apps(make_app, local.url, lease=1.0)
        task = one.tasks["celery_stargate.produce"]
        dying = Acknowledger(one)
        dying.start()
        task.delay("0").get(timeout=10)
        with Acknowledger(two):
            local.faults.hold_receipts()
            results = [task.delay(str(number)) for number in range(1, 101)]
            local.wait_for_messages(topic, 101)
            loop = dying._delivery.loop  # noqa: SLF001
            assert loop is not None
            dying._delivery._stop.set()  # noqa: SLF001  # or its thread would start again
            hanging = threading.Event()
            loop.call_soon_threadsafe(hanging.wait, 30)
            died = time.monotonic()
            local.drop_connections()
            local.faults.clear()
            try:
                for result in results:
                    assert result.get(timeout=20)["status"] == "stored"
                # Two leases, and what a busy machine takes.
                assert time.monotonic() - died < 2 * 1.0 + 5
            finally:
                hanging.set()
            dying.stop(timeout=0)
        found = local.payloads(topic)
        assert list(dict.fromkeys(found)) == [b"%d" % number for number in range(101)]

    def test_a_new_lane_is_picked_up_at_once(self, make_app: MakeApp, local: LocalPulsar) -> None:
        """Not at the next look around, which would be ten seconds later here."""
        app = make_app(local.url, lease=30.0)
        task = app.tasks["celery_stargate.produce"]
        with Acknowledger(app):
            task.delay("x").get(timeout=10)
            for _ in range(3):
                topic = f"persistent://public/default/new-{uuid.uuid4().hex[:8]}"
                with elapsed() as seconds:
                    task.delay("x", topic=topic).get(timeout=20)
                assert seconds() < 8

    def test_redis_that_restarts_with_nothing_is_joined_again(
        self, make_app: MakeApp, local: LocalPulsar, tmp_path: Path
    ) -> None:
        """What it lost is outside; but new messages go on, without a restart of ours."""
        from tests.servers import redis as redis_module
        from tests.servers.fixtures import require
        from tests.servers.redis import RedisServer

        require(redis_module.missing_reason())
        with RedisServer(tmp_path / "redis") as server:
            app = make_app(local.url, redis_url=server.url, lease=1.0)
            task = app.tasks["celery_stargate.produce"]
            with Acknowledger(app):
                for number in range(20):
                    task.delay(str(number)).get(timeout=10)
                server.kill()
                server.start()
                assert task.delay("after").get(timeout=15)["status"] == "stored"
            Stargate.of(app).close()


class TestWithReal:
    """The same on the real broker, once."""

    @pytest.mark.smoke
    def test_delay_and_get_without_a_worker_process(
        self, app: Celery, topic: str, pulsar: PulsarAddress
    ) -> None:
        """The acknowledger of this process does all of it."""
        task = app.tasks["celery_stargate.produce"]
        with Acknowledger(app):
            results = [task.delay(f"{number}") for number in range(100)]
            entries = [result.get(timeout=10)["entry_id"] for result in results]
        assert entries == list(range(100))
        assert read_back(pulsar.url, topic, 100) == [b"%d" % number for number in range(100)]


def test_contexts_lane_has_a_name_of_its_own() -> None:
    """No topic can be taken for it."""
    assert Lane.parse(Lane(CONTEXTS).name) == Lane(CONTEXTS)
    assert not Lane(CONTEXTS).has_messages


def test_an_acknowledger_started_inside_a_loop(app: Celery) -> None:
    """An asyncio web server may hold one: it has a loop of its own."""

    async def serve() -> Any:
        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("ctx")
            acknowledger.ack(Receipt(context="ctx", value=1))
            return await asyncio.wait_for(asyncio.wrap_future(future), 5)

    assert asyncio.run(serve()).value == 1
