"""The report as Markdown. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .figures import Figure, Group, Report, Spread

__all__ = [
    "measured_on",
    "render",
    "render_groups",
    "render_groups_of",
    "render_summary",
    "spread_text",
]

#: The groups of the main comparison in docs/performance.md; each other group has its own block.
MAIN = ("", "as-run", "as-run-events", "as-run-chord", "drain", "delay", "one", "together", "bulk")
#: What the README shows of the run: rivals by name, each with the group's first one beside it.
SUMMARY = (
    "lane-info",
    "lane-info-on-ack",
    "native-prefork",
    "lane-results",
    "lane-on-ack",
    "delay-lane",
    "delay-produce-many",
    "lane-get",
    "bulk-many",
)


def render(report: Report, names: Collection[str] = MAIN) -> str:
    """Return the tables of some groups, and what they were measured on."""
    return render_groups(report, names) + "\n" + measured_on(report)


def render_summary(report: Report, names: Collection[str] = SUMMARY) -> str:
    """Return the few lines of the README: some rivals, each against the first of its group."""
    lines = ["| | compared with | ratio | |", "|---|---|---|---|"]
    for group in report.groups:
        for figure in group.figures[1:]:
            if figure.name in names:
                first = group.figures[0].title
                ratio = spread_text(figure.ratio, _short)
                lines.append(f"| {figure.title} | {first} | {ratio} | {_absolute(figure)} |")
    words = (
        f"Measured {report.date[:10]}, {report.rounds} rounds, messages of {report.payload_bytes} "
        f"bytes, on one machine for all servers ({', '.join(report.machine.values())}). A ratio "
        "above 1 is faster; in brackets the lowest and the highest round. [Performance]"
        "(docs/performance.md) has all rivals, sizes and costs, and `make bench` measures them on "
        "your machine."
    )
    return "\n".join([*lines, "", words]) + "\n"


def _absolute(figure: Figure) -> str:
    if figure.p50 is not None:
        return f"{_short(figure.p50.median)} ms each"
    return f"{_count(figure.rate.median)} per second"


def render_groups(report: Report, names: Collection[str]) -> str:
    """Return the tables of some groups."""
    return render_groups_of([each for each in report.groups if each.name in names])


def render_groups_of(groups: Iterable[Group]) -> str:
    """Return a table for each group."""
    return "\n\n".join(_group(each) for each in groups) + "\n"


def measured_on(report: Report) -> str:
    """Return when and on what it was measured, and who could not take part."""
    machine = ", ".join(report.machine.values())
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    words = (
        f"Measured {report.date[:10]} in one run of `python -m benchmarks`: "
        f"{report.rounds} rounds. In each round every rival ran once, one after the other, on the "
        f"same servers, with messages of {report.payload_bytes} bytes. A ratio is the median of "
        "the rounds' ratios; in brackets are the lowest and the highest round.\n\n"
        f"Machine: {machine}.\n\nVersions: {versions}."
    )
    parts = [words]
    if report.left_out:
        left = "; ".join(f"{name}: {reason}" for name, reason in report.left_out.items())
        parts.append(f"Left out: {left}.")
    return "\n\n".join(parts) + "\n"


def _group(group: Group) -> str:
    per_second = group.unit == "per_second"
    timed = any(figure.p50 is not None for figure in group.figures)
    head = "per second" if per_second else "milliseconds each"
    if timed:
        head = "median, ms | 99 of 100 within, ms"
    lines = [
        f"**{group.title}.** {group.how}",
        "",
        f"| | ratio to the first | {head} |",
        "|---|---|---|---|" if timed else "|---|---|---|",
    ]
    for place, figure in enumerate(group.figures):
        ratio = "1" if place == 0 else spread_text(figure.ratio, _short)
        if figure.p50 is not None and figure.p99 is not None:
            absolute = f"{spread_text(figure.p50, _short)} | {spread_text(figure.p99, _short)}"
        else:
            absolute = spread_text(figure.rate, _count) if per_second else _milliseconds(figure)
        lines.append(f"| {figure.title} | {ratio} | {absolute} |")
    return "\n".join(lines)


def _milliseconds(figure: Figure) -> str:
    rate = figure.rate
    return spread_text(Spread(1000 / rate.median, 1000 / rate.high, 1000 / rate.low), _short)


def spread_text(values: Spread, show: Callable[[float], str]) -> str:
    """Return a median with the lowest and the highest."""
    return f"{show(values.median)} ({show(values.low)} to {show(values.high)})"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
