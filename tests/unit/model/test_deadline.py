"""The failure of a deadline: it is made in one place, and says what is known."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import celery_stargate
from celery_stargate import ProduceTimeout
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.outcome import error_of


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (False, "refused", "before it could be sent"),
        (True, "unknown", "after it may have been sent"),
        (None, "unknown", "nobody could tell"),
    ],
)
def test_only_what_was_surely_not_sent_is_refused(
    sent: bool | None, status: str, words: str
) -> None:
    """Promise P3; the error is a timeout."""
    failure = deadline_failure("c", "t", sent=sent)
    assert (failure.context, failure.topic, failure.status) == ("c", "t", status)
    assert words in failure.reason
    assert isinstance(error_of(failure), ProduceTimeout)


def test_it_is_made_nowhere_else() -> None:
    """No other module gives a failure that code."""
    makers = set()
    root = Path(celery_stargate.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code":
                value = node.value
                if isinstance(value, ast.Constant) and value.value == "deadline":
                    makers.add(path.relative_to(root).as_posix())
    assert makers == {"model/deadline.py"}
