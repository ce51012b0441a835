"""Pages of dead letters: the latest failure of all lanes first, each page by bounded steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from celery_stargate.lanes.lane import Lane
from celery_stargate.operations.dead_records import Letter, read_letter
from celery_stargate.operations.dead_views import DeadLetterFilter
from celery_stargate.operations.reading import STEP, LaneReader, batches
from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["DeadLetterPage", "read_page"]

#: How many dead letters one page looks at in search of those that are meant.
_EXAMINED = 5_000
#: A place in the order: the last failure, epoch ms; the lane's name; the id.
_Place = tuple[int, str, str]
_place = msgspec.json.Decoder(_Place)


class DeadLetterPage(NamedTuple):
    """Some dead letters, and where the next page begins."""

    letters: list[Letter]
    #: What the next page is asked for with; None at the end.
    after: str | None


def read_page(
    reader: LaneReader,
    where: DeadLetterFilter,
    *,
    after: str | None = None,
    most: int = 100,
) -> DeadLetterPage:
    """Return dead letters, the latest failure first.

    A page may be short, or empty, and still have a next one: it looks at 5,000 dead letters at
    most. What fails while somebody turns pages changes nothing in the later ones.

    Arguments:
        reader: reads the lanes.
        where: which are meant.
        after: from the page before; None for the first one.
        most: how many at most.

    Raises:
        ValueError: ``after`` is not of a page.
        redis.exceptions.RedisError: Redis is unavailable.
    """
    found: list[Letter] = []
    examined = 0
    for part in batches(_places(reader, where, _read_place(after)), STEP):
        for (last, lane, name), letter in zip(part, _read(reader, part), strict=True):
            examined += 1
            if letter is not None and where.error in (None, letter.error, letter.code):
                found.append(letter)
            if len(found) == most or examined == _EXAMINED:
                return DeadLetterPage(found, msgspec.json.encode((last, lane, name)).decode())
    return DeadLetterPage(found, None)


def _read_place(after: str | None) -> _Place | None:
    if after is None:
        return None
    try:
        place: _Place = _place.decode(after)
        Lane.parse(place[1])
    except UNDECODABLE as error:
        raise ValueError(f"not the place of a dead letter: {error}") from None
    return place


def _places(reader: LaneReader, where: DeadLetterFilter, after: _Place | None) -> Iterator[_Place]:
    """Yield the places of dead letters, the latest first."""
    before = None
    if where.older_than is not None:
        before = int((reader.now() - where.older_than) * 1000)
    lanes = [
        lane
        for lane, _ in reader.names()
        if lane.has_messages and where.topic in (None, lane.topic)
    ]
    below = min((each for each in (before, after and after[0]) if each is not None), default=None)
    ordered = []
    # The first of each lane by few round trips: most lanes have none.
    for part in batches(lanes, STEP):
        with reader.redis.pipeline(transaction=False) as pipeline:
            for lane in part:
                _range(pipeline, reader, lane, below, 0, 1)
            heads = pipeline.execute()
        for lane, head in zip(part, heads, strict=True):
            if head:
                ordered.append(_of_lane(reader, lane, head))
    for place in merge(*ordered, reverse=True):
        if after is None or place < after:
            yield place


def _of_lane(reader: LaneReader, lane: Lane, head: list[tuple[bytes, float]]) -> Iterator[_Place]:
    """Yield the places of one lane; its first one was read already.

    What comes or goes meanwhile may let it pass one over, or meet one twice; it is sorted all the
    same, for it goes on by the score.
    """

    def rest() -> Iterator[tuple[bytes, float]]:
        highest, seen = head[0][1], 1
        while page := _range(reader.redis, reader, lane, int(highest), seen, STEP):
            yield from page
            last = page[-1][1]
            same = sum(1 for _, score in page if score == last)
            seen = same + (seen if last == highest else 0)
            highest = last

    for name, score in chain(head, rest()):
        yield int(score), lane.name, name.decode()


def _range(
    redis: Any, reader: LaneReader, lane: Lane, highest: int | None, start: int, count: int
) -> Any:
    """Read the ids of a lane, or add that to a pipeline: the latest first."""
    limit = "+inf" if highest is None else highest
    return redis.zrevrangebyscore(
        reader.key(lane, "dead"), limit, "-inf", start=start, num=count, withscores=True
    )


def _read(reader: LaneReader, places: Sequence[_Place]) -> list[Letter | None]:
    """Read dead letters by their places, in one round trip."""
    parsed = [Lane.parse(lane) for _, lane, _ in places]
    with reader.redis.pipeline(transaction=False) as pipeline:
        for lane, (_, _, name) in zip(parsed, places, strict=True):
            pipeline.hget(reader.key(lane, "dead_letters"), name)
        stored = pipeline.execute()
    return [
        read_letter(lane, name.encode(), each)
        for lane, (_, _, name), each in zip(parsed, places, stored, strict=True)
    ]
