"""The relay: what the commit's own hand-over missed, in order per key."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signature
from celery.exceptions import QueueNotFound
from django.db import DatabaseError, transaction
from django.test import override_settings
from django.utils import timezone
from kombu.exceptions import OperationalError

from celery_stargate import StoreUnavailable
from celery_stargate.contrib.django import lanes, outbox, sweep
from celery_stargate.contrib.django.closing import close_row, close_rows
from celery_stargate.contrib.django.models import OutboxMessage, OutboxRelay, OutboxShard
from celery_stargate.contrib.django.operations import discard, requeue
from celery_stargate.contrib.django.relay import Relay, run_burst
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.shards import SHARDS, shard_of
from celery_stargate.contrib.django.states import State
from celery_stargate.support.stop_event import StopEvent
from tests.django_project.world import TOPIC, FakeLanes

pytestmark = pytest.mark.usefixtures("using")

LATE = override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def relay(clock: Clock | None = None, **settings: Any) -> Relay:
    chosen = replace(OutboxSettings.read(), **settings)
    return Relay("default", StopEvent(), chosen, monotonic=clock or Clock())


def late(*messages: Any, **options: Any) -> list[outbox.Handle]:
    """Write messages that only the relay hands over."""
    with LATE, transaction.atomic():
        return outbox.produce_many(messages, **options)


def test_a_burst_hands_over_all_in_order(fake: FakeLanes) -> None:
    late(*[("k", f"{n}") for n in range(25)])
    assert run_burst("default", batch_size=10) == 25
    assert fake.payloads() == [f"{n}" for n in range(25)]
    assert OutboxMessage.objects.filter(state=State.RECORDED).count() == 25
    assert run_burst("default") == 0
    # The leases are free again.
    assert not OutboxRelay.objects.exists()
    assert not OutboxShard.objects.exclude(owner="").exists()


def test_a_row_that_becomes_visible_late_is_not_skipped(fake: FakeLanes) -> None:
    """Its id is lower than those that were handed over before."""
    first, second = late("one", "two")
    row = first.row()
    OutboxMessage.objects.filter(pk=row.pk).delete()
    run_burst("default")
    row.save(force_insert=True)
    run_burst("default")
    assert fake.payloads() == ["two", "one"]
    assert [first.state(), second.state()] == [State.RECORDED, State.RECORDED]


def test_a_relay_that_died_before_its_note_sends_nothing_twice(fake: FakeLanes) -> None:
    (handle,) = late("one")
    one = relay()
    one.one_pass = lambda: 0  # type: ignore[method-assign]
    one.leases.keep()
    one.put(one._prepare(one.read())[0])
    one.leases.release()
    assert handle.state() is State.PENDING
    assert run_burst("default") == 1
    assert len(fake.sent) == 1 and handle.state() is State.RECORDED


def test_two_relays_share_the_shards(fake: FakeLanes) -> None:
    """The first gives up half; every shard has one owner; what one gives up the other gets."""
    clock = Clock()
    one, two = relay(clock), relay(clock)
    one.leases.keep()
    assert len(one.leases.held) == SHARDS
    two.leases.keep()
    assert not two.leases.held
    clock.now += 6
    one.leases.keep()
    clock.now += 6
    two.leases.keep()
    assert len(one.leases.held) == len(two.leases.held) == SHARDS // 2
    assert not one.leases.held.keys() & two.leases.held.keys()
    one.leases.release()
    clock.now += 6
    two.leases.keep()
    assert len(two.leases.held) == SHARDS


def test_a_dead_relays_shards_are_taken_when_the_lease_has_ended(fake: FakeLanes) -> None:
    """Under a greater fencing token, which fences the dead one should it come back."""
    late("one")
    clock = Clock()
    dead, other = relay(), relay(clock)
    dead.leases.keep()
    rows = dead.read()
    other.leases.keep()
    assert not other.leases.held
    past = timezone.now() - timedelta(seconds=1)
    OutboxShard.objects.update(expires_at=past)
    OutboxRelay.objects.filter(name=dead.leases.name).update(seen_at=past - timedelta(hours=1))
    clock.now += 6
    other.leases.keep()
    assert len(other.leases.held) == SHARDS
    assert all(token == 2 for token in other.leases.held.values())
    # It comes back: it puts what is put already, and its note changes nothing.
    assert dead.hand_over(rows) == 0
    assert OutboxMessage.objects.get().state == State.PENDING
    assert other.one_pass() == 1
    assert len(fake.sent) == 1


def test_a_relay_that_was_paused_beyond_its_lease_begins_nothing(fake: FakeLanes) -> None:
    late("one")
    clock = Clock()
    paused = relay(clock)
    paused.leases.keep()
    rows = paused.read()
    clock.now += 60
    assert paused.hand_over(rows) == 0
    assert not fake.sent


def test_a_redis_that_is_away_leaves_all_rows(fake: FakeLanes) -> None:
    (handle,) = late("one")
    fake.away = True
    with pytest.raises(StoreUnavailable):
        run_burst("default")
    assert handle.state() is State.PENDING


def test_a_full_lane_holds_its_topic_and_no_other(fake: FakeLanes) -> None:
    """It is tried again after the poll."""
    others = "persistent://public/default/others"
    late(*["x"] * 10)
    late("y", topic=others)
    fake.full.add(TOPIC)
    clock = Clock()
    one = relay(clock, batch_size=10)
    assert one.one_pass() == 0
    assert one.one_pass() == 1
    assert fake.payloads() == ["y"]
    fake.full.clear()
    assert one.one_pass() == 0
    clock.now += 1.1
    assert one.one_pass() == 10


def test_a_poison_row_is_set_aside_and_tells_why(fake: FakeLanes) -> None:
    """Other rows of its key pass."""
    bad, good = late(("k", "one"), ("k", "two"), on_error=signature("shop.fail"))
    OutboxMessage.objects.filter(uuid=bad.uuid).update(attributes={"event_time": "yesterday"})
    assert run_burst("default") == 2
    row = bad.row()
    assert (row.state, row.code) == (State.REFUSED, "invalid") and "yesterday" in row.reason
    assert good.state() is State.RECORDED
    ((_, outcome, _),) = fake.called
    assert outcome["status"] == "refused" and outcome["context"] == bad.context


def test_by_setting_a_poison_row_blocks_its_key(fake: FakeLanes) -> None:
    """Until an operator requeues or discards it; other keys pass."""
    bad, good, *_ = late(("k", "one"), ("k", "two"), ("other", "three"))
    OutboxMessage.objects.filter(uuid=bad.uuid).update(attributes={"event_time": "yesterday"})
    with override_settings(CELERY_STARGATE_OUTBOX_BLOCK_KEY_ON_FAILURE=True):
        run_burst("default")
        run_burst("default")
        assert fake.payloads() == ["three"]
        with transaction.atomic():
            outbox.produce(("k", "four"))
        assert fake.payloads() == ["three"]
        discard(OutboxMessage.objects.filter(uuid=bad.uuid))
        run_burst("default")
    assert fake.payloads() == ["three", "two", "four"]
    assert good.state() is State.RECORDED


def test_a_row_that_fails_unexpectedly_waits_and_is_set_aside_in_the_end(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile it holds back its key, and no other row."""
    bad, behind, _ = late(("k", "one"), ("k", "two"), ("other", "three"))
    original = lanes.prepare

    def prepare(stargate: Any, message: Any, context: str, *rest: Any) -> Any:
        if context == bad.context:
            raise RuntimeError("a bug")
        return original(stargate, message, context, *rest)

    monkeypatch.setattr(lanes, "prepare", prepare)
    clock = Clock()
    one = relay(clock, max_tries=3)
    assert one.one_pass() == 1
    assert one.one_pass() == 0
    assert fake.payloads() == ["three"]
    assert bad.row().tries == 1 and "a bug" in bad.row().reason
    clock.now += 4
    one.one_pass()
    assert behind.state() is State.PENDING
    clock.now += 8
    one.one_pass()
    assert (bad.row().state, bad.row().code) == (State.REFUSED, "poison")
    one.one_pass()
    assert fake.payloads() == ["three", "two"]


def test_many_keys_that_wait(fake: FakeLanes) -> None:
    """SQLite takes no condition for each of more than 1,000; other keys and topics go on."""
    topics = (TOPIC, f"{TOPIC}-others")
    waiting, goes = late(("k0", "1"), ("other", "2"))
    (elsewhere,) = late(("k1200", "3"), topic=topics[1])
    made = relay()
    for number in range(1200):
        for topic in topics:
            row: Any = SimpleNamespace(topic=topic, key=f"k{number}")
            made._held_back.hold(row, 60.0)
    made.leases.keep()
    assert [row.uuid for row in made.read()] == [goes.uuid, elsewhere.uuid]
    assert waiting.row().state == State.PENDING


def test_a_row_without_a_key_that_fails_waits_alone(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not read again before its time, so that it holds up nothing."""
    bad, _ = late("one", "two")
    original, tried = lanes.prepare, []

    def prepare(stargate: Any, message: Any, context: str, *rest: Any) -> Any:
        if context == bad.context:
            tried.append(context)
            raise RuntimeError("a bug")
        return original(stargate, message, context, *rest)

    monkeypatch.setattr(lanes, "prepare", prepare)
    clock = Clock()
    one = relay(clock)
    assert one.one_pass() == 1
    late("three")
    assert one.one_pass() == 1
    assert (fake.payloads(), len(tried)) == (["two", "three"], 1)
    clock.now += 4
    one.one_pass()
    assert len(tried) == bad.row().tries == 2


def test_a_row_is_not_set_aside_before_its_callback_is_published(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker is away: the row waits, says so, and is set aside later."""
    (bad,) = late("one", on_error=signature("shop.fail"))
    OutboxMessage.objects.filter(uuid=bad.uuid).update(attributes={"event_time": "yesterday"})

    def away(*_: Any) -> None:
        raise OperationalError("the broker is away")

    clock = Clock()
    one = relay(clock)
    with monkeypatch.context() as broken:
        broken.setattr(lanes, "trigger", away)
        assert one.one_pass() == 0
    assert bad.state() is State.PENDING
    assert bad.row().reason.endswith("; its callback was not published: the broker is away")
    clock.now += 4
    assert one.one_pass() == 1
    assert (bad.state(), len(fake.called)) == (State.REFUSED, 1)


def test_the_reason_of_a_row_holds_no_payload(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repr of some errors has what they could not read."""
    (handle,) = late("one")

    def prepare(*_: Any) -> Any:
        raise UnicodeDecodeError("utf-8", b"my secret", 3, 4, "invalid start byte")

    monkeypatch.setattr(lanes, "prepare", prepare)
    relay().one_pass()
    assert handle.row().reason.startswith("UnicodeDecodeError: 'utf-8' codec")
    assert "secret" not in handle.row().reason


def test_a_callback_that_can_never_be_published_stops_no_other_row(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own row is closed, and says so; what may pass is tried again."""
    bad, good = late("one", "two", on_ack=signature("shop.done"))
    run_burst("default")
    error: Exception = QueueNotFound("no queue")

    def trigger(stargate: Any, packed: str, outcome: dict[str, Any], task_id: str) -> None:
        if outcome["context"] == bad.context:
            raise error
        fake.trigger(stargate, packed, outcome, task_id)

    monkeypatch.setattr(lanes, "trigger", trigger)
    outcomes = [fake.receipt(each.context) for each in (bad, good)]
    assert close_rows("default", outcomes) == 2
    assert (bad.state(), good.state()) == (State.STORED, State.STORED)
    assert bad.row().reason == "on_ack was not published: QueueNotFound: 'no queue'"
    assert good.row().reason == "" and len(fake.called) == 1
    (line,) = [each for each in caplog.records if each.name == "celery_stargate.contrib"]
    assert vars(line)["context"] == bad.context

    error = OperationalError("away")
    (bad,) = late("three", on_ack=signature("shop.done"))
    run_burst("default")
    with pytest.raises(OperationalError):
        close_rows("default", [fake.receipt(bad.context)])
    assert bad.state() is State.RECORDED


def aged(handle: outbox.Handle, seconds: float) -> None:
    moment = timezone.now() - timedelta(seconds=seconds)
    OutboxMessage.objects.filter(uuid=handle.uuid).update(recorded_at=moment)


def test_a_row_that_redis_lost_is_sent_again_under_the_same_context(fake: FakeLanes) -> None:
    with transaction.atomic():
        handle, kept = outbox.produce_many(["one", "two"])
    aged(handle, 100)
    aged(kept, 100)
    del fake.known[handle.context]
    one = relay()
    one.one_pass()
    assert (handle.state(), kept.state()) == (State.PENDING, State.RECORDED)
    assert one.one_pass() == 1
    assert [each.context for each in fake.sent] == [handle.context, kept.context, handle.context]


def test_a_row_that_nobody_looked_at_for_too_long_is_unknown(fake: FakeLanes) -> None:
    """Redis may have forgotten that it ended: to send it again could store it twice."""
    with transaction.atomic():
        handle = outbox.produce("one", on_error=signature("shop.fail"))
    aged(handle, 4000)
    fake.known.clear()
    one = relay()
    one.one_pass()
    assert (handle.state(), handle.row().code) == (State.UNKNOWN, "no-outcome")
    assert len(fake.called) == 1


def test_what_redis_may_have_forgotten_is_not_sent_again(fake: FakeLanes) -> None:
    """Its lane had more ended contexts than it keeps: the row waits for its closing task."""
    with transaction.atomic():
        handles = [outbox.produce("one"), outbox.produce("two")]
    for handle, age in zip(handles, (100, 6000), strict=True):
        aged(handle, age)
        fake.known[handle.context] = lanes.Found("forgotten")
    relay().one_pass()
    assert [handle.state() for handle in handles] == [State.RECORDED, State.UNKNOWN]
    assert fake.payloads() == ["one", "two"]


def test_while_a_relay_looks_a_long_wait_is_no_loss(fake: FakeLanes) -> None:
    """Pulsar is away for hours; the row was seen in its lane, and then Redis lost it."""
    with transaction.atomic():
        handle = outbox.produce("one")
    aged(handle, 40_000)
    clock = Clock()
    one = relay(clock)
    one.one_pass()
    assert handle.state() is State.RECORDED
    fake.known.clear()
    clock.now += 61
    one.one_pass()
    assert handle.state() is State.PENDING


def test_a_look_goes_on_page_by_page(fake: FakeLanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that rows that are pending do not wait for it; a burst looks to the end."""
    monkeypatch.setattr(sweep, "_PAGE", 2)
    with transaction.atomic():
        handles = outbox.produce_many([f"{n}" for n in range(5)])
    for each in handles:
        aged(each, 100)
    fake.known.clear()
    one = relay()
    one.one_pass()
    assert [each.state() for each in handles].count(State.PENDING) == 2
    assert OutboxShard.objects.filter(verified_at=None).count() == SHARDS
    one.leases.release()
    assert run_burst("default") == 5
    assert not OutboxShard.objects.filter(verified_at=None).exists()
    assert OutboxMessage.objects.filter(state=State.RECORDED).count() == 5


def test_what_was_looked_at_lately_is_not_looked_at_by_the_next_process(fake: FakeLanes) -> None:
    """As with a burst each few seconds, by Celery beat."""
    with transaction.atomic():
        handle = outbox.produce("one")
    run_burst("default")
    aged(handle, 100)
    fake.known.clear()
    run_burst("default")
    assert handle.state() is State.RECORDED


def test_a_lost_closing_task_makes_the_row_unknown_in_the_end(fake: FakeLanes) -> None:
    with transaction.atomic():
        handle = outbox.produce("one")
    aged(handle, 40_000)
    fake.known[handle.context] = lanes.Found("ended", 60.0)
    clock = Clock()
    one = relay(clock)
    one.one_pass()
    assert handle.state() is State.RECORDED
    fake.known[handle.context] = lanes.Found("ended", 5500.0)
    clock.now += 61
    one.one_pass()
    assert handle.state() is State.UNKNOWN


def test_a_requeued_row_goes_under_a_new_context(fake: FakeLanes) -> None:
    """The id stays, the attempt counts, the history is kept; the old outcome closes nothing."""
    with transaction.atomic():
        handle = outbox.produce("one")
    close_row("default", fake.failure(handle.context))
    assert requeue(OutboxMessage.objects.all()) == 1
    row = handle.row()
    assert (row.state, row.attempt, row.context) == (State.PENDING, 2, f"{handle.uuid}.2")
    assert row.history[0]["reason"] == "no such topic"
    assert not close_row("default", fake.receipt(handle.context))
    run_burst("default")
    assert fake.sent[-1].context == f"{handle.uuid}.2"
    # Whoever replayed its dead letter now would send it beside the row.
    assert fake.forgotten == [{TOPIC: [handle.context]}]
    assert close_row("default", fake.receipt(f"{handle.uuid}.2"))
    assert requeue(OutboxMessage.objects.all()) == 0


def test_a_discarded_row_is_no_dead_letter(
    fake: FakeLanes, caplog: pytest.LogCaptureFixture
) -> None:
    """As far as Redis is there: the row is discarded all the same."""
    with transaction.atomic():
        first, second = outbox.produce_many(["one", "two"])
    for each in (first, second):
        close_row("default", fake.failure(each.context))
    assert discard(OutboxMessage.objects.filter(uuid=first.uuid)) == 1
    assert fake.forgotten == [{TOPIC: [first.context]}]
    fake.away = True
    assert discard(OutboxMessage.objects.all()) == 1
    assert "dead letters of 1 discarded outbox rows stay: Redis is away" in caplog.text


def test_to_discard_nothing_asks_nobody(fake: FakeLanes) -> None:
    """Redis is not needed where no row has failed."""
    with transaction.atomic():
        handle = outbox.produce("one")
    assert discard(OutboxMessage.objects.all()) == 0
    assert (handle.state(), fake.forgotten) == (State.RECORDED, [])


@pytest.mark.parametrize("status", ["refused", "unknown"])
def test_a_replayed_dead_letter_closes_the_row_that_failed(fake: FakeLanes, status: str) -> None:
    """It reports under the context of the attempt; one that fails again changes nothing."""
    with transaction.atomic():
        handle = outbox.produce("one", on_ack=signature("shop.paid"))
    assert close_row("default", fake.failure(handle.context, status))
    assert not close_row("default", fake.failure(handle.context, "refused"))
    assert close_row("default", fake.receipt(handle.context))
    assert handle.state() is State.STORED
    assert [outcome["status"] for _, outcome, _ in fake.called] == ["stored"]
    assert not close_row("default", fake.receipt(handle.context))


def test_a_burst_goes_on_where_the_database_was_slow(fake: FakeLanes) -> None:
    """The leases end before a batch is put: it is read again; but not for ever."""
    late("one")
    moment = [0.0]
    one = Relay("default", StopEvent(), OutboxSettings(), monotonic=lambda: moment[0])
    read, slow = one.read, [True, True]

    def slowly() -> Any:
        found = read()
        if slow:
            slow.pop()
            moment[0] += 100.0
        return found

    one.read = slowly  # type: ignore[method-assign]
    assert one.run(burst=True) == 1
    assert fake.payloads() == ["one"]
    late("two")
    slow.extend([True] * 1000)
    assert one.run(burst=True) == 0


def test_a_burst_looks_through_all_rows_before_it_ends(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page, although nothing is left to hand over."""
    monkeypatch.setattr(sweep, "_PAGE", 2)
    with transaction.atomic():
        handles = outbox.produce_many([f"{n}" for n in range(5)])
    for each in handles:
        aged(each, 100)
    asked: list[str] = []
    find = lanes.find_contexts

    def noted(stargate: Any, places: Any, **given: Any) -> Any:
        asked.extend(context for _, context in places)
        return find(stargate, places, **given)

    monkeypatch.setattr(lanes, "find_contexts", noted)
    assert run_burst("default") == 0
    assert asked == [each.context for each in handles]
    assert not OutboxShard.objects.filter(verified_at=None).exists()


def test_a_relay_tries_again_where_redis_or_the_database_is_away(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ever more seldom, and from the beginning after a pass that went well. Each pass is told."""

    class Stop(StopEvent):
        """Is not waited for: what is away is back after three waits."""

        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            fake.away = len(waits) % 3 != 0
            return False

    def passed() -> None:
        passes.append(len(waits))
        if fake.away:
            return
        fake.away = True
        late(f"{len(passes)}")
        if len(waits) == 6:
            stop.set()

    waits: list[float | None] = []
    passes: list[int] = []
    stop = Stop()
    fake.away = True
    late("0")
    one = Relay("default", stop, OutboxSettings.read(), monotonic=Clock())
    assert one.run(on_pass=passed) == 2
    assert (waits, passes) == ([0.5, 1.0, 2.0, 0.5, 1.0, 2.0], [0, 1, 2, 3, 3, 4, 5, 6])
    assert "the outbox relay tries again in 2.0 s: Redis is away" in caplog.text


def test_a_relay_that_cannot_give_its_leases_back_ends(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They end by themselves."""
    late("one")
    one = relay()

    def away() -> None:
        raise DatabaseError("the database is away")

    monkeypatch.setattr(one.leases, "release", away)
    assert one.run(burst=True) == 1
    assert "leases end by themselves: the database is away" in caplog.text


def test_a_stopped_relay_ends_after_its_batch(fake: FakeLanes) -> None:
    late(*["x"] * 20)
    one = relay(batch_size=10)
    assert one.run(on_pass=one._stop.set) == 10


def test_the_same_key_has_the_same_shard_and_keys_are_spread() -> None:
    same = {shard_of(TOPIC, "k", uuid.uuid4()) for _ in range(20)}
    assert len(same) == 1
    spread = {shard_of(TOPIC, None, uuid.uuid4()) for _ in range(2000)}
    assert spread == set(range(SHARDS))
