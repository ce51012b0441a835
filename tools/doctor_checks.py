"""The checks of `doctor`, and the tests that plant a mistake for each, as a table of a page."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from celery_stargate.operations.doctor import diagnosis
from celery_stargate.operations.doctor.celery_checks import CELERY_CHECKS
from celery_stargate.operations.doctor.finding import Check
from celery_stargate.operations.doctor.lanes import LANE_CHECKS
from celery_stargate.operations.doctor.peers import PEER_CHECKS
from celery_stargate.operations.doctor.redis_checks import REDIS_CHECKS
from celery_stargate.operations.doctor.service import SERVICE_CHECKS
from celery_stargate.operations.doctor.topics import TOPIC_CHECKS

__all__ = ["checks", "planted", "render_doctor_checks"]

ROOT = Path(__file__).resolve().parent.parent
_TESTS = ROOT / "tests" / "integration" / "operations" / "doctor"
_TABLES: Sequence[Sequence[Check[Any]]] = (
    *(CELERY_CHECKS, REDIS_CHECKS, LANE_CHECKS, PEER_CHECKS, SERVICE_CHECKS, TOPIC_CHECKS),
)


def checks() -> dict[str, str]:
    """Return all checks, by their names, with what is so where one finds nothing."""
    found = dict(_without_a_table())
    for table in _TABLES:
        found |= {check.name: check.sound for check in table}
    return found


def _without_a_table() -> Iterator[tuple[str, str]]:
    """Yield the findings that diagnosis.py makes itself."""
    tree = ast.parse(Path(diagnosis.__file__).read_text("utf-8"))
    sound: dict[str, str] = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Finding":
            name, level, said = map(ast.unparse, call.args[:3])
            text = ast.literal_eval(said) if level == "Level.OK" else ""
            sound[ast.literal_eval(name)] = text or sound.get(ast.literal_eval(name), "")
    yield from sound.items()


def planted() -> dict[str, list[str]]:
    """Return the tests that plant a mistake, by the names of the checks that must find it."""
    found: dict[str, list[str]] = {}
    for path in sorted(_TESTS.glob("test_*.py")):
        for test in ast.parse(path.read_text("utf-8")).body:
            if isinstance(test, ast.FunctionDef):
                for name in _marks(test):
                    found.setdefault(name, []).append(f"{path.name}::{test.name}")
    return found


def _marks(test: ast.FunctionDef) -> Iterator[str]:
    """Yield what the marks ``plants`` of a test name, each once."""
    names: dict[str, None] = {}
    for decorator in test.decorator_list:
        for call in ast.walk(decorator):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.plants":
                names |= dict.fromkeys(map(ast.literal_eval, call.args))
    yield from names


def render_doctor_checks() -> str:
    """Return the table."""
    tests = planted()
    lines = ["| Check | Sound | A test that plants a mistake |", "|---|---|---|"]
    for name, sound in sorted(checks().items()):
        first = tests.get(name, [""])[0]
        lines.append(f"| `{name}` | {sound or 'all topics were asked'} | `{first}` |")
    return "\n".join(lines)
