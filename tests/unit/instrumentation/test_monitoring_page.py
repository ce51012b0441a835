"""The page of the metrics has all of them, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.unit.instrumentation.test_prometheus import NAMES

_DASHBOARD = Path(__file__).resolve().parents[3] / "docs" / "grafana_dashboard.json"
_PAGE = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"


def test_the_table_and_the_alerts_name_metrics_that_exist() -> None:
    page = _PAGE.read_text("utf-8")
    table = re.findall(r"^\| `(stargate_\w+)` \|", page, re.MULTILINE)
    assert {name.removesuffix("_total") for name in table} == NAMES
    for expression in re.findall(r"expr: (\w+)", page):
        assert expression in table


def test_the_dashboard_names_metrics_that_exist_and_overlaps_nowhere() -> None:
    dashboard = json.loads(_DASHBOARD.read_text("utf-8"))
    shown: set[str] = set()
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            [metric] = re.findall(r"stargate_\w+", target["expr"])
            assert ("rate(" in target["expr"]) == metric.endswith("_total")
            shown.add(metric.removesuffix("_total"))
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert max(x for x, _ in taken) < 24
    assert shown <= NAMES
    assert "stargate_oldest_message_age_seconds" in shown
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
