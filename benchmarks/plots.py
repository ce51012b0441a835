"""Plots of the results, as SVG: the same results give the same files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from .figures import Figure, Report, Spread
from .growth_figures import Growth
from .payload import PAYLOAD

__all__ = ["draw_growth", "draw_report"]

_STYLE: Any = {"svg.hashsalt": "celery_stargate", "svg.fonttype": "none", "font.size": 9}


def draw_report(report: Report, folder: Path) -> None:
    """Draw how the rate goes with the payload's size, and with lanes and workers."""
    figures = {figure.name: figure for group in report.groups for figure in group.figures}
    sizes = (len(PAYLOAD), 1000, 10_000, 100_000, 500_000)
    with _plot(folder / "sizes.svg", "bytes in a message", "messages per second") as axes:
        for label, first, rest in (
            ("produce_many, from put to settled", "bulk-many", "many-{}"),
            ("pulsar-client's send_async, nothing durable", "bare-send-async", None),
        ):
            names = [first, *((rest or "bare-send-async-{}").format(size) for size in sizes[1:])]
            found = [
                (s, figures[n].rate) for s, n in zip(sizes, names, strict=True) if n in figures
            ]
            _line(axes, found, label)
        axes.set_xscale("log")
        axes.set_yscale("log")
    lanes = [
        figures[each] for each in ("lanes-1", "lanes-2", "lanes-4", "workers-2") if each in figures
    ]
    with _plot(folder / "lanes.svg", "", "messages per second") as axes:
        _bars(axes, lanes)


def draw_growth(growth: Growth, folder: Path) -> None:
    """Draw what grows with the backlog, and how the rate goes with the window."""
    levels = growth.levels
    with _plot(folder / "costs.svg", "contexts pending", "µs of Redis a message") as axes:
        for name in ("put", "read", "settle", "finish"):
            _line(axes, [(each.pending, getattr(each, name)) for each in levels], name)
        axes.set_xscale("log")
        _from_zero(axes)
    held = [
        (each.pending, Spread(*[each.worker_mib] * 3))
        for each in levels
        if each.worker_mib is not None
    ]
    with _plot(folder / "memory.svg", "contexts pending", "MiB of the worker") as axes:
        _line(axes, held, "the most its main process held")
        axes.set_xscale("log")
        _from_zero(axes)
    with _plot(folder / "window.svg", "messages in flight", "messages per second") as axes:
        drains = growth.window.figures if growth.window is not None else ()
        found = [(int(each.name.rpartition("-")[2]), each.rate) for each in drains]
        _line(axes, found, "one lane, drained by one worker")
        axes.set_xscale("log")
        _from_zero(axes)


def _from_zero(axes: Any) -> None:
    """Let the values be seen against nothing, with room above the highest."""
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


@contextmanager
def _plot(path: Path, x: str, y: str) -> Iterator[Any]:
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(6, 3.2), layout="constrained")
        axes = canvas.subplots()
        yield axes
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(visible=True, alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, format="svg", metadata={"Date": None})


def _line(axes: Any, found: Sequence[tuple[int, Spread]], label: str) -> None:
    medians = [each.median for _, each in found]
    below = [each.median - each.low for _, each in found]
    above = [each.high - each.median for _, each in found]
    places = [place for place, _ in found]
    axes.errorbar(places, medians, yerr=(below, above), marker="o", capsize=3, label=label)


def _bars(axes: Any, figures: Sequence[Figure]) -> None:
    rates = [each.rate for each in figures]
    below = [rate.median - rate.low for rate in rates]
    above = [rate.high - rate.median for rate in rates]
    axes.bar(
        [each.title.replace(", ", "\n") for each in figures],
        [rate.median for rate in rates],
        yerr=(below, above),
        capsize=3,
        width=0.5,
    )
