"""Which process spends the CPU of a message, ours beside the floor, and the words on it. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from .figures import Figure, Report, Spread, spread
from .table import spread_text

__all__ = ["PARTS", "ROWS", "render_shares"]

#: The processes, in the order of the table.
PARTS = ("caller", "Redis", "worker", "Pulsar")
#: Those that use one core at a time: Redis' one thread, and Python's lock.
_ONE_CORE = 3
#: How many lines the table has before its rows.
_HEAD = 2
#: Of each target: its words, how often what the first one takes a message may take, and the names
#: of what ours is compared with, ours, and the floor.
ROWS: Sequence[tuple[str, float, tuple[str, str, str]]] = (
    (
        "Drain with results, log at INFO: at WARNING",
        1 / 0.8,
        ("lane-warning", "lane-info", "floor-info"),
    ),
    ("`on_ack` on each", 1 / 4, ("noop-info", "lane-info-on-ack", "floor-on-ack")),
    ("Chords of 100", 1 / 3, ("noop-chord", "lane-chord", "floor-chord")),
    (
        "In bulk, batched",
        1 / 0.9,
        ("bare-send-async-batched", "bulk-many-batched", "floor-batched"),
    ),
    *(
        (
            f"{size // 1000} kB each",
            1 / 0.8,
            (f"bare-websocket-{size}", f"many-{size}", f"floor-{size}"),
        )
        for size in (100_000, 500_000)
    ),
    (
        "`produce_many` that waits, 100 B each",
        1 / 0.8,
        ("bare-websocket", "bulk-many-waits", "floor-waits"),
    ),
    *(
        (
            f"`produce_many` that waits, {size // 1000} kB each",
            1 / 0.8,
            (f"bare-websocket-{size}", f"many-waits-{size}", f"floor-waits-{size}"),
        )
        for size in (10_000, 100_000, 500_000)
    ),
    ("200 concurrent `aproduce`", 1 / 5, ("produce-threads", "aproduce-loop", "floor-loop")),
    ("`stargate.produce`", 1.5, ("websocket-round-trip", "produce-waits", "floor-round-trip")),
    ("`aproduce`", 1.5, ("websocket-round-trip", "aproduce-waits", "floor-round-trip")),
)


class _Share:
    """One rival.

    Arguments:
        figure: what its rounds took.
    """

    def __init__(self, figure: Figure) -> None:
        self.title = figure.title
        #: Microseconds of a message in each round, by the clock on the wall.
        self.took = [1e6 * seconds / figure.count for seconds in figure.seconds]
        #: Microseconds of CPU for each message, of each of :data:`PARTS`.
        self.cpu = [1e6 * each.median / figure.count for each in figure.cpu]

    @property
    def spent(self) -> float:
        """Microseconds of CPU for each message, of all processes."""
        return sum(self.cpu)

    def least(self, cores: int) -> float:
        """Return the microseconds that a message takes if no process waits for another."""
        return max(self.spent / cores, *self.cpu[:_ONE_CORE])

    def times(self, other: _Share) -> Spread:
        """Return how many times as long a message takes as with another rival, round by round."""
        return spread([mine / its for mine, its in zip(self.took, other.took, strict=True)])


def render_shares(report: Report) -> str:
    """Return the table; empty if a run has no CPU."""
    figures = {each.name: each for group in report.groups for each in group.figures if each.cpu}
    head = ("", "µs a message", "of the first", "at least", "cores busy", *PARTS, "all")
    lines = [_cells(head), _cells(["---"] * len(head))]
    for words, aim, names in ROWS:
        if all(name in figures for name in names):
            shares = [_Share(figures[name]) for name in names]
            lines.append(_cells([f"**{words}**", "", f"at most {aim:.2f}"]))
            lines += [_line(each, shares[0], report.core_count) for each in shares]
    if len(lines) == _HEAD:
        return ""
    words = (
        "Measured in the run of the [targets](#targets). The columns from `caller` on are µs of "
        "CPU for each message, by the clocks of the processes, medians of the rounds; `worker` is "
        "the bare owner for a floor. `at least` is what this CPU takes of the first's time if no "
        "process waits for another; it is left out where more CPU was counted than there was in "
        "that time."
    )
    return "\n".join([*lines, "", words]) + "\n"


def _line(share: _Share, first: _Share, cores: int) -> str:
    took = spread(share.took)
    times = "1" if share is first else spread_text(share.times(first), lambda each: f"{each:.2f}")
    busy = f"{100 * share.spent / took.median / cores:.0f} %"
    counts = share is not first and share.spent <= cores * took.median
    least = f"{share.least(cores) / spread(first.took).median:.2f}" if counts else ""
    parts = [f"{each:,.0f}" for each in share.cpu]
    told = [f"{took.median:,.0f}", times, least, busy, *parts, f"{share.spent:,.0f}"]
    return _cells([share.title, *told])


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
