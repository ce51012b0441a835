"""The last line of ``doctor``: how many results there are, and how bad they are."""

from __future__ import annotations

import pytest

from celery_stargate.cli.doctor import _summarize
from celery_stargate.cli.output import Output
from celery_stargate.operations.doctor.finding import Finding, Level


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ([Level.OK], "1 result: 0 errors, 0 warnings, 0 notes"),
        (
            [Level.OK, Level.ERROR, Level.WARNING, Level.NOTE, Level.NOTE],
            "5 results: 1 error, 1 warning, 2 notes",
        ),
    ],
)
def test_counts_in_singular_and_plural(
    levels: list[Level], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _summarize(
        Output(as_json=False, no_color=True), [Finding("redis", each, "") for each in levels]
    )
    assert capsys.readouterr().out == f"{text}\n"
