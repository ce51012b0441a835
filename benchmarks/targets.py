"""The targets, as ratios within one run, what the run measured, and the floors. No I/O.

A floor is what the same guarantees cost at least: a bare program beside ours, in the same rounds. A
target that the floor misses, too, cannot be reached with these guarantees by these libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .figures import Figure, Report, Spread, spread
from .growth_figures import Growth
from .workers_figures import Workers

__all__ = ["render_targets"]

_Found = Mapping[str, Figure]
_Measure = Callable[[_Found], Spread]


@dataclass(frozen=True)
class _Target:
    words: str
    aim: float
    measure: _Measure
    #: The same ratio for a bare program, if there is one.
    floor: _Measure | None = None
    #: Whether the ratio is to be at most the aim.
    at_most: bool = False
    #: How often ours costs what the floor costs, if not their ratios' quotient.
    beside: _Measure | None = None

    def reached_by(self, found: Spread) -> bool:
        return found.median <= self.aim if self.at_most else found.median >= self.aim


def render_targets(
    report: Report, growth: Growth | None = None, workers: Workers | None = None
) -> str:
    """Return the table: each target, what was measured, the floor, and what the median reaches.

    Arguments:
        report: of the comparison.
        growth: tells Redis' memory of a message.
        workers: tells what a second worker costs.
    """
    figures = {figure.name: figure for group in report.groups for figure in group.figures}
    targets = (*_TARGETS, *_of_growth(growth), *_of_workers(workers))
    lines = [
        "| | target | measured | floor | cost, in floors | |",
        "|---|---|---|---|---|---|",
        *(_line(each, figures) for each in targets),
    ]
    return "\n".join(lines) + "\n"


def _line(target: _Target, figures: _Found) -> str:
    head = f"| {target.words} | at {'most' if target.at_most else 'least'} {target.aim:g} |"
    try:
        found = target.measure(figures)
    except KeyError:
        return f"{head} not measured | | | |"
    reached = target.reached_by(found)
    try:
        floor = None if target.floor is None else target.floor(figures)
        times = None if floor is None else _times(target, found, floor, figures)
    except KeyError:
        floor = times = None
    verdict = "reached" if reached else "**not reached**"
    if floor is None or times is None:
        return f"{head} {_text(found)} | | | {verdict} |"
    if not reached and not target.reached_by(floor):
        verdict += "; nor by the floor"
    return f"{head} {_text(found)} | {_text(floor)} | {_text(times)} | {verdict} |"


def _times(target: _Target, found: Spread, floor: Spread, figures: _Found) -> Spread:
    """Return how often ours costs what the floor costs."""
    if target.beside is not None:
        return target.beside(figures)
    more, less = (found, floor) if target.at_most else (floor, found)
    return Spread(more.median / less.median, more.low / less.high, more.high / less.low)


def _text(values: Spread) -> str:
    return f"{values.median:.2f} ({values.low:.2f} to {values.high:.2f})"


def _rates(ours: str, theirs: str) -> _Measure:
    """Compare the rates of two rivals round by round."""

    def measure(found: _Found) -> Spread:
        one, other = found[ours], found[theirs]
        pairs = zip(one.seconds, other.seconds, strict=True)
        return spread([(one.count / mine) / (other.count / its) for mine, its in pairs])

    return measure


def _way(name: str) -> _Measure:
    """Compare one message's way with a no-op's way and a bare round trip: medians of rounds."""

    def measure(found: _Found) -> Spread:
        ours, noop, bare = (_p50(found, each) for each in (name, "noop-get", _BARE))
        return Spread(
            ours.median / (noop.median + bare.median),
            ours.low / (noop.high + bare.high),
            ours.high / (noop.low + bare.low),
        )

    return measure


def _round_trips(ours: str, theirs: str) -> _Measure:
    """Compare the medians of rounds of two rivals."""

    def measure(found: _Found) -> Spread:
        one, other = _p50(found, ours), _p50(found, theirs)
        return Spread(one.median / other.median, one.low / other.high, one.high / other.low)

    return measure


def _tail(name: str) -> _Measure:
    """Compare the slowest of 100 with the median."""

    def measure(found: _Found) -> Spread:
        half, slow = _p50(found, name), found[name].p99
        if slow is None:
            raise KeyError(name)
        return Spread(slow.median / half.median, slow.low / half.high, slow.high / half.low)

    return measure


def _p50(found: _Found, name: str) -> Spread:
    p50 = found[name].p50
    if p50 is None:
        raise KeyError(name)
    return p50


_BARE = "websocket-round-trip"


def _drain(
    words: str, aim: float, ours: str, theirs: str, floor: str | None = None, base: str = ""
) -> _Target:
    """Return a target for the rate of ours, compared with that of theirs.

    Arguments:
        floor: the rival whose rate is the floor.
        base: what the floor is compared with, if not with theirs.
    """
    if floor is None:
        return _Target(words, aim, _rates(ours, theirs))
    return _Target(
        words,
        aim,
        _rates(ours, theirs),
        _rates(floor, base or theirs),
        beside=_rates(floor, ours),
    )


def _trip(words: str, ours: str) -> _Target:
    return _Target(
        words,
        1.5,
        _round_trips(ours, _BARE),
        _round_trips("floor-round-trip", _BARE),
        at_most=True,
    )


def _of_growth(growth: Growth | None) -> Sequence[_Target]:
    size = 10_000
    sizes = [each for each in growth.sizes if each.payload_bytes == size] if growth else []
    words = f"Redis' memory for a message of {size // 1000} kB: its payload"
    if not sizes:
        return [_Target(words, 1.05, _missing, at_most=True)]
    memory, bare = sizes[0].memory / size, sizes[0].bare / size
    floor = _constant(bare) if bare else None
    return [_Target(words, 1.05, _constant(memory), floor, at_most=True)]


def _of_workers(workers: Workers | None) -> Sequence[_Target]:
    measure = _missing if workers is None else _constant(workers.ratio)
    words = "CPU of a message, four lanes, two workers: one worker"
    return [_Target(words, 1.1, measure, at_most=True)]


def _constant(value: float | Spread) -> _Measure:
    found = value if isinstance(value, Spread) else Spread(value, value, value)
    return lambda _: found


def _missing(found: _Found) -> Spread:
    raise KeyError


_INFO = "drain with results, log at INFO"
_TARGETS: Sequence[_Target] = (
    _drain(f"{_INFO}: a no-op task, log at INFO", 8, "lane-info", "noop-info", "floor-info"),
    _drain(
        f"{_INFO}: the same at WARNING",
        *(0.8, "lane-info", "lane-warning"),
        *("floor-info", "floor-warning"),
    ),
    _drain(
        f"{_INFO}, events: a no-op task, the same",
        *(10, "lane-events", "noop-events", "floor-events"),
    ),
    _drain(f"{_INFO}, in groups that a task calls: without", 0.7, "lane-info-group", "lane-info"),
    _drain(
        "`on_ack` on each, log at INFO: a no-op task",
        *(4, "lane-info-on-ack", "noop-info", "floor-on-ack"),
    ),
    _drain("first of a chain of two, log at INFO: a no-op task", 2, "lane-info-chain", "noop-info"),
    _drain(
        "chords of 100, log at INFO: of no-op tasks", 3, "lane-chord", "noop-chord", "floor-chord"
    ),
    _drain("drain with results: a no-op task, prefork 2", 8, "lane-results", "noop"),
    _drain(
        "drain with results: `pulsar-client`'s `send` in a task, prefork 2",
        *(15, "lane-results", "native-prefork"),
    ),
    _drain("drain with `ignore_result`: a no-op task", 12, "lane-silent", "noop"),
    _drain("drain with `on_ack` on each: a no-op task", 2, "lane-on-ack", "noop"),
    _drain("`delay()`: Celery's `delay()`", 1, "delay-lane", "delay-celery"),
    _drain(
        "`produce_many`, a message: Celery's `delay()`", 10, "delay-produce-many", "delay-celery"
    ),
    _drain("lists of 100, a message: Celery's `delay()`", 10, "delay-lane-lists", "delay-celery"),
    _drain(
        "from put to settled in bulk, unbatched: `send_async` in a bare loop",
        *(0.9, "bulk-many", "bare-send-async"),
    ),
    _drain(
        "from put to settled in bulk, lists of 100: `send_async` in a bare loop",
        *(0.9, "bulk-lists", "bare-send-async"),
    ),
    _drain(
        "from put to settled in bulk, batched: `send_async` in a bare loop, batched",
        *(0.9, "bulk-many-batched", "bare-send-async-batched", "floor-batched"),
    ),
    *(
        _drain(
            f"from put to settled, {words} each: a bare WebSocket loop",
            *(0.8, f"many-{size}", f"bare-websocket-{size}", f"floor-{size}"),
        )
        for size, words in ((100_000, "100 kB"), (500_000, "500 kB"))
    ),
    _drain(
        "`produce_many` that waits, 100 B each: a bare WebSocket loop",
        *(0.8, "bulk-many-waits", "bare-websocket", "floor-waits"),
    ),
    *(
        _drain(
            f"`produce_many` that waits, {words} each: a bare WebSocket loop",
            *(0.8, f"many-waits-{size}", f"bare-websocket-{size}", f"floor-waits-{size}"),
        )
        for size, words in ((10_000, "10 kB"), (100_000, "100 kB"), (500_000, "500 kB"))
    ),
    _drain(
        "200 concurrent `aproduce` in one event loop: `produce` in 32 threads",
        *(5, "aproduce-loop", "produce-threads", "floor-loop"),
    ),
    _Target(
        "`delay().get()`, median: a no-op's plus a bare WebSocket round trip",
        0.8,
        _way("lane-get"),
        _way("floor-get"),
        at_most=True,
        beside=_round_trips("lane-get", "floor-get"),
    ),
    _trip("`stargate.produce`, median: a bare round trip", "produce-waits"),
    _trip("`aproduce`, median: a bare round trip", "aproduce-waits"),
    _Target(
        "`delay().get()` at half load, 99 of 100: its median",
        2,
        _tail("lane-get-half-load"),
        _tail("floor-get-half-load"),
        at_most=True,
    ),
)
