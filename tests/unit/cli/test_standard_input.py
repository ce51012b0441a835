"""``cli/standard_input.py``: standard input may be closed."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import pytest

from celery_stargate.cli.standard_input import InputFile, confirm, standard_input


def test_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is read in bytes, also where a file's name is a dash."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"lamp")))
    assert standard_input("FILE") is sys.stdin.buffer
    assert InputFile().convert("-", None, None).read() == b"lamp"


def test_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to give in its place is said."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(click.UsageError, match="standard input is closed; give FILE"):
        standard_input("FILE")
    with pytest.raises(click.UsageError, match="give --yes"):
        confirm("Go on?")
    with pytest.raises(click.UsageError, match="give the name of a file"):
        InputFile().convert("-", None, None)


def test_a_file(tmp_path: Path) -> None:
    """Any other name is that of a file."""
    path = tmp_path / "lamps"
    path.write_bytes(b"lamp")
    with InputFile().convert(str(path), None, None) as file:
        assert file.read() == b"lamp"
