"""Dead letters that nobody can send again, that are gone, or that are many."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Receipt
from celery_stargate.operations import dead_letters
from celery_stargate.operations.dead_letters import DeadLetters, receipt_tasks
from celery_stargate.operations.dead_records import Letter
from celery_stargate.operations.dead_views import DeadResult
from celery_stargate.operations.reading import LaneReader
from tests.servers.fixtures import ServerAddress

PAID = '{"task":"shop.paid","args":[],"kwargs":{},"options":{},"subtask_type":null}'


@pytest.fixture
def kept(redis_server: ServerAddress, prefix: str) -> Callable[..., None]:
    """Let messages fail by their deadlines, so that they are kept."""
    outbox = Outbox(Connections(redis_server.url), prefix, DeadLetterRules())

    def keep(lane: Lane, *contexts: str, **record: Any) -> None:
        for each in contexts:
            frame = b'{"payload":"","context":"%s"}' % each.encode()
            outbox.put(lane, Record(each, **record), [("", frame)], timeout=0.001)
        end, left = time.monotonic() + 20, len(contexts)
        while left:
            assert time.monotonic() < end
            settled = outbox.expire(lane)
            outbox.finish(lane, settled)
            left -= len(settled)

    return keep


@pytest.fixture
def letters(reader: LaneReader, outbox: Outbox, prefix: str) -> DeadLetters:
    """What is tested."""
    return DeadLetters(reader, outbox, prefix, DeadLetterRules(), lambda _: ProducerOptions())


def results(changes: Any) -> dict[str, DeadResult]:
    """Do an action to its end."""
    return {each.id: each.result for each in changes}


def test_to_do_nothing(letters: DeadLetters, reader: LaneReader) -> None:
    """Is noted nowhere."""
    assert results(letters.replay([])) == {}
    assert results(letters.discard([])) == {}
    assert list(receipt_tasks(reader, [])) == []
    assert reader.redis.exists(reader.registry.key("actions")) == 0


@pytest.mark.parametrize("way", ["letters", "find"])
def test_what_is_found_is_acted_on(
    letters: DeadLetters, kept: Callable[..., None], lane: Lane, outbox: Outbox, way: str
) -> None:
    """As an iterator, as it comes; of two lanes with one id only the one that was found."""
    other = Lane(lane.topic, lane.index + 1)
    kept(lane, "a", "b")
    kept(other, "a")
    found = getattr(letters, way)
    here = (each for each in found() if each.lane in (lane, lane.name))
    assert results(letters.replay(here)) == dict.fromkeys("ab", DeadResult.DONE)
    assert outbox.backlog(lane) == 2
    assert results(letters.discard(found())) == {"a": DeadResult.DONE}
    assert list(letters.find()) == []


def test_one_that_cannot_be_sent_again(
    letters: DeadLetters,
    kept: Callable[..., None],
    lane: Lane,
    client: redis.Redis,
    prefix: str,
    outbox: Outbox,
) -> None:
    """Is told, and stays; so is one whose body is gone. The others are sent."""
    kept(lane, "good", "bad", "gone")
    found = list(letters.letters())
    client.hset(lane.key(prefix, "dead_bodies"), "bad", "no record")
    client.hdel(lane.key(prefix, "dead_bodies"), "gone")
    assert results(letters.replay(found)) == {
        "good": DeadResult.DONE,
        "bad": DeadResult.UNREADABLE,
        "gone": DeadResult.MISSING,
    }
    assert outbox.backlog(lane) == 1
    assert sorted(each.id for each in letters.letters()) == ["bad", "gone"]


def test_one_that_failed_again_meanwhile(
    letters: DeadLetters, kept: Callable[..., None], lane: Lane, outbox: Outbox
) -> None:
    """Is another one: who chose it did not see that."""
    kept(lane, "a")
    [found] = letters.letters()
    before = found._replace(last=found.last - 1)
    assert results(letters.replay([before])) == {"a": DeadResult.MISSING}
    assert outbox.backlog(lane) == 0
    assert results(letters.replay([found])) == {"a": DeadResult.DONE}
    assert outbox.backlog(lane) == 1


def test_a_lane_of_one_message(
    reader: LaneReader, outbox: Outbox, prefix: str, kept: Callable[..., None], lane: Lane
) -> None:
    """Takes one of them, and none if there is one already."""
    bounded = ProducerOptions(max_backlog=1)
    letters = DeadLetters(reader, outbox, prefix, DeadLetterRules(), lambda _: bounded)
    kept(lane, "a", "b")
    replayed = results(letters.replay(list(letters.letters())))
    assert sorted(replayed.values()) == [DeadResult.DONE, DeadResult.FULL]
    [left] = letters.letters()
    assert results(letters.replay([left])) == {left.id: DeadResult.FULL}


def test_effects_are_done_again(
    letters: DeadLetters,
    outbox: Outbox,
    lane: Lane,
    client: redis.Redis,
    redis_server: ServerAddress,
    prefix: str,
) -> None:
    """Of all that are chosen; their messages are stored, and not sent again."""
    keeping = Outbox(Connections(redis_server.url), prefix, DeadLetterRules())
    for each in ("a", "b", "c"):
        frame = b'{"payload":"","context":"%s"}' % each.encode()
        outbox.put(lane, Record(each), [("", frame)], timeout=60.0)
        settled = outbox.settle(lane, Receipt(context=each, topic=lane.topic)).settled
        assert settled is not None
        keeping.give_up(lane, [(settled, "KeyError callbacks")])
    found = list(letters.letters())
    assert results(letters.replay(found)) == dict.fromkeys("abc", DeadResult.DONE)
    assert outbox.backlog(lane) == 0
    assert sorted(client.zrange(lane.key(prefix, "due"), 0, -1)) == [b"a", b"b", b"c"]
    assert results(letters.replay(found)) == dict.fromkeys("abc", DeadResult.MISSING)


def test_what_is_archived_comes_back_as_it_was(
    letters: DeadLetters, kept: Callable[..., None], lane: Lane
) -> None:
    """With each of its times, and how often it failed."""
    kept(lane, "a")
    kept(lane, "a")
    written: list[Any] = []
    found = list(letters.letters())
    assert [each.failures for each in found] == [2]
    assert results(letters.archive(found, written.extend)) == {"a": DeadResult.DONE}
    assert list(letters.letters()) == []
    assert letters.restore(written) == 1
    assert list(letters.letters()) == found


def test_many_go_by_steps(
    letters: DeadLetters,
    kept: Callable[..., None],
    lane: Lane,
    topic: str,
    client: redis.Redis,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each step is bounded by count and by size, of each lane by itself; none is left out."""
    other = Lane(f"{topic}-other")
    kept(lane, "a", "b", "c", "d", "e")
    kept(other, "x")
    steps: list[list[str]] = []
    discard = DeadLetters._discard  # noqa: SLF001

    def note(self: DeadLetters, at: Lane, some: Any) -> Any:
        steps.append([each.id for each in some])
        return discard(self, at, some)

    monkeypatch.setattr(DeadLetters, "_discard", note)
    monkeypatch.setattr(dead_letters, "_COUNT", 2)
    found = sorted(letters.letters(), key=lambda each: each.id)
    size = max(each.size for each in found)
    first, rest = found[:3], found[3:]
    assert results(letters.discard(first)) == dict.fromkeys("abc", DeadResult.DONE)
    assert client.hget(lane.key(prefix, "dead_counts"), "discarded") == b"3"
    monkeypatch.setattr(dead_letters, "_BYTES", size)
    assert results(letters.discard(rest)) == dict.fromkeys("dex", DeadResult.DONE)
    assert steps == [["a", "b"], ["c"], ["d"], ["e"], ["x"]]
    assert results(letters.discard(found)) == dict.fromkeys("abcdex", DeadResult.MISSING)


def test_the_tasks_that_a_receipt_triggers(
    reader: LaneReader,
    letters: DeadLetters,
    kept: Callable[..., None],
    lane: Lane,
    topic: str,
    client: redis.Redis,
    prefix: str,
) -> None:
    """Of letters of several lanes; of one without a callback, unreadable or gone there is none."""
    other = Lane(f"{topic}-other")
    kept(lane, "paid", "gone", "bad", on_ack=PAID)
    kept(other, "silent")
    found: list[Letter] = list(letters.letters())
    client.hset(lane.key(prefix, "dead_bodies"), "bad", "no record")
    client.hdel(lane.key(prefix, "dead_bodies"), "gone")
    told = {letter.id: tasks for letter, tasks in receipt_tasks(reader, found)}
    assert told == {"paid": "shop.paid", "gone": None, "bad": None, "silent": None}
