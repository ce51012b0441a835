"""What a run found: seconds of each round, rates, and ratios. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

__all__ = ["Figure", "Group", "Laps", "Report", "Sample", "Spread", "make_groups", "spread"]

#: The form of the JSON file.
VERSION = 1


class Spread(msgspec.Struct, frozen=True):
    """The median of some rounds, between the lowest and the highest."""

    median: float
    low: float
    high: float


class Figure(msgspec.Struct, frozen=True):
    """One rival's rounds."""

    name: str
    title: str
    #: Operations in each round.
    count: int
    #: Of each round, in the order of the rounds.
    seconds: tuple[float, ...]
    #: Operations per second.
    rate: Spread
    #: The rate as a multiple of the baseline's in the same round.
    ratio: Spread
    #: Where each operation was timed: milliseconds that half of them, and 99 of 100, took at most.
    p50: Spread | None = None
    p99: Spread | None = None
    #: Seconds of CPU of a round, of each of :data:`benchmarks.shares.PARTS`.
    cpu: tuple[Spread, ...] = ()


class Group(msgspec.Struct, frozen=True):
    """Rivals that do the same thing, and how it was measured; the first is the baseline."""

    title: str
    how: str
    #: ``per_second`` or ``milliseconds``: how the absolute figures read best.
    unit: str
    figures: tuple[Figure, ...]
    #: Its name among :data:`benchmarks.rivals.GROUPS`.
    name: str = ""


class Report(msgspec.Struct, frozen=True):
    """A whole run."""

    #: When it began, ISO 8601.
    date: str
    rounds: int
    payload_bytes: int
    #: Words on the machine, such as ``cpu`` and ``cores``.
    machine: dict[str, str]
    #: Of everything that took part.
    versions: dict[str, str]
    groups: tuple[Group, ...]
    #: Rivals that could not run here, with the reason.
    left_out: dict[str, str]
    version: int = VERSION
    #: How many cores there were; 0 in a run of an older version.
    core_count: int = 0


class Laps(msgspec.Struct, frozen=True):
    """One round in which each operation was timed."""

    #: Of the round.
    seconds: float
    #: Seconds that half of the operations, and 99 of 100, took at most.
    p50: float
    p99: float

    @classmethod
    def of(cls, laps: Sequence[float]) -> Laps:
        """Sum up the operations' seconds."""
        ordered = sorted(laps)
        return cls(sum(ordered), _percentile(ordered, 50), _percentile(ordered, 99))


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the lowest value that so many percent of the values do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class Sample(msgspec.Struct, frozen=True):
    """A rival's rounds as they were measured."""

    name: str
    title: str
    count: int
    seconds: tuple[float, ...]
    #: Of the rounds in which each operation was timed.
    laps: tuple[Laps, ...] = ()
    #: Seconds of CPU of each round, of each of :data:`benchmarks.shares.PARTS`.
    cpu: tuple[tuple[float, ...], ...] = ()


def spread(values: Sequence[float]) -> Spread:
    """Return the median, lowest and highest of some values.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no rounds, no median")
    return Spread(median(values), min(values), max(values))


def make_groups(
    samples: Mapping[str, Sequence[Sample]], words: Mapping[str, tuple[str, str, str]]
) -> tuple[Group, ...]:
    """Work out rates and ratios.

    A ratio is taken within each round and then the median of these, so that a machine which is
    slower in one round than in another makes both rivals slower, and their ratio no different.

    Arguments:
        samples: of each group, by its name; a group's first one is its baseline.
        words: title, how and unit of each group.

    Raises:
        ValueError: rivals of a group have different numbers of rounds.
    """
    return tuple(
        Group(*words[name], tuple(_figures(members)), name) for name, members in samples.items()
    )


def _figures(members: Sequence[Sample]) -> list[Figure]:
    baseline = _speeds(members[0])
    figures = []
    for each in members:
        ratios = [speed / base for speed, base in zip(_speeds(each), baseline, strict=True)]
        timed = bool(each.laps)
        figures.append(
            Figure(
                each.name,
                each.title,
                each.count,
                each.seconds,
                spread(_rates(each)),
                spread(ratios),
                spread([1000 * lap.p50 for lap in each.laps]) if timed else None,
                spread([1000 * lap.p99 for lap in each.laps]) if timed else None,
                tuple(spread(part) for part in zip(*each.cpu, strict=True)),
            )
        )
    return figures


def _speeds(sample: Sample) -> list[float]:
    """What a round is compared by: its median operation where each was timed, else its rate."""
    return [1 / lap.p50 for lap in sample.laps] or _rates(sample)


def _rates(sample: Sample) -> list[float]:
    return [sample.count / seconds for seconds in sample.seconds]
