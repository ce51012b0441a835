"""The page of the metrics has all of them, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.instrumentation.test_prometheus import NAMES

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"


def test_the_table_and_the_alerts_name_metrics_that_exist() -> None:
    page = _PAGE.read_text("utf-8")
    table = re.findall(r"^\| `(stargate_\w+)` \|", page, re.MULTILINE)
    assert {name.removesuffix("_total") for name in table} == NAMES
    for expression in re.findall(r"expr: (\w+)", page):
        assert expression in table
