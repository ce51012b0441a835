"""Dead letters: kept in the step that settles, found by cause, and replayed without loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from celery_stargate import Acknowledger, Failure, Message, ProduceError, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.model.frame import encode_frame
from celery_stargate.operations.dead_letters import DeadLetters
from celery_stargate.operations.dead_views import DeadLetterFilter, DeadResult
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import Triggered, wait_for
from tests.servers.fixtures import ServerAddress

REFUSED = "org.apache.pulsar.client.api.PulsarClientException$NotAllowedException: never"
#: How many letters are replayed by processes that are killed; the long form sets 10,000.
MANY = int(os.environ.get("STARGATE_TEST_DEAD_LETTERS", "2000"))


@pytest.fixture
def app(make_app: MakeApp, local: LocalPulsar) -> Celery:
    """An app on LocalPulsar."""
    return make_app(local.url)


@pytest.fixture
def stargate(app: Celery) -> Iterator[Stargate]:
    """Its Stargate."""
    yield Stargate.of(app)
    Stargate.of(app).close()


def fail_many(stargate: Stargate, lane: Lane, count: int) -> None:
    """Let the deadlines of so many messages pass."""
    puts = [
        (lane, Record(f"c{n}"), encode_frame(Message(str(n)), f"c{n}", 10**6)) for n in range(count)
    ]
    # One script's share at a time: nothing but the deadline ends them.
    stargate.lanes.put_many(puts, timeout=0.5)
    time.sleep(0.6)
    while settled := stargate.lanes.expire(lane):
        stargate.lanes.finish(lane, settled)


def ids(letters: DeadLetters, **where: Any) -> list[str]:
    """The ids of dead letters."""
    return [each.id for each in letters.find(DeadLetterFilter(**where))]


def act(changes: Any) -> dict[str, DeadResult]:
    """Do an action to its end."""
    return {each.id: each.result for each in changes}


def test_a_refused_message_is_kept_and_replayed(
    app: Celery, stargate: Stargate, local: LocalPulsar, topic: str
) -> None:
    """With its callback, its result and its id; then nothing is left of it."""
    local.faults.fail_sends(REFUSED, count=1)
    letters = stargate.dead_letters
    with Acknowledger(app):
        result = app.tasks["celery_stargate.produce"].delay(
            {"payload": "a", "key": "k", "properties": {"p": "v"}},
            topic=topic,
            on_ack=app.signature("shop.paid"),
            on_error=app.signature("shop.told"),
        )
        with pytest.raises(ProduceError):
            result.get(timeout=20)
        [found] = letters.find()
        assert (found.id, found.topic, found.kind) == (result.id, topic, "message")
        assert (found.error, found.code) == ("NotAllowedException", "send-error:8")
        assert (found.status, found.failures) == ("refused", 1)
        [detail] = letters.show(result.id)
        assert (detail.on_ack, detail.on_error) == ("shop.paid", "shop.told")
        assert detail.replayable
        triggered = Triggered(app)
        assert triggered.next()["task"] == "shop.told"
        assert act(letters.replay(letters.named([result.id]))) == {result.id: DeadResult.DONE}
        told = triggered.next()
        assert told["task"] == "shop.paid"
        assert told["args"][0]["context"] == result.id
        wait_for(lambda: app.AsyncResult(result.id).state == "SUCCESS")
        assert ids(letters) == []
    [message] = local.messages(topic)
    assert (message.payload, message.key, message.properties) == (b"a", "k", {"p": "v"})


def test_each_failure_of_a_replay_is_counted(
    app: Celery, stargate: Stargate, local: LocalPulsar, topic: str
) -> None:
    """The id stays that of the first attempt, and so does the first failure."""
    local.faults.fail_sends(REFUSED, count=3)
    letters = stargate.dead_letters
    with Acknowledger(app):
        app.tasks["celery_stargate.produce"].apply_async(("a",), task_id="one")
        wait_for(lambda: ids(letters) == ["one"])
        begun = next(letters.letters()).begun
        for failures in (2, 3):
            assert act(letters.replay(letters.named(["one"]))) == {"one": DeadResult.DONE}
            wait_for(lambda: ids(letters) == ["one"])
            letter = next(letters.letters())
            assert (letter.failures, letter.begun) == (failures, begun)
        act(letters.replay(letters.named(["one"])))
        wait_for(lambda: local.payloads(topic) == [b"a"])


def test_messages_of_a_list_are_kept_one_by_one(
    app: Celery, stargate: Stargate, local: LocalPulsar, topic: str
) -> None:
    """Those that are stored are not sent again."""
    local.faults.fail_sends(REFUSED, when=lambda frame: frame.payload in (b"1", b"3"), count=2)
    letters = stargate.dead_letters
    with Acknowledger(app):
        produce = app.tasks["celery_stargate.produce"]
        produce.apply_async((["0", "1", "2", "3"],), task_id="list")
        wait_for(lambda: ids(letters) == ["list[1]", "list[3]"])
        found = letters.named(["list[1]", "list[3]", "list[2]"])
        assert set(act(letters.replay(found)).values()) == {DeadResult.DONE}
        wait_for(lambda: sorted(local.payloads(topic)) == [b"0", b"1", b"2", b"3"])


def test_causes_filters_and_totals(stargate: Stargate, topic: str) -> None:
    """By topic, error and age; each cause is counted."""
    lane, other, letters = Lane(topic), Lane(f"{topic}-2"), stargate.dead_letters
    for of, context, code in ((lane, "a", "http-404"), (lane, "b", "deadline"), (other, "c", "x")):
        stargate.lanes.put(of, Record(context), [(context, b"{}")], timeout=60.0)
        failed = Failure(context=context, topic=of.topic, code=code, reason="no")
        answer = stargate.lanes.settle(of, failed, anyone=True)
        assert answer.settled is not None
        stargate.lanes.finish(of, [answer.settled])
    assert sorted(ids(letters)) == ["a", "b", "c"]
    assert ids(letters, topic=topic, error="http-404") == ["a"]
    assert ids(letters, error="ProduceTimeout") == ["b"]
    assert ids(letters, older_than=3600.0) == []
    totals = letters.totals()
    assert totals.count == 3
    assert [(each.error, each.code, each.count) for each in totals.groups] == [
        ("ProduceError", "http-404", 1),
        ("ProduceTimeout", "deadline", 1),
        ("ProduceError", "x", 1),
    ]
    assert letters.totals(other.topic).count == 1


def test_the_oldest_are_let_go_and_counted(make_app: MakeApp, topic: str) -> None:
    """Above the bounds of the settings."""
    stargate = Stargate.of(make_app("ws://127.0.0.1:1", dead_letters={"max_count": 10}))
    fail_many(stargate, Lane(topic), 25)
    totals = stargate.dead_letters.totals()
    assert (totals.count, totals.evicted) == (10, 15)


def test_what_is_switched_off_or_revoked_is_not_kept(make_app: MakeApp, topic: str) -> None:
    """And costs no key."""
    off = Stargate.of(make_app("ws://127.0.0.1:1", dead_letters=False))
    fail_many(off, Lane(topic), 3)
    assert ids(off.dead_letters) == []
    on = Stargate.of(make_app("ws://127.0.0.1:1"))
    on.lanes.put(Lane(topic), Record("r"), [("r", b"{}")], timeout=60.0)
    assert on.cancel("r")
    assert ids(on.dead_letters) == []


def test_discard_and_archive(stargate: Stargate, topic: str) -> None:
    """What is archived can be restored, and replayed as before."""
    lane, letters = Lane(topic), stargate.dead_letters
    fail_many(stargate, lane, 6)
    assert set(act(letters.discard(letters.named(["c0", "c1"]))).values()) == {DeadResult.DONE}
    written: list[Any] = []
    act(letters.archive(list(letters.letters()), written.extend))
    assert ids(letters) == []
    assert letters.restore(json.loads(json.dumps(written))) == 4
    assert letters.restore(written) == 0
    assert ids(letters) == ["c2", "c3", "c4", "c5"]
    assert set(act(letters.replay(list(letters.letters()))).values()) == {DeadResult.DONE}
    assert stargate.lanes.backlog(lane) == 4
    with pytest.raises(ValueError, match="not an archived"):
        letters.restore([{"id": "x"}])


def test_a_full_lane_takes_no_more(make_app: MakeApp, topic: str) -> None:
    """What does not fit stays a dead letter."""
    stargate = Stargate.of(make_app("ws://127.0.0.1:1", max_backlog=2))
    letters, lane = stargate.dead_letters, Lane(topic)
    for context in ("a", "b", "c"):
        stargate.lanes.put(lane, Record(context), [(context, b"{}")], timeout=60.0)
        failed = Failure(context=context, topic=topic)
        answer = stargate.lanes.settle(lane, failed, anyone=True)
        assert answer.settled is not None
        stargate.lanes.finish(lane, [answer.settled])
    results = list(act(letters.replay(list(letters.letters()))).values())
    assert sorted(results) == ["done", "done", "full"]
    assert len(ids(letters)) == 1


@pytest.mark.parametrize("delivery", ["at_least_once", "effectively_once"])
def test_replay_killed_half_way_and_run_again(
    make_app: MakeApp,
    local: LocalPulsar,
    redis_server: ServerAddress,
    prefix: str,
    topic: str,
    delivery: str,
) -> None:
    """Each is in the topic, none is left, and each was put into its lane once."""
    app = make_app(local.url, delivery=delivery)
    stargate, lane = Stargate.of(app), Lane(topic)
    letters = stargate.dead_letters
    fail_many(stargate, lane, MANY)
    assert letters.totals().count == MANY
    arguments = [sys.executable, "-m", f"{__package__}.replayer", redis_server.url, prefix, topic]
    killed = 0
    while letters.totals().count:
        with subprocess.Popen(
            arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() in ("began\n", "")
            # The first process is killed; the second one does the rest.
            if not killed:
                process.kill()
                killed = letters.totals().count
    assert 0 < killed < MANY
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.xlen(lane.key(prefix, "log")) == MANY
    with Acknowledger(app):
        wait_for(lambda: not stargate.lanes.backlog(lane), timeout=120)
    payloads = [int(each) for each in local.payloads(topic)]
    assert set(payloads) == set(range(MANY))
    if delivery == "effectively_once":
        assert len(payloads) == MANY


def test_an_attempt_that_celery_tries_again_is_no_dead_letter(
    app: Celery, stargate: Stargate, local: LocalPulsar, topic: str
) -> None:
    """Or a replay would send beside the retry."""
    local.faults.fail_sends(REFUSED, count=1)
    retried: dict[str, Any] = {"autoretry_for": (ProduceError,)}
    task = stargate.task("shop.orders", topic=topic, **retried)
    with Acknowledger(app):
        task.delay("a")
        assert Triggered(app).next()["task"] == "shop.orders"
        wait_for(lambda: not pending(stargate, topic))
        assert ids(stargate.dead_letters) == []


def test_effects_that_fail_for_good_are_kept_and_done_again(
    app: Celery, stargate: Stargate, local: LocalPulsar, topic: str
) -> None:
    """The message is stored: only what follows it is repeated, and nothing is sent."""
    letters = stargate.dead_letters
    impossible = app.signature("shop.paid").set(serializer="nobody-knows-it")
    with Acknowledger(app):
        app.tasks["celery_stargate.produce"].apply_async(
            ("a",), {"on_ack": impossible}, task_id="one"
        )
        wait_for(lambda: ids(letters) == ["one"])
        [found] = letters.find()
        assert (found.kind, found.status, found.failures) == ("effects", "stored", 1)
        assert found.code == "callbacks"
        assert act(letters.replay(letters.named(["one"]))) == {"one": DeadResult.DONE}
        wait_for(lambda: ids(letters) == ["one"])
        assert not pending(stargate, topic)
    assert local.payloads(topic) == [b"a"]


def pending(stargate: Stargate, topic: str) -> int:
    """How many contexts the topic's lane holds."""
    client: Any = stargate.runtime.connections.sync()
    return int(client.hlen(Lane(topic).key(stargate.settings.prefix, "contexts")))


def test_a_payload_that_is_stored_as_bytes(
    app: Celery, stargate: Stargate, local: LocalPulsar, topic: str
) -> None:
    """It fails, is archived, comes back, and is sent again, whatever bytes it has."""
    payload = bytes(range(256)) * 20 + b"\n"
    local.faults.fail_sends(REFUSED, count=1)
    letters = stargate.dead_letters
    with Acknowledger(app):
        with pytest.raises(ProduceError):
            stargate.produce({"payload": payload, "key": "k"}, topic=topic)
        [found] = letters.letters()
        [detail] = letters.show(found.id)
        assert detail.replayable
        written: list[Any] = []
        act(letters.archive([found], written.extend))
        assert letters.restore(json.loads(json.dumps(written))) == 1
        assert act(letters.replay(list(letters.letters()))) == {found.id: DeadResult.DONE}
        [message] = wait_for(lambda: local.messages(topic))
    assert (message.payload, message.key) == (payload, "k")
