"""Celery finds the commands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from pkgutil import resolve_name

from celery_stargate.cli.main import stargate

_PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def test_the_entry_point_is_the_group() -> None:
    project = tomllib.loads(_PYPROJECT.read_text())["project"]
    [(name, target)] = project["entry-points"]["celery.commands"].items()
    assert name == "stargate"
    assert resolve_name(target) is stargate


def test_takes_the_preload_options_of_the_app() -> None:
    """Celery gives an app's own options to every command."""
    assert stargate.callback is not None
    stargate.callback(own_option="value")
