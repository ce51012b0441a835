"""``operations/dead_pages.py``: dead letters of all lanes, the latest failure first."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.operations import dead_pages
from celery_stargate.operations.dead_pages import read_page
from celery_stargate.operations.dead_views import DeadLetterFilter
from celery_stargate.operations.reading import LaneReader
from tests.servers.fixtures import ServerAddress

EVERYTHING = DeadLetterFilter()
#: Keeps the dead letters of a lane, with the time of each failure in seconds, by its id.
Keep = Callable[[Lane, dict[str, int]], None]


@pytest.fixture
def keep(redis_server: ServerAddress, prefix: str, client: redis.Redis) -> Keep:
    """Let messages fail by their deadlines, and say when that was."""
    outbox = Outbox(Connections(redis_server.url), prefix, DeadLetterRules())

    def kept(lane: Lane, failed: dict[str, int]) -> None:
        for context in failed:
            outbox.put(lane, Record(context), [(context, b"{}")], timeout=0.001)
        end = time.monotonic() + 20
        left = len(failed)
        while left:
            assert time.monotonic() < end
            settled = outbox.expire(lane)
            outbox.finish(lane, settled)
            left -= len(settled)
        for context, seconds in failed.items():
            client.zadd(lane.key(prefix, "dead"), {context: seconds * 1000})

    return kept


def pages(reader: LaneReader, where: DeadLetterFilter = EVERYTHING, most: int = 2) -> list[str]:
    """The ids of all pages, a stroke between each two."""
    found: list[str] = []
    after = None
    while True:
        page = read_page(reader, where, after=after, most=most)
        found += [each.id for each in page.letters]
        if page.after is None:
            return found
        found.append("|")
        after = page.after


def test_the_latest_failure_of_all_lanes_is_first(
    reader: LaneReader, keep: Keep, lane: Lane, topic: str, outbox: Outbox
) -> None:
    """Each page goes on where the one before ended; a filter leaves the others out."""
    other, empty = Lane(f"{topic}-other"), Lane(f"{topic}-empty")
    outbox.put(empty, Record("x"), [("x", b"{}")], timeout=60.0)
    assert pages(reader) == []
    keep(lane, {"a": 10, "b": 30, "c": 50})
    keep(other, {"d": 20, "e": 40})
    assert pages(reader) == ["c", "e", "|", "b", "d", "|", "a"]
    assert pages(reader, most=100) == ["c", "e", "b", "d", "a"]
    assert pages(reader, DeadLetterFilter(topic=other.topic)) == ["e", "d", "|"]
    assert pages(reader, DeadLetterFilter(topic="persistent://public/default/none")) == []
    assert pages(reader, DeadLetterFilter(error="ProduceTimeout"), 100) == ["c", "e", "b", "d", "a"]
    assert pages(reader, DeadLetterFilter(error="deadline"), 100) == ["c", "e", "b", "d", "a"]
    assert pages(reader, DeadLetterFilter(error="http-404")) == []


def test_only_those_that_failed_long_ago(reader: LaneReader, keep: Keep, lane: Lane) -> None:
    """By the clock of Redis."""
    now = int(reader.now())
    keep(lane, {"old": now - 100, "older": now - 200, "new": now})
    assert pages(reader, DeadLetterFilter(older_than=50.0)) == ["old", "older", "|"]
    assert pages(reader, DeadLetterFilter(older_than=150.0)) == ["older"]
    assert pages(reader, DeadLetterFilter(older_than=10_000.0)) == []


def test_many_of_the_same_moment(
    reader: LaneReader, keep: Keep, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is passed over, and none comes twice, though a step holds only a few of them."""
    monkeypatch.setattr(dead_pages, "STEP", 3)
    failed = {f"same{number}": 50 for number in range(8)} | {"late": 90, "soon": 10, "sooner": 9}
    keep(lane, failed)
    found = pages(reader, most=4)
    ids = [each for each in found if each != "|"]
    assert sorted(ids) == sorted(failed)
    assert ids[0] == "late"
    assert ids[-2:] == ["soon", "sooner"]
    assert [place for place, each in enumerate(found) if each == "|"] == [4, 9]


def test_a_page_looks_at_so_many_and_no_more(
    reader: LaneReader, keep: Keep, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be empty, and there is a next one."""
    monkeypatch.setattr(dead_pages, "_EXAMINED", 2)
    keep(lane, {"a": 10, "b": 20, "c": 30})
    where = DeadLetterFilter(error="http-404")
    page = read_page(reader, where)
    assert page.letters == []
    assert page.after is not None
    assert read_page(reader, where, after=page.after) == ([], None)


def test_one_that_is_gone_or_cannot_be_read(
    reader: LaneReader, keep: Keep, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """Is left out, and hides no other."""
    keep(lane, {"a": 10, "b": 20, "c": 30})
    client.hdel(lane.key(prefix, "dead_letters"), "b")
    client.hset(lane.key(prefix, "dead_letters"), "c", "?")
    assert pages(reader) == ["a"]


@pytest.mark.parametrize("after", ["", "junk", "[]", '["x", "y", "z"]', '[1, "no lane", "a"]'])
def test_what_is_no_place_of_a_page(reader: LaneReader, after: str) -> None:
    """It came with a request of the web: it is told, and nothing is read."""
    with pytest.raises(ValueError, match="not the place of a dead letter"):
        read_page(reader, EVERYTHING, after=after)
