"""``delivery/renewals.py``: many leases in one round trip, and each lane gets its own answer."""

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
        assert (sha, count, len(rest)) == ("the sha", 10, 10 + 3)
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
        #: When each lane was renewed in the background, by its number.
        self.renewed: dict[int, list[float]] = {}

    def store(self, number: int) -> LeasedLane:
        return LeasedLane(cast("Any", self.redis), "p", Lane(TOPIC, number), "me", 10.0)

    def tick(self, number: int) -> asyncio.Future[LaneTick]:
        return asyncio.ensure_future(self.renewals.tick(self.store(number)))

    def idle(self, number: int, until: float = math.inf) -> asyncio.Future[None]:
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
    """All in one round trip; each gets what its own lane holds."""

    async def body(rig: Rig) -> None:
        rig.redis.answers[3] = BUSY
        ticks = await outcomes([rig.tick(number) for number in range(5)])
        idle = LaneTick(0, 0, 0, None)
        assert ticks == [idle, idle, idle, LaneTick(2, 1, 0, 1.5), idle]
        assert rig.redis.trips == [[0, 1, 2, 3, 4]]

    run(body)


def test_pipelines_have_a_bounded_size() -> None:
    """Neither the loop nor Redis is held for long; a single lane is one script call."""

    async def body(rig: Rig) -> None:
        await outcomes([rig.tick(number) for number in range(401)])
        assert sorted(len(each) for each in rig.redis.trips) == [1, 200, 200]
        assert sorted(lane for trip in rig.redis.trips for lane in trip) == list(range(401))

    run(body)


def test_a_pipeline_that_hangs_holds_up_no_other() -> None:
    """Or leases would expire behind it."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        hanging = [rig.tick(0), rig.tick(1)]
        await rig.until(lambda: len(rig.redis.trips) == 1)
        later = [rig.tick(2), rig.tick(3)]
        await rig.until(lambda: len(rig.redis.trips) == 2)
        rig.redis.open.set()
        assert await outcomes(hanging + later) == [LaneTick(0, 0, 0, None)] * 4

    run(body)


def test_an_error_of_one_lane_is_raised_for_that_lane_alone() -> None:
    """The other lanes of the pipeline get their answers."""

    async def body(rig: Rig) -> None:
        rig.redis.answers = {0: [1], 1: [2], 2: ReadOnlyError("not now"), 3: [7]}
        found = await outcomes([rig.tick(number) for number in range(5)])
        kinds = [type(each) for each in found]
        assert kinds == [Fenced, StoreRolledBack, ReadOnlyError, ValueError, LaneTick]

    run(body)


def test_a_broken_connection_is_raised_for_every_lane() -> None:
    """The next call works again."""

    async def body(rig: Rig) -> None:
        for count in (3, 1):
            rig.redis.errors = [RedisConnectionError("broke")]
            found = await outcomes([rig.tick(number) for number in range(count)])
            assert [type(each) for each in found] == [RedisConnectionError] * count
            again = await outcomes([rig.tick(number) for number in range(count)])
            assert again == [LaneTick(0, 0, 0, None)] * count

    run(body)


def test_a_cancelled_request_does_not_affect_the_others() -> None:
    """Before it is sent, its lane is left out; after that, its answer is dropped."""

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


def test_idle_lanes_are_renewed_together() -> None:
    """Also those that became idle one after another; their keepers do nothing meanwhile."""

    async def body(rig: Rig) -> None:
        resting = [rig.idle(0)]
        await asyncio.sleep(0)
        resting += [rig.idle(1), rig.idle(2)]
        await rig.until(lambda: len(rig.renewed[0]) == 3)
        assert all(trip == [0, 1, 2] for trip in rig.redis.trips)
        assert rig.renewed[0] == rig.renewed[1] == [100.0, 100.0, 100.0]
        assert not any(each.done() for each in resting)

    run(body)


def test_the_first_renewal_in_the_background_is_in_time() -> None:
    """A lane that becomes idle while a pipeline hangs is renewed by another one."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        rig.idle(0)
        await rig.until(lambda: rig.redis.trips == [[0]])
        rig.idle(1)
        await rig.until(lambda: rig.redis.trips == [[0], [1]])

    run(body)


def test_the_clock_is_read_before_redis_is_asked() -> None:
    """Redis may have renewed the lease at that moment, and not later."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        rig.idle(0), rig.idle(1)
        await rig.until(lambda: bool(rig.redis.trips))
        rig.clock = 104.0
        rig.redis.open.set()
        await rig.until(lambda: bool(rig.renewed[1]))
        assert rig.renewed[0][0] == rig.renewed[1][0] == 100.0

    run(body)


@pytest.mark.parametrize(
    "answer", [BUSY, [0, 0, 1, 0, -1], [0, 0, 0, 1, -1], [0, 0, 0, 0, 0], [1], [2], ReadOnlyError()]
)
def test_background_renewals_end_when_a_lane_is_not_idle(answer: Any) -> None:
    """Or if that is not known; the other lanes go on, and the keeper of this one asks itself."""

    async def body(rig: Rig) -> None:
        rig.redis.answers[1] = answer
        others, one = [rig.idle(0), rig.idle(2)], rig.idle(1)
        await one
        # It holds something, and its lease is ours all the same.
        held = isinstance(answer, list) and answer[0] == 0
        assert rig.renewed[1] == ([100.0] if held else [])
        await rig.until(lambda: len(rig.renewed[0]) == 3)
        assert rig.redis.trips[1:3] == [[0, 2], [0, 2]]
        assert not any(each.done() for each in others)

    run(body)


def test_background_renewals_end_when_redis_is_away() -> None:
    """Each keeper then asks by itself, and retries."""

    async def body(rig: Rig) -> None:
        rig.redis.errors = [RedisConnectionError("broke")]
        await asyncio.gather(rig.idle(0), rig.idle(1))
        assert rig.renewed == {0: [], 1: []}

    run(body)


def test_background_renewals_end_in_time() -> None:
    """So that a lane that was idle for long can retire."""

    async def body(rig: Rig) -> None:
        on, until = rig.idle(0), rig.idle(1, until=105.0)
        await rig.until(lambda: len(rig.renewed[1]) == 2)
        assert not until.done()
        rig.clock = 105.0
        await until
        assert rig.renewed[1][-1] == 105.0
        assert not on.done()

    run(body)


def test_a_cancelled_lane_is_no_longer_renewed() -> None:
    """Another owner may have it."""

    async def body(rig: Rig) -> None:
        one = rig.idle(0)
        rig.idle(1), rig.idle(2)
        await rig.until(lambda: bool(rig.renewed[1]))
        one.cancel()
        await rig.until(lambda: len(rig.renewed[1]) == 3)
        assert rig.redis.trips[-1] == [1, 2]
        assert len(rig.renewed[0]) == 1

    run(body)


def test_a_lane_cancelled_during_its_renewal_gets_no_answer() -> None:
    """Another owner may have it; the other lanes of the pipeline go on."""

    async def body(rig: Rig) -> None:
        rig.redis.answers[0] = BUSY
        rig.redis.open.clear()
        one, other = rig.idle(0), rig.idle(1)
        await rig.until(lambda: bool(rig.redis.trips))
        one.cancel()
        rig.redis.open.set()
        await rig.until(lambda: len(rig.renewed[1]) == 2)
        assert rig.renewed[0] == []
        assert not other.done()

    run(body)


def test_closing_cancels_what_waits() -> None:
    """Nothing waits for a client that is closed."""

    async def body(rig: Rig) -> None:
        rig.redis.open.clear()
        waiting = [rig.tick(0), rig.tick(1)]
        await rig.until(lambda: bool(rig.redis.trips))
        await rig.renewals.close()
        assert [type(each) for each in await outcomes(waiting)] == [asyncio.CancelledError] * 2

    run(body)
