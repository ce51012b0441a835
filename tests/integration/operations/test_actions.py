"""What operators do to contexts: settled once, with the truth, and told to who must know."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from celery_stargate import Acknowledger, Failure, ProduceError, Receipt, Stargate
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record, encode_outcome
from celery_stargate.operations import actions as actions_module
from celery_stargate.operations.actions import Actions, Change, Changed
from celery_stargate.operations.audit import Audit, operator
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.reading import LaneReader
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import MakeOwner, put, receipt
from tests.integration.rig import Triggered, read_back, record_only

_CALLBACK = (
    '{"task":"shop.told","args":[],"kwargs":{},"options":{},"subtask_type":null,"immutable":false}'
)


@pytest.fixture
def app(make_app: MakeApp) -> Celery:
    """An app whose Pulsar is away."""
    return make_app("ws://127.0.0.1:1")


@pytest.fixture
def actions(app: Celery, reader: LaneReader, prefix: str) -> Actions:
    """What is tested."""
    stargate = Stargate.of(app)
    return Actions(reader, stargate.lanes, stargate.runtime.effects, prefix)


def put_told(outbox: Outbox, lane: Lane, context: str) -> None:
    """Put a message whose outcome triggers a callback."""
    record = Record(context, on_ack=_CALLBACK, on_error=_CALLBACK)
    outbox.put(lane, record, [(context, b"frame")], timeout=60.0)


def test_cancels_what_was_never_sent_as_refused(
    actions: Actions, outbox: Outbox, lane: Lane, contexts: ContextInspector, app: Celery
) -> None:
    put_told(outbox, lane, "a")
    change = actions.cancel("a", "wrong topic")
    assert (change.result, change.status) == (Changed.DONE, "refused")
    assert contexts.find("a") is None
    assert outbox.backlog(lane) == 0
    [told] = Triggered(app).next()["args"]
    assert (told["status"], told["code"]) == ("refused", "cancelled")
    assert told["reason"] == f"cancelled by {operator()}: wrong topic"
    assert Triggered(app).none()


def test_cancels_what_may_have_been_sent_as_unknown(
    actions: Actions, outbox: Outbox, lane: Lane, make_owner: MakeOwner
) -> None:
    put(outbox, lane, "a")
    put(outbox, lane, "b")
    owner = make_owner()
    owner.do(owner.store.read(0, 1, 1 << 20, mark=True))
    assert actions.cancel("a").status == "unknown"
    assert actions.cancel("b").status == "refused"


def test_a_send_between_look_and_step_is_seen(
    actions: Actions,
    outbox: Outbox,
    lane: Lane,
    make_owner: MakeOwner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(outbox, lane, "a")
    owner = make_owner()
    seen: list[str] = []

    def encode_late(outcome: Failure | Receipt) -> bytes:
        if not seen:
            owner.do(owner.store.read(0, 1, 1 << 20, mark=True))
        seen.append(outcome.status)
        return encode_outcome(outcome)

    monkeypatch.setattr(actions_module, "encode_outcome", encode_late)
    assert actions.cancel("a").status == "unknown"
    assert seen == ["refused", "unknown"]


def test_a_lane_that_never_rests_gives_unknown(
    actions: Actions, outbox: Outbox, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, lane, "a")
    puts = iter(range(1000))

    def encode_late(outcome: Failure | Receipt) -> bytes:
        put(outbox, lane, f"other-{next(puts)}")
        return encode_outcome(outcome)

    monkeypatch.setattr(actions_module, "encode_outcome", encode_late)
    change = actions.cancel("a")
    assert (change.result, change.status) == (Changed.DONE, "unknown")


def test_cancels_a_context_without_a_message(
    actions: Actions, outbox: Outbox, contexts: ContextInspector
) -> None:
    outbox.put(CONTEXTS_LANE, Record("order-17"), [], timeout=60.0)
    assert actions.cancel("order-17").status == "refused"
    assert contexts.find("order-17") is None


def test_cancels_a_list_message_by_message(
    actions: Actions, outbox: Outbox, lane: Lane, make_owner: MakeOwner, app: Celery
) -> None:
    record = Record("a", is_list=True, on_error=_CALLBACK)
    messages = [(f"a\t{place}", b"frame") for place in range(3)]
    outbox.put(lane, record, messages, timeout=60.0)
    owner = make_owner()
    owner.do(owner.store.read(0, 2, 1 << 20, mark=True))
    owner.settle([("a", 0, receipt("a"))], "t")
    assert actions.cancel("a").result is Changed.DONE
    [told] = Triggered(app).next()["args"]
    assert [each["status"] for each in told["outcomes"]] == ["stored", "unknown", "refused"]


def test_cancels_a_large_list_by_small_steps(
    actions: Actions,
    outbox: Outbox,
    lane: Lane,
    app: Celery,
    contexts: ContextInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One step for all of them would hold Redis; the last one settles the list."""
    steps: list[int] = []
    settle_some = actions._settle_some  # noqa: SLF001

    def counted(*given: Any) -> Change:
        steps.append(len(given[3]))
        return settle_some(*given)

    monkeypatch.setattr(actions, "_settle_some", counted)
    record = Record("a", is_list=True, on_error=_CALLBACK)
    outbox.put(lane, record, [(f"a\t{n}", b"frame") for n in range(45)], timeout=60.0)
    assert actions.cancel("a").result is Changed.DONE
    assert steps == [20, 20, 5]
    [told] = Triggered(app).next()["args"]
    assert [each["status"] for each in told["outcomes"]] == ["refused"] * 45
    assert list(contexts.pending()) == []
    assert outbox.backlog(lane) == 0


def test_cancels_a_list_that_spans_lanes(
    make_app: MakeApp, reader: LaneReader, prefix: str, contexts: ContextInspector
) -> None:
    app = make_app("ws://127.0.0.1:1", lanes=4)
    stargate = Stargate.of(app)
    actions = Actions(reader, stargate.lanes, stargate.runtime.effects, prefix)
    with Acknowledger(app):  # so that the call starts none of its own
        context = stargate.produce(
            [(f"key-{n}", "x") for n in range(20)],
            on_error=app.signature("shop.told"),
        )
        assert actions.cancel(context).result is Changed.DONE
    [told] = Triggered(app).next()["args"]
    assert len(told["outcomes"]) == 20
    assert {each["code"] for each in told["outcomes"]} == {"cancelled"}
    assert list(contexts.pending()) == []


def test_nothing_of_a_cancelled_context_is_sent(
    make_app: MakeApp, local: LocalPulsar, reader: LaneReader, prefix: str, topic: str
) -> None:
    app = make_app(local.url)
    stargate = Stargate.of(app)
    actions = Actions(reader, stargate.lanes, stargate.runtime.effects, prefix)
    record_only(stargate, "cancelled", "a", topic)
    actions.cancel("a")
    stargate.produce("sent")
    assert read_back(local.url, topic, 1) == [b"sent"]


@pytest.mark.parametrize("status", ["stored", "refused"])
def test_releases_with_the_outcome_that_the_operator_knows(
    actions: Actions, outbox: Outbox, lane: Lane, app: Celery, status: Any
) -> None:
    put_told(outbox, lane, "a")
    assert actions.release("a", status, "seen in the topic").status == status
    [told] = Triggered(app).next()["args"]
    assert told["status"] == status
    assert told["topic"] == lane.topic


def test_a_release_lets_a_waiter_go(make_app: MakeApp, reader: LaneReader, prefix: str) -> None:
    app = make_app("ws://127.0.0.1:1")
    stargate = Stargate.of(app)
    actions = Actions(reader, stargate.lanes, stargate.runtime.effects, prefix)
    with Acknowledger(app) as acknowledger:
        stored = acknowledger.produce("order-17", timeout=20)
        refused = acknowledger.produce("order-18", timeout=20)
        actions.release("order-17", "stored")
        actions.release("order-18", "refused", "out of stock")
        assert stored.result(20).status == "stored"
        with pytest.raises(ProduceError, match="out of stock"):
            refused.result(20)


def test_retries_the_effects_of_a_settled_context(
    actions: Actions, outbox: Outbox, lane: Lane, contexts: ContextInspector, app: Celery
) -> None:
    put_told(outbox, lane, "a")
    assert actions.retry("a").result is Changed.PENDING
    outbox.settle(lane, Receipt(context="a", ledger_id=7))
    assert (actions.retry("a").result, actions.retry("a").result) == (
        Changed.DONE,
        Changed.MISSING,
    )
    [told] = Triggered(app).next()["args"]
    assert told["ledger_id"] == 7
    assert contexts.find("a") is None


def test_a_context_is_settled_once(actions: Actions, outbox: Outbox, lane: Lane) -> None:
    put(outbox, lane, "a")
    outbox.settle(lane, Receipt(context="a"))
    assert actions.cancel("a").result is Changed.SETTLED
    assert actions.release("a", "refused").result is Changed.SETTLED
    assert actions.cancel("nothere").result is Changed.MISSING


def test_leaves_a_record_of_another_version_alone(
    actions: Actions, outbox: Outbox, lane: Lane, reader: LaneReader
) -> None:
    put(outbox, lane, "a")
    reader.redis.hset(reader.key(lane, "contexts"), "a", "9 later\n{}")
    assert actions.cancel("a").result is Changed.UNREADABLE
    assert reader.redis.hget(reader.key(lane, "contexts"), "a") == b"9 later\n{}"


def test_notes_who_did_what(
    actions: Actions, outbox: Outbox, lane: Lane, reader: LaneReader
) -> None:
    put(outbox, lane, "a")
    actions.cancel("a", "wrong topic")
    [noted] = Audit(reader.redis, reader.registry).last(10)
    assert (noted.who, noted.what) == (operator(), "cancel")
    assert noted.details["context"] == "a"
    assert noted.details["status"] == "refused"
    assert noted.at == pytest.approx(reader.now(), abs=5.0)


def test_effects_that_cannot_be_done_now(
    outbox: Outbox, lane: Lane, reader: LaneReader, prefix: str
) -> None:
    """The context is settled, its effects stay due, and the operator is told."""

    class Interrupted:
        def run(self, settled: Any) -> list[str]:
            return []

    effects: Any = Interrupted()
    actions = Actions(reader, outbox, effects, prefix)
    put_told(outbox, lane, "a")
    change = actions.cancel("a", "wrong topic")
    assert (change.result, change.status) == (Changed.FAILED, "refused")
    assert actions.retry("a").result is Changed.FAILED
    assert reader.redis.hexists(reader.key(lane, "contexts"), "a")


def test_a_context_that_ends_meanwhile(
    actions: Actions, outbox: Outbox, lane: Lane, reader: LaneReader, prefix: str
) -> None:
    """Between the look for its lane and the step: nothing is done, and nothing is noted."""
    put_told(outbox, lane, "a")
    contexts = vars(actions)["_contexts"]
    lane_of = contexts.lane_of

    def gone(context: str) -> Any:
        found = lane_of(context)
        reader.redis.hdel(reader.key(lane, "contexts"), context)
        return found

    vars(contexts)["lane_of"] = gone
    assert actions.cancel("a", "wrong topic").result is Changed.MISSING
    vars(contexts)["lane_of"] = lambda context: lane
    assert actions.retry("a").result is Changed.MISSING
    assert Audit(reader.redis, reader.registry).last(10) == []
