"""The report: which rows there are, what they sum up, and where the page gets them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.checker import check
from tests.faults.ledger import Ledger
from tests.faults.plan import Plan, Result
from tests.faults.registry import ONCE, Kind
from tests.faults.report import read_results, report, write


@contextmanager
def _nothing(trial: Any, draw: random.Random) -> Iterator[None]:
    yield


KINDS = {
    "broken": Kind("broken", "something breaks", _nothing),
    "control": Kind("control", "all is off", _nothing, deliveries=(ONCE,), control=("duplicated",)),
}


def result(kind: str, seed: int, events: list[dict[str, Any]], *broken: str) -> dict[str, Any]:
    made = Result(Plan(KINDS[kind], seed), check(events), broken, Path("ledger"), 1.0)
    return json.loads(json.dumps(made.to_dict()))  # type: ignore[no-any-return]


STRUCK = [{"event": "strike", "in_flight": 7, "at": 1.0}]
TWICE = [{"event": "found", "id": "m", "at": 1.0}] * 3


def test_rows_by_kind_and_delivery() -> None:
    text = report(
        [result("broken", 1, STRUCK), result("broken", 2, STRUCK * 2), result("broken", 4, [])],
        KINDS,
    )
    assert "| broken, once | 1 | 0 | 1 | 7 |" in text
    assert "| broken | 2 | 0 | 2 | 14 |" in text
    assert "3 runs, 0 messages, 3 faults: lost 0" in text
    assert "Controls" not in text
    assert "| broken | something breaks |" in text


def test_a_control_is_good_where_it_finds_its_fault() -> None:
    found, not_found = result("control", 1, TWICE), result("control", 2, [])
    assert (found["good"], not_found["good"]) == (True, False)
    text = report([found], KINDS)
    assert "0 runs, 0 messages" in text
    assert "| control, once | 1 | 0 | 0 | 0 | 0 | 2 |" in text


def test_figures_with_a_bound() -> None:
    """The worst of all runs stands beside the bound."""
    measured = [{"event": "bound", "name": "threads", "bound": 2, "figure": n} for n in (1, 0)]
    text = report([result("broken", 1, measured), result("broken", 3, STRUCK)], KINDS)
    assert "| broken | threads | 1 | 2 |" in text


def test_a_run_in_which_a_promise_broke_is_named() -> None:
    text = report([result("broken", 3, [], "P1 lost: 1, as m0")], KINDS)
    assert "a promise did not hold 1: broken (seed 3)." in text


def test_the_page(tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "results.jsonl"
    page.write_text("before\n<!-- faults:begin -->\nold\n<!-- faults:end -->\nafter\n")
    lines = [result("broken", 1, STRUCK, "P1"), result("broken", 1, STRUCK), {"kind": "gone"}]
    lines[2] |= {"seed": 1}
    kept.write_text("".join(json.dumps(each) + "\n" for each in lines))
    write(page, read_results(kept, KINDS), KINDS)
    text = page.read_text()
    assert text.startswith("before\n<!-- faults:begin -->\n1 runs")
    assert text.endswith("<!-- faults:end -->\nafter\n")
    # The last run of a kind and seed counts.
    assert "did not hold 0." in text


def test_a_ledger_that_is_there_is_checked_again(tmp_path: Path) -> None:
    """What is promised may have changed since."""
    kept = tmp_path / "results.jsonl"
    old = result("broken", 2, [], "P6") | {"ledger": str(tmp_path / "ledger")}
    kept.write_text(json.dumps(old) + "\n")
    with Ledger(_made(tmp_path / "ledger"), "runner") as ledger:
        ledger.note("found", id="m")
    (again,) = read_results(kept, KINDS)
    assert again["broken"] == ["P1 not attempted, and in the topic: 1, as m"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
