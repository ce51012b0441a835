"""Run commands as ``celery -A … stargate`` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner

from celery_stargate.cli.main import stargate as group


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object that it printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The objects that it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Run(Protocol):
    """Run a command."""

    def __call__(self, *arguments: str, app: Celery | None = ..., stdin: str = ...) -> Ran:
        """Return what it did.

        Arguments:
            app: by default the fixture ``app``.
            stdin: what it reads.
        """


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """Run a command, and let no exception pass as an exit code."""

    def invoke(*arguments: str, app: Celery | None = None, stdin: str = "") -> Ran:
        context = CLIContext(
            app=app or request.getfixturevalue("app"), no_color=False, workdir=None
        )
        result = CliRunner().invoke(group, list(arguments), obj=context, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return invoke
