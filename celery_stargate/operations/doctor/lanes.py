"""The lanes: does somebody own them, and do they move?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.model.settings import Settings
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.doctor.finding import Check, Problem, error, warning
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.reading import STEP, LaneReader
from celery_stargate.operations.views import ContextState, LaneView, WorkerView

__all__ = ["LANE_CHECKS", "LanesFacts", "gather_lanes"]

#: Owners look at deadlines and repeat effects within this time, in seconds.
_PATIENCE = 60.0
#: How many steps the search for lost lanes takes at most; each looks at 200 keys.
_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class LanesFacts:
    """What the lanes hold."""

    settings: Settings
    lanes: tuple[LaneView, ...]
    workers: tuple[WorkerView, ...]
    #: Contexts whose record cannot be read, of the first ones that were looked at.
    unreadable: tuple[str, ...] = ()
    #: Lanes that hold contexts and are not in the registry.
    unregistered: tuple[str, ...] = ()
    #: The time by Redis' clock, epoch seconds.
    now: float = 0.0
    #: How many settled contexts have waited long for their effects.
    stuck: int = 0

    @property
    def alive(self) -> int:
        """How many workers are alive."""
        return sum(1 for worker in self.workers if (worker.alive_seconds or 0) > 0)


def gather_lanes(reader: LaneReader, settings: Settings) -> LanesFacts:
    """Look at all lanes, and at some contexts of each.

    Raises:
        RedisError, OSError: Redis does not answer.
    """
    lanes = LaneInspector(reader)
    found = tuple(lanes.lanes())
    overdue = reader.now() * 1000 - _PATIENCE * 1000
    stuck = sum(
        reader.redis.zcount(reader.key(lane, "due"), "-inf", overdue) for lane, _ in reader.names()
    )
    some = islice(ContextInspector(reader).pending(), STEP)
    return LanesFacts(
        settings=settings,
        lanes=found,
        workers=tuple(lanes.workers(found)),
        unreadable=tuple(view.context for view in some if view.state is ContextState.UNREADABLE),
        unregistered=tuple(dict.fromkeys(lane.name for lane in reader.unregistered(_STEPS))),
        now=reader.now(),
        stuck=stuck,
    )


def _workers(facts: LanesFacts) -> Iterable[Problem]:
    if facts.alive:
        return
    waiting = sum(lane.contexts for lane in facts.lanes)
    mend = "celery -A <app> worker, without --without-stargate"
    if waiting:
        yield error(f"no worker is alive, and {waiting} contexts wait", "nothing is sent", mend)
    else:
        yield warning("no worker is alive", "what is recorded waits until one is", mend)


def _owners(facts: LanesFacts) -> Iterable[Problem]:
    lost = [lane.lane for lane in facts.lanes if lane.needs_owner]
    if lost and facts.alive:
        yield warning(
            f"{len(lost)} lanes hold messages and have no owner: {_some(lost)}",
            "their messages are not sent",
            "run doctor again in 10 s; if they stay, restart the workers and read their logs",
        )


def _registry(facts: LanesFacts) -> Iterable[Problem]:
    for lane in facts.unregistered:
        keyspace = facts.settings.keyspace
        topic, _, index = lane.rpartition("#")
        bucket = Lane(topic, int(index)).bucket(keyspace)
        key = f"'{RegistryKeys(keyspace, bucket).key('lanes')}'"
        yield error(
            f"{lane} holds contexts and is not in the registry",
            "no worker sees it, until somebody puts into it again",
            f"redis-cli ZADD {key} {facts.now:.0f} '{lane}'",
        )


def _pauses(facts: LanesFacts) -> Iterable[Problem]:
    for lane in facts.lanes:
        if lane.paused:
            yield warning(
                f"{lane.lane} is {lane.owner}",
                "its messages wait, and their deadlines go on",
                f"celery -A <app> stargate resume {lane.topic}",
            )


def _deadlines(facts: LanesFacts) -> Iterable[Problem]:
    late = [lane.lane for lane in facts.lanes if (lane.next_deadline_seconds or 0.0) < -_PATIENCE]
    if late:
        yield error(
            f"{len(late)} lanes hold contexts whose deadline has passed: {_some(late)}",
            "whoever waits for them is not told",
            "start a worker: celery -A <app> worker",
        )


def _effects(facts: LanesFacts) -> Iterable[Problem]:
    if facts.stuck:
        yield error(
            f"{facts.stuck} settled contexts wait for their result or callbacks",
            "the result backend or the broker refuses them, or no worker is alive",
            "read the workers' logs for 'the effects of context'",
        )


def _records(facts: LanesFacts) -> Iterable[Problem]:
    if facts.unreadable:
        yield error(
            f"{len(facts.unreadable)} contexts cannot be read: {_some(facts.unreadable)}",
            "another version of celery-stargate wrote them, or Redis' data is damaged",
            "run the same version of celery-stargate in all processes",
        )


def _indexes(facts: LanesFacts) -> Iterable[Problem]:
    for lane in facts.lanes:
        try:
            _, options = facts.settings.resolve(lane.topic)
        except ValueError:
            continue
        if lane.index >= options.lane_count and lane.backlog:
            yield warning(
                f"{lane.lane} holds messages, and stargate_lanes is {options.lane_count} here",
                "processes with other settings put messages of one key into two lanes; "
                "their order is lost",
                "give all processes the same stargate_lanes",
            )


def _dead_letters(facts: LanesFacts) -> Iterable[Problem]:
    dead = sum(lane.dead for lane in facts.lanes)
    if dead:
        yield warning(
            f"{dead} messages failed, and are kept as dead letters",
            "they are not in their topics, or nobody knows; they are kept for a bounded time",
            "celery -A <app> stargate dead list --by-cause, then dead replay or dead discard",
        )


def _some(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:3]) + (", …" if len(known) > 3 else "")


LANE_CHECKS: list[Check[LanesFacts]] = [
    Check("workers", "a worker is alive", _workers),
    Check("lanes-owners", "every lane with messages has an owner", _owners),
    Check("lanes-registry", "all lanes that hold contexts are registered", _registry),
    Check("lanes-paused", "no topic is paused", _pauses),
    Check("lanes-deadlines", "deadlines are enforced", _deadlines),
    Check("lanes-effects", "results and callbacks are done in time", _effects),
    Check("lanes-records", "all records can be read", _records),
    Check("lanes-dead-letters", "there are no dead letters", _dead_letters),
    Check("lanes-settings", "the lanes are those of these settings", _indexes),
]
