"""What the pages say of the measurements, made from the results' files alone.

``python -m benchmarks.pages`` writes all blocks and plots again; each measuring command ends so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from .cases.findings import Findings, render_findings
from .figures import Report
from .growth_figures import (
    Growth,
    render_costs,
    render_idle,
    render_memory,
    render_sizes,
    render_window,
)
from .model import Model, render_drains, render_model
from .outbox.figures import OutboxFigures, render_outbox
from .profile_figures import Profile, render_profile
from .readme import NOT_MEASURED, replace_block
from .shard_figures import ShardFigures
from .shares import render_shares
from .steps_figures import Steps, render_steps
from .table import MAIN, measured_on, render_groups, render_summary
from .targets import render_targets
from .workers_figures import Workers

__all__ = ["DJANGO", "PERFORMANCE", "README", "RESULTS", "blocks", "save", "write_pages"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
DJANGO = ROOT / "docs" / "django.md"
PLOTS = ROOT / "docs" / "benchmarks"

_T = TypeVar("_T")


def load(name: str, kind: type[_T], folder: Path = RESULTS) -> _T | None:
    """Return what a command found, if it ran."""
    path = folder / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.is_file() else None


def save(name: str, found: object, folder: Path = RESULTS) -> None:
    """Keep what a command found."""
    folder.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(found), indent=1)
    (folder / f"{name}.json").write_bytes(text + b"\n")


def blocks(folder: Path = RESULTS) -> Mapping[Path, Mapping[str, str]]:
    """Return what each page must say, by the names of its blocks."""
    report = load("latest", Report, folder)
    growth = load("growth", Growth, folder)
    profile = load("profile", Profile, folder)
    findings = load("cases", Findings, folder)
    outbox = load("outbox", OutboxFigures, folder)
    workers = load("workers", Workers, folder)
    shards = load("shards", ShardFigures, folder)
    steps = load("steps", Steps, folder)

    def say(found: _T | None, words: Callable[[_T], str], plot: str = "") -> str:
        said = "" if found is None else words(found).strip()
        picture = f"\n\n![{plot}](benchmarks/{plot}.svg)" if plot else ""
        return said + picture if said else NOT_MEASURED

    sizes = ("size-1000", "size-10000", "size-100000", "size-500000")
    model = Model.of(report, growth, profile, shards) if report and growth and profile else None
    return {
        README: {"": say(report, render_summary)},
        PERFORMANCE: {
            "targets": say(report, lambda found: render_targets(found, growth, workers)),
            "main": say(report, lambda found: render_groups(found, MAIN)),
            "sizes": say(report, lambda found: render_groups(found, sizes), "sizes"),
            "lanes": say(report, lambda found: render_groups(found, ("lanes",)), "lanes"),
            "machine": say(report, measured_on),
            "profile": say(profile, render_profile),
            "shares": say(report, render_shares),
            "steps": say(steps, render_steps),
            "window": say(growth, render_window, "window"),
            "costs": say(growth, render_costs, "costs"),
            "memory": say(growth, render_memory, "memory"),
            "stored": say(growth, render_sizes),
            "idle": say(growth, render_idle),
            "model": say(model, render_model),
            "drains": say(shards, render_drains),
            "cases": say(findings, render_findings),
        },
        DJANGO: {"outbox-figures": say(outbox, render_outbox)},
    }


def write_pages() -> None:
    """Write all blocks, and the plots.

    Raises:
        ModuleNotFoundError: matplotlib is not here; it is in the group ``bench``.
    """
    from .plots import draw_growth, draw_report

    for page, named in blocks().items():
        text = page.read_text("utf-8")
        for name, block in named.items():
            text = replace_block(text, block, name)
        page.write_text(text, "utf-8")
    report, growth = load("latest", Report), load("growth", Growth)
    if report is not None:
        draw_report(report, PLOTS)
    if growth is not None:
        draw_growth(growth, PLOTS)


if __name__ == "__main__":
    write_pages()
