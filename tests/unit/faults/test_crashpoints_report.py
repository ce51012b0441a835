"""The table of crash points: what is summed up, and where the page gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.crashpoints.report import report, write


def result(point: str, pulsar: str, delivery: str, *, copies: int, good: bool) -> dict[str, Any]:
    """A run, as its line has it."""
    counts = ("lost", "both_outcomes", "open", "out_of_order", "callbacks_missing")
    return {
        **dict.fromkeys(counts, 0),
        "point": point,
        "pulsar": pulsar,
        "delivery": delivery,
        "good": good,
        "accepted": 1000,
        "found": 1000 + copies,
        "duplicated": copies,
        "callbacks_wanted": 20,
        "callbacks_other_id": 0,
        "callbacks_repeated": 3,
    }


RUNS = [
    result("put-before-kill", "real", "at_least_once", copies=7, good=True),
    result("put-before-kill", "real", "effectively_once", copies=0, good=True),
    result("put-after-kill", "real", "at_least_once", copies=2, good=False),
]


def test_a_row_sums_up_its_runs() -> None:
    """There is none for a Pulsar at which nothing ran."""
    row = "| a real broker | 3 | 2 | 3,000 | 3,009 | 0 | 0 | 0 | 0 | 0 of 60 | 0 | 9 | 9 | 0 | 1 |"
    text = report(RUNS)
    assert row in text
    assert "LocalPulsar" not in text


def test_the_page_gets_it_between_its_markers(tmp_path: Path) -> None:
    """And keeps the rest."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- crashpoints:begin -->\nold\n<!-- crashpoints:end -->\nb\n")
    write(page, RUNS)
    assert page.read_text().startswith("a\n<!-- crashpoints:begin -->\n| Pulsar |")
    assert "old" not in page.read_text()
    assert page.read_text().endswith("b\n")
