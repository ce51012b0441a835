"""Page, dashboard and alert rules name metrics that exist, and Prometheus can read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.unit.instrumentation.test_counting import LABELS
from tests.unit.instrumentation.test_counting import NAMES as COUNTED
from tests.unit.instrumentation.test_prometheus import NAMES

_DOCS = Path(__file__).resolve().parents[3] / "docs"
_PAGE = _DOCS / "monitoring.md"
_DASHBOARD = json.loads((_DOCS / "grafana_dashboard.json").read_text("utf-8"))
_RULES = yaml.safe_load((_DOCS / "prometheus_rules.yml").read_text("utf-8"))

#: The metrics that the issue of the package's operation asks for.
WANTED = {
    *("stargate_recorded_messages", "stargate_sent_messages", "stargate_outcomes"),
    *("stargate_receipt_duration_seconds", "stargate_in_flight_messages"),
    *("stargate_backlog_messages", "stargate_oldest_message_age_seconds"),
    *("stargate_reconnects", "stargate_takeovers", "stargate_redis_errors"),
}
#: What Prometheus adds to the labels of a sample, and to the name of a histogram.
_ADDED_LABELS = {"job", "instance", "le"}


def metrics_of(expression: Any) -> dict[str, set[str]]:
    """Return the metrics in a parsed expression, and the labels by which each is chosen."""
    if isinstance(expression, promql_parser.VectorSelector):
        return {str(expression.name): {each.name for each in expression.matchers.matchers}}
    found: dict[str, set[str]] = {}
    for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
        child = getattr(expression, name, None)
        for each in child if isinstance(child, list) else [child]:
            if each is not None:
                found.update(metrics_of(each))
    return found


def check(text: str) -> set[str]:
    """Return the metrics of an expression that Prometheus can read; a counter is a rate."""
    found = metrics_of(promql_parser.parse(text))
    assert found, text
    for name, labels in found.items():
        assert labels <= LABELS | _ADDED_LABELS, text
        assert ("rate(" in text) == name.endswith(("_total", "_bucket")), text
    return {name.removesuffix("_total").removesuffix("_bucket") for name in found}


def test_the_tables_have_all_metrics_and_no_other() -> None:
    table = re.findall(r"^\| `(stargate_\w+)` \|", _PAGE.read_text("utf-8"), re.MULTILINE)
    assert {name.removesuffix("_total") for name in table} == NAMES | COUNTED
    assert WANTED <= NAMES | COUNTED


def test_the_alert_rules_are_such_as_prometheus_reads() -> None:
    """The keys, the durations, the expressions; and the page's table has the same alerts."""
    [group] = _RULES["groups"]
    assert set(_RULES) == {"groups"}
    assert set(group) == {"name", "rules"}
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "annotations"}
        assert re.fullmatch(r"[0-9]+[smhd]", rule["for"])
        assert set(rule["annotations"]) == {"summary", "action"}
        assert check(rule["expr"]) <= NAMES | COUNTED
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= LABELS
    named = re.findall(r"^\| `(Stargate\w+)` \|", _PAGE.read_text("utf-8"), re.MULTILINE)
    assert named == [rule["alert"] for rule in group["rules"]]


@pytest.mark.parametrize("panel", _DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_each_panel_asks_what_prometheus_can_answer(panel: Any) -> None:
    for target in panel["targets"]:
        assert check(target["expr"]) <= NAMES | COUNTED
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= LABELS


def test_the_dashboard_has_its_panels_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in _DASHBOARD["panels"]}) == len(_DASHBOARD["panels"])
    variables = {each["name"] for each in _DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$(\w+)", json.dumps(_DASHBOARD["panels"]))) <= variables
