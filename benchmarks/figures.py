"""What a run found: seconds of each round, rates, and ratios. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

__all__ = ["Figure", "Group", "Report", "Sample", "Spread", "make_groups", "spread"]

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


class Group(msgspec.Struct, frozen=True):
    """Rivals that do the same thing, and how it was measured; the first is the baseline."""

    title: str
    how: str
    #: ``per_second`` or ``milliseconds``: how the absolute figures read best.
    unit: str
    figures: tuple[Figure, ...]


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


class Sample(msgspec.Struct, frozen=True):
    """A rival's rounds as they were measured."""

    name: str
    title: str
    count: int
    seconds: tuple[float, ...]


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
    return tuple(Group(*words[name], tuple(_figures(members))) for name, members in samples.items())


def _figures(members: Sequence[Sample]) -> list[Figure]:
    baseline = _rates(members[0])
    figures = []
    for each in members:
        rates = _rates(each)
        ratios = [rate / base for rate, base in zip(rates, baseline, strict=True)]
        figures.append(
            Figure(each.name, each.title, each.count, each.seconds, spread(rates), spread(ratios))
        )
    return figures


def _rates(sample: Sample) -> list[float]:
    return [sample.count / seconds for seconds in sample.seconds]
