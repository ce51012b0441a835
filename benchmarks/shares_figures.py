"""Which process spends the CPU of a message, ours beside the floor, and the words on it. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .figures import Spread, spread
from .table import spread_text

__all__ = ["PARTS", "Row", "Share", "Shares", "render_shares"]

#: The processes, in the order of the table.
PARTS = ("caller", "Redis", "worker", "Pulsar")
#: Those that use one core at a time: Redis' one thread, and Python's lock.
_ONE_CORE = 3


class Share(msgspec.Struct, frozen=True):
    """One rival."""

    name: str
    title: str
    #: Microseconds of a message in each round, by the clock on the wall.
    took: tuple[float, ...]
    #: Microseconds of CPU for each message, of each of :data:`PARTS`.
    cpu: tuple[Spread, ...]

    @property
    def spent(self) -> float:
        """Microseconds of CPU for each message, of all processes."""
        return sum(each.median for each in self.cpu)

    def least(self, cores: int) -> float:
        """Return the microseconds that a message takes at least, if no core waits for another."""
        one_core = [each.median for each in self.cpu[:_ONE_CORE]]
        return max(self.spent / cores, *one_core)

    def times(self, other: Share) -> Spread:
        """Return how often a message takes what it takes another, round by round."""
        return spread([mine / its for mine, its in zip(self.took, other.took, strict=True)])


class Row(msgspec.Struct, frozen=True):
    """One target, and who spends what for it."""

    words: str
    #: How often what the first takes a message may take at most.
    aim: float
    #: What ours is compared with, ours, and the floor.
    shares: tuple[Share, ...]


class Shares(msgspec.Struct, frozen=True):
    """A whole run."""

    date: str
    machine: dict[str, str]
    cores: int
    rounds: int
    rows: tuple[Row, ...]


def render_shares(found: Shares) -> str:
    """Return the table."""
    head = ("", "µs a message", "of the first", "at least", "cores busy", *PARTS, "all")
    lines = [_cells(head), _cells(["---"] * len(head))]
    for row in found.rows:
        lines.append(_cells([f"**{row.words}**", "", f"at most {row.aim:.2f}"]))
        lines += [_line(each, row.shares[0], found.cores) for each in row.shares]
    words = (
        f"Measured {found.date[:10]} by `python -m benchmarks.shares`: {found.rounds} rounds, in "
        "each of which every rival ran once. The columns from `caller` on are µs of CPU for each "
        "message, by the clocks of the processes; `worker` is the bare owner for a floor. "
        "`at least` is what this CPU takes of the first's time if no process waits for another; it "
        "is left out where more CPU was counted than there was in that time. "
        f"Machine: {', '.join(found.machine.values())}."
    )
    return "\n".join([*lines, "", words]) + "\n"


def _line(share: Share, first: Share, cores: int) -> str:
    took = spread(share.took)
    times = "1" if share is first else spread_text(share.times(first), lambda each: f"{each:.2f}")
    busy = f"{100 * share.spent / took.median / cores:.0f} %"
    counts = share is not first and share.spent <= cores * took.median
    least = f"{share.least(cores) / spread(first.took).median:.2f}" if counts else ""
    parts = [f"{each.median:,.0f}" for each in share.cpu]
    told = [f"{took.median:,.0f}", times, least, busy, *parts, f"{share.spent:,.0f}"]
    return _cells([share.title, *told])


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
