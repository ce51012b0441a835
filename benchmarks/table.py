"""The report as Markdown. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from .figures import Figure, Group, Report, Spread

__all__ = ["render"]


def render(report: Report) -> str:
    """Return the tables, one for each group, and what they were measured on."""
    parts = [_group(each) for each in report.groups]
    machine = ", ".join(report.machine.values())
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    parts.append(
        f"Measured {report.date[:10]} in one run of `python -m benchmarks`: "
        f"{report.rounds} rounds, in each of which every rival ran once, one after the other, on "
        f"the same servers; messages of {report.payload_bytes} bytes. A ratio is the median of the "
        "rounds' ratios; in brackets the lowest and the highest round.\n\n"
        f"Machine: {machine}.\n\nVersions: {versions}."
    )
    if report.left_out:
        left = "; ".join(f"{name}: {reason}" for name, reason in report.left_out.items())
        parts.append(f"Left out: {left}.")
    return "\n\n".join(parts) + "\n"


def _group(group: Group) -> str:
    per_second = group.unit == "per_second"
    head = "per second" if per_second else "milliseconds each"
    lines = [
        f"**{group.title}.** {group.how}",
        "",
        f"| | ratio to the first | {head} |",
        "|---|---|---|",
    ]
    for place, figure in enumerate(group.figures):
        ratio = "1" if place == 0 else _spread(figure.ratio, _short)
        absolute = _spread(figure.rate, _count) if per_second else _milliseconds(figure)
        lines.append(f"| {figure.title} | {ratio} | {absolute} |")
    return "\n".join(lines)


def _milliseconds(figure: Figure) -> str:
    rate = figure.rate
    return _spread(Spread(1000 / rate.median, 1000 / rate.high, 1000 / rate.low), _short)


def _spread(values: Spread, show: Callable[[float], str]) -> str:
    return f"{show(values.median)} ({show(values.low)} to {show(values.high)})"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
