"""The steps of one call, one after the other, and the words on them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

import msgspec

from .figures import Spread, spread
from .table import spread_text

__all__ = ["CALLED", "STEPS", "Step", "Steps", "laps", "render_steps", "steps_of"]

#: Each step: what it is, and what is noted at its end. The first begins with the call.
STEPS: Sequence[tuple[str, str]] = (
    ("the caller checks the call, and encodes it", "put is asked for"),
    ("redis-py and Redis: the put, until the owner is woken", "the owner is woken"),
    ("the owner takes the message, and writes its frame", "the frame is written"),
    ("Pulsar, until its receipt is there", "Pulsar answers"),
    ("the owner reads the receipt, and decides what follows", "complete is asked for"),
    ("redis-py and Redis: the owner settles, until the caller is told", "the caller is told"),
    ("the caller decodes the receipt, and the call returns", "the call ends"),
)
CALLED = "the call begins"


class Step(msgspec.Struct, frozen=True):
    """One step: microseconds, the medians of the rounds."""

    name: str
    micros: Spread


class Steps(msgspec.Struct, frozen=True):
    """A run of ``benchmarks.steps``."""

    #: When it began, ISO 8601.
    date: str
    machine: dict[str, str]
    #: Calls in each round, and rounds.
    calls: int
    rounds: int
    steps: tuple[Step, ...]
    #: Microseconds of the whole call, and of a bare WebSocket round trip beside it.
    call: Spread
    bare: Spread


def laps(notes: Iterable[tuple[float, str]]) -> list[tuple[float, ...]]:
    """Return the microseconds of each step, for each call whose steps were all noted.

    Arguments:
        notes: of all processes; in any order.
    """
    found: list[tuple[float, ...]] = []
    times: list[float] = []
    for when, what in sorted(notes):
        if what == CALLED:
            times = [when]
        elif times and len(times) <= len(STEPS) and what == STEPS[len(times) - 1][1]:
            times.append(when)
            if len(times) > len(STEPS):
                found.append(tuple(1e6 * (end - begin) for begin, end in pairwise(times)))
    return found


def steps_of(rounds: Sequence[Sequence[tuple[float, ...]]]) -> tuple[Step, ...]:
    """Return the steps, from the laps of each round."""
    medians = [[median(step) for step in zip(*each, strict=True)] for each in rounds]
    spreads = [spread(step) for step in zip(*medians, strict=True)]
    return tuple(Step(name, each) for (name, _), each in zip(STEPS, spreads, strict=True))


def render_steps(found: Steps) -> str:
    """Return the table."""
    rows = [
        *((each.name, each.micros) for each in found.steps),
        ("**`stargate.produce`**, the whole call", found.call),
        ("a bare WebSocket round trip", found.bare),
    ]
    lines = ["| | µs | of a bare round trip |", "|---|---|---|"]
    for name, micros in rows:
        told = spread_text(micros, lambda each: f"{each:,.0f}")
        lines.append(f"| {name} | {told} | {micros.median / found.bare.median:.2f} |")
    words = (
        f"Measured {found.date[:10]} by `python -m benchmarks.steps`: {found.rounds} rounds of "
        f"{found.calls} calls, one after the other, and as many bare round trips; the figures are "
        "medians. Noting a step takes time, so the call takes a little longer than in the "
        f"[targets](#targets). Machine: {', '.join(found.machine.values())}."
    )
    return "\n".join([*lines, "", words]) + "\n"
