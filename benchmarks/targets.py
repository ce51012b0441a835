"""The targets, as ratios within one run, and what the run measured. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .figures import Figure, Report, Spread, spread

__all__ = ["render_targets"]


def render_targets(report: Report) -> str:
    """Return the table: each target, what was measured, and whether the median reaches it."""
    found = {figure.name: figure for group in report.groups for figure in group.figures}
    lines = ["| | target | measured | |", "|---|---|---|---|"]
    for words, aim, at_least, measure in _TARGETS:
        try:
            values = measure(found)
        except KeyError:
            lines.append(f"| {words} | {_aim(aim, at_least)} | not measured | |")
            continue
        reached = values.median >= aim if at_least else values.median <= aim
        measured = f"{values.median:.2f} ({values.low:.2f} to {values.high:.2f})"
        word = "reached" if reached else "**not reached**"
        lines.append(f"| {words} | {_aim(aim, at_least)} | {measured} | {word} |")
    return "\n".join(lines) + "\n"


def _aim(aim: float, at_least: bool) -> str:
    return f"{'at least' if at_least else 'at most'} {aim:g}"


_Found = dict[str, Figure]


def _rates(ours: str, theirs: str) -> Callable[[_Found], Spread]:
    """Compare the rates of two rivals round by round."""

    def measure(found: _Found) -> Spread:
        one, other = found[ours], found[theirs]
        pairs = zip(one.seconds, other.seconds, strict=True)
        return spread([(one.count / mine) / (other.count / its) for mine, its in pairs])

    return measure


def _way(found: _Found) -> Spread:
    """Compare one message's way with a no-op's way and a bare round trip: medians of rounds."""
    ours, noop, bare = (_p50(found, each) for each in ("lane-get", "noop-get", _BARE))
    return Spread(
        ours.median / (noop.median + bare.median),
        ours.low / (noop.high + bare.high),
        ours.high / (noop.low + bare.low),
    )


def _round_trips(name: str) -> Callable[[_Found], Spread]:
    """Compare medians of rounds with those of a bare round trip."""

    def measure(found: _Found) -> Spread:
        ours, bare = _p50(found, name), _p50(found, _BARE)
        return Spread(ours.median / bare.median, ours.low / bare.high, ours.high / bare.low)

    return measure


def _tail(found: _Found) -> Spread:
    """Compare the slowest of 100 with the median, at half load."""
    figure = found["lane-get-half-load"]
    half, slow = figure.p50, figure.p99
    if half is None or slow is None:
        raise KeyError(figure.name)
    return Spread(slow.median / half.median, slow.low / half.high, slow.high / half.low)


def _p50(found: _Found, name: str) -> Spread:
    p50 = found[name].p50
    if p50 is None:
        raise KeyError(name)
    return p50


def _info(ours: str) -> Callable[[_Found], Spread]:
    """Compare with a no-op task, the worker's log at INFO for both."""
    return _rates(ours, "noop-info")


_BARE = "websocket-round-trip"

_TARGETS: Sequence[tuple[str, float, bool, Callable[[_Found], Spread]]] = (
    ("drain with results, log at INFO: a no-op task, log at INFO", 8, True, _info("lane-info")),
    (
        "drain with results, log at INFO: the same at WARNING",
        0.8,
        True,
        _rates("lane-info", "lane-warning"),
    ),
    (
        "drain with results, log at INFO, events: a no-op task, the same",
        10,
        True,
        _rates("lane-events", "noop-events"),
    ),
    (
        "drain with results, log at INFO, in groups that a task calls: without",
        0.7,
        True,
        _rates("lane-info-group", "lane-info"),
    ),
    ("`on_ack` on each, log at INFO: a no-op task", 4, True, _info("lane-info-on-ack")),
    ("first of a chain of two, log at INFO: a no-op task", 2, True, _info("lane-info-chain")),
    ("chords of 100, log at INFO: of no-op tasks", 3, True, _rates("lane-chord", "noop-chord")),
    ("drain with results: a no-op task, prefork 2", 8, True, _rates("lane-results", "noop")),
    (
        "drain with results: `pulsar-client`'s `send` in a task, prefork 2",
        15,
        True,
        _rates("lane-results", "native-prefork"),
    ),
    ("drain with `ignore_result`: a no-op task", 12, True, _rates("lane-silent", "noop")),
    ("drain with `on_ack` on each: a no-op task", 2, True, _rates("lane-on-ack", "noop")),
    ("`delay()`: Celery's `delay()`", 1, True, _rates("delay-lane", "delay-celery")),
    (
        "`produce_many`, a message: Celery's `delay()`",
        10,
        True,
        _rates("delay-produce-many", "delay-celery"),
    ),
    (
        "lists of 100, a message: Celery's `delay()`",
        10,
        True,
        _rates("delay-lane-lists", "delay-celery"),
    ),
    (
        "from put to settled in bulk, unbatched: `send_async` in a bare loop",
        0.9,
        True,
        _rates("bulk-many", "bare-send-async"),
    ),
    (
        "from put to settled in bulk, lists of 100: `send_async` in a bare loop",
        0.9,
        True,
        _rates("bulk-lists", "bare-send-async"),
    ),
    (
        "from put to settled in bulk, batched: `send_async` in a bare loop, batched",
        0.9,
        True,
        _rates("bulk-many-batched", "bare-send-async-batched"),
    ),
    *(
        (
            f"from put to settled, {words} each: a bare WebSocket loop",
            0.8,
            True,
            _rates(f"many-{size}", f"bare-websocket-{size}"),
        )
        for size, words in ((100_000, "100 kB"), (500_000, "500 kB"))
    ),
    *(
        (
            f"`produce_many` that waits, {words} each: a bare WebSocket loop",
            0.8,
            True,
            _rates(f"many-waits-{size}", f"bare-websocket-{size}"),
        )
        for size, words in ((10_000, "10 kB"), (100_000, "100 kB"), (500_000, "500 kB"))
    ),
    (
        "`produce_many` that waits, 100 B each: a bare WebSocket loop",
        0.8,
        True,
        _rates("bulk-many-waits", "bare-websocket"),
    ),
    (
        "200 concurrent `aproduce` in one event loop: `produce` in 32 threads",
        5,
        True,
        _rates("aproduce-loop", "produce-threads"),
    ),
    (
        "`delay().get()`, median: a no-op's plus a bare WebSocket round trip",
        0.8,
        False,
        _way,
    ),
    ("`stargate.produce`, median: a bare round trip", 1.5, False, _round_trips("produce-waits")),
    ("`aproduce`, median: a bare round trip", 1.5, False, _round_trips("aproduce-waits")),
    ("`delay().get()` at half load, 99 of 100: its median", 2, False, _tail),
)
