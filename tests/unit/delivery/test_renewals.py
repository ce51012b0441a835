"""``lanes/renewals.py``: many leases in one round trip, and nobody answers for another."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from celery_stargate.delivery.renewals import Renewals
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import Fenced, LaneTick, LeasedLane, StoreRolledBack
from celery_stargate.lanes.scripts import lane_script
from tests.unit.helpers import TOPIC

IDLE = [0, 0, 0, 0, -1]
BUSY = [0, 2, 1, 0, 1500]


class FakeRedis:
    """Answers ticks as the test says, and notes how many lanes each round trip had."""

    def __init__(self) -> None:
        #: By the number of the lane; what is not here is idle.
        self.answers: dict[int, Any] = {}
        #: Raised by a whole round trip, once each.
        self.errors: list[Exception] = []
        #: The lanes of each round trip.
        self.trips: list[list[int]] = []
        #: Set where round trips may end.
        self.open = asyncio.Event()
        self.open.set()

    def register_script(self, script: str) -> Any:
        assert script == lane_script("tick")

        async def run(keys: list[str], args: Any) -> Any:
            [reply] = await self.trip([_number(keys)])
            if isinstance(reply, Exception):
                raise reply
            return reply

        class Script:
            sha = "the sha"

            async def __call__(self, keys: list[str], args: Any) -> Any:
                return await run(keys, args)

        made: Any = Script()
        made.script = script
        return made

    def pipeline(self, transaction: bool) -> Any:
        assert not transaction
        return FakePipeline(self)

    async def trip(self, lanes: list[int]) -> list[Any]:
        self.trips.append(lanes)
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [self.answers.get(lane, IDLE) for lane in lanes]


class FakePipeline:
    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._loaded = False
        self._lanes: list[int] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def script_load(self, script: str) -> None:
        assert script == lane_script("tick")
        self._loaded = True

    def evalsha(self, sha: str, count: int, *rest: Any) -> None:
        # Without the script Redis would answer NOSCRIPT.
        assert self._loaded
        assert (sha, count, len(rest)) == ("the sha", 9, 9 + 3)
        self._lanes.append(_number(rest))

    async def execute(self, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return [b"the sha", *await self._redis.trip(self._lanes)]


def _number(keys: Any) -> int:
    return int(keys[0].partition("#")[2].partition("}")[0])


class Rig:
    """Renewals over a Redis that answers at will."""

    def __init__(self) -> None:
        self.redis = FakeRedis()
        self.clock = 100.0
        self.renewals = Renewals(cast("Any", self.redis), 0.01, lambda: self.clock)
        #: Times of the renewals of those who rest, by the number of the lane.
        self.renewed: dict[int, list[float]] = {}

    def store(self, number: int) -> LeasedLane:
        return LeasedLane(cast("Any", self.redis), "p", Lane(TOPIC, number), "me", 10.0)

    def tick(self, number: int) -> asyncio.Future[LaneTick]:
        return asyncio.ensure_future(self.renewals.tick(self.store(number)))

    def rest(self, number: int, until: float = math.inf) -> asyncio.Future[None]:
        noted = self.renewed.setdefault(number, []).append
        return asyncio.ensure_future(
            self.renewals.renew_in_background(self.store(number), until, noted)
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until something is so."""
        async with asyncio.timeout(10.0):
            while not condition():  # noqa: ASYNC110  # what the fake notes tells no event
                await asyncio.sleep(0.001)


def run(test: Callable[[Rig], Awaitable[None]]) -> None:
    """Run a test's body in a loop, with a bound."""

    async def bounded() -> None:
        async with asyncio.timeout(20.0):
            rig = Rig()
            await test(rig)
            await rig.renewals.close()

    asyncio.run(bounded())


async def outcomes(futures: list[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.gather(*futures, return_exceptions=True)


def test_what_is_asked_at_one_moment_goes_together() -> None:
    """In one round trip; and each gets what its own lane holds."""

    async def body(rig: Rig) -> None:
        rig.redis.answers[3] = BUSY
        ticks = await outcomes([rig.tick(number) for number in range(5)])
        idle = LaneTick(0, 0, 0, None)
        assert ticks == [idle, idle, idle, LaneTick(2, 1, 0, 1.5), idle]
        assert rig.redis.trips == [[0, 1, 2, 3, 4]]

    run(body)


def test_pipelines_have_a_bounded_size() -> None:
    """So that neither the loop nor Redis is held for long; one lane alone is a script's call."""

    async def body(rig: Rig) -> None:
        await outcomes([rig.tick(number) for number in range(401)])
        assert sorted(len(each) for each in rig.redis.trips) == [1, 200, 200]
        assert sorted(lane for trip in rig.redis.trips for lane in trip) == list(range(401))

    run(body)


def test_a_pipeline_that_hangs_holds_up_no_other() -> None:
    """A lease would run out behind it."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        hanging = [rig.tick(0), rig.tick(1)]
        await rig.until(lambda: len(rig.redis.trips) == 1)
        later = [rig.tick(2), rig.tick(3)]
        await rig.until(lambda: len(rig.redis.trips) == 2)
        rig.redis.open.set()
        assert await outcomes(hanging + later) == [LaneTick(0, 0, 0, None)] * 4

    run(body)


def test_what_hits_one_lane_hits_no_other() -> None:
    """Each exception is that lane's."""

    async def body(rig: Rig) -> None:
        rig.redis.answers = {0: [1], 1: [2], 2: ReadOnlyError("not now"), 3: [7]}
        found = await outcomes([rig.tick(number) for number in range(5)])
        kinds = [type(each) for each in found]
        assert kinds == [Fenced, StoreRolledBack, ReadOnlyError, ValueError, LaneTick]

    run(body)


def test_a_broken_connection_is_everybodys() -> None:
    """And the next call goes on as if nothing had been."""

    async def body(rig: Rig) -> None:
        for count in (3, 1):
            rig.redis.errors = [RedisConnectionError("broke")]
            found = await outcomes([rig.tick(number) for number in range(count)])
            assert [type(each) for each in found] == [RedisConnectionError] * count
            again = await outcomes([rig.tick(number) for number in range(count)])
            assert again == [LaneTick(0, 0, 0, None)] * count

    run(body)


def test_one_who_is_cancelled_leaves_the_others_alone() -> None:
    """Whether the request is on its way or not; before that his lane is not renewed any more."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        waiting = [rig.tick(number) for number in range(4)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await rig.until(lambda: bool(rig.redis.trips))
        waiting[2].cancel()
        rig.redis.open.set()
        found = await outcomes(waiting)
        assert rig.redis.trips == [[1, 2, 3]]
        assert [type(each) for each in found] == [
            asyncio.CancelledError,
            LaneTick,
            asyncio.CancelledError,
            LaneTick,
        ]

    run(body)


def test_those_who_rest_are_renewed_together() -> None:
    """Also where they came one after another, and without their owners' doing anything."""

    async def body(rig: Rig) -> None:
        resting = [rig.rest(0)]
        await asyncio.sleep(0)
        resting += [rig.rest(1), rig.rest(2)]
        await rig.until(lambda: len(rig.renewed[0]) == 3)
        assert all(trip == [0, 1, 2] for trip in rig.redis.trips)
        assert rig.renewed[0] == rig.renewed[1] == [100.0, 100.0, 100.0]
        assert not any(each.done() for each in resting)

    run(body)


def test_a_rest_begins_no_later_than_it_should() -> None:
    """Who comes while others are renewed, or hang, is renewed by a pipeline of his own."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        rig.rest(0)
        await rig.until(lambda: rig.redis.trips == [[0]])
        rig.rest(1)
        await rig.until(lambda: rig.redis.trips == [[0], [1]])

    run(body)


def test_the_clock_is_read_before_redis_is_asked() -> None:
    """The lease may have been renewed then, and not later."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        rig.rest(0), rig.rest(1)
        await rig.until(lambda: bool(rig.redis.trips))
        rig.clock = 104.0
        rig.redis.open.set()
        await rig.until(lambda: bool(rig.renewed[1]))
        assert rig.renewed[0][0] == rig.renewed[1][0] == 100.0

    run(body)


@pytest.mark.parametrize(
    "answer", [BUSY, [0, 0, 1, 0, -1], [0, 0, 0, 1, -1], [0, 0, 0, 0, 0], [1], [2], ReadOnlyError()]
)
def test_a_rest_ends_where_a_lane_is_not_idle(answer: Any) -> None:
    """Or is not known to be; the other lanes rest on, and that lane is left to its owner."""

    async def body(rig: Rig) -> None:
        rig.redis.answers[1] = answer
        others, one = [rig.rest(0), rig.rest(2)], rig.rest(1)
        await one
        # It holds something, and its lease is ours all the same.
        held = isinstance(answer, list) and answer[0] == 0
        assert rig.renewed[1] == ([100.0] if held else [])
        await rig.until(lambda: len(rig.renewed[0]) == 3)
        assert rig.redis.trips[1:3] == [[0, 2], [0, 2]]
        assert not any(each.done() for each in others)

    run(body)


def test_a_rest_ends_where_redis_is_away() -> None:
    """Each owner asks for himself, and with patience, then."""

    async def body(rig: Rig) -> None:
        rig.redis.errors = [RedisConnectionError("broke")]
        await asyncio.gather(rig.rest(0), rig.rest(1))
        assert rig.renewed == {0: [], 1: []}

    run(body)


def test_a_rest_ends_when_it_is_time() -> None:
    """So that a lane that was long idle can retire."""

    async def body(rig: Rig) -> None:
        on, until = rig.rest(0), rig.rest(1, until=105.0)
        await rig.until(lambda: len(rig.renewed[1]) == 2)
        assert not until.done()
        rig.clock = 105.0
        await until
        assert rig.renewed[1][-1] == 105.0
        assert not on.done()

    run(body)


def test_who_rests_and_is_cancelled_is_renewed_no_more() -> None:
    """His lane may be another's."""

    async def body(rig: Rig) -> None:
        one = rig.rest(0)
        rig.rest(1), rig.rest(2)
        await rig.until(lambda: bool(rig.renewed[1]))
        one.cancel()
        await rig.until(lambda: len(rig.renewed[1]) == 3)
        assert rig.redis.trips[-1] == [1, 2]
        assert len(rig.renewed[0]) == 1

    run(body)


def test_who_is_cancelled_while_he_is_renewed_hears_no_more() -> None:
    """He may own the lane no more; those who are renewed with him rest on."""

    async def body(rig: Rig) -> None:
        rig.redis.answers[0] = BUSY
        rig.redis.open.clear()
        one, other = rig.rest(0), rig.rest(1)
        await rig.until(lambda: bool(rig.redis.trips))
        one.cancel()
        rig.redis.open.set()
        await rig.until(lambda: len(rig.renewed[1]) == 2)
        assert rig.renewed[0] == []
        assert not other.done()

    run(body)


def test_closing_cancels_who_waits() -> None:
    """Nobody is left to wait for a client that is closed."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        waiting = [rig.tick(0), rig.tick(1)]
        await rig.until(lambda: bool(rig.redis.trips))
        await rig.renewals.close()
        assert [type(each) for each in await outcomes(waiting)] == [asyncio.CancelledError] * 2

    run(body)
