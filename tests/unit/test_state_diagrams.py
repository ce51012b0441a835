"""``tools/state_diagrams.py``: the page is drawn from the tables, and an old one is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_stargate.delivery import states as lane_states
from tools import state_diagrams
from tools.state_diagrams import CHARTS, Chart, draw, everywhere, main, meanings, render


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of the test's own, just drawn."""
    page = tmp_path / "states.md"
    monkeypatch.setattr(state_diagrams, "PAGE", page)
    assert main([]) == 0
    return page


def test_the_page_of_the_repository_is_not_old() -> None:
    """As ``tox -e docs`` asks."""
    assert main(["--check"]) == 0


def test_a_new_page_is_good(page: Path) -> None:
    """What was just drawn passes the check."""
    assert main(["--check"]) == 0
    assert page.read_text("utf-8") == render()


def test_a_page_of_other_tables_is_old(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hash of its sources differs."""
    monkeypatch.setattr(state_diagrams, "source_hash", lambda: "0" * 16)
    assert main(["--check"]) == 1
    assert "older than the state tables" in capsys.readouterr().err


def test_a_page_that_was_edited(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hash is right and the text is not."""
    page.write_text(page.read_text("utf-8") + "more\n", "utf-8")
    assert main(["--check"]) == 1
    assert "edited by hand" in capsys.readouterr().err


def test_a_missing_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says how it is made."""
    page.unlink()
    assert main(["--check"]) == 1
    assert "python -m tools.state_diagrams" in capsys.readouterr().err


@pytest.mark.parametrize("chart", CHARTS, ids=[chart.title for chart in CHARTS])
def test_every_transition_is_drawn(chart: Chart) -> None:
    """Each pair of the table that changes the state is an arrow, or leads there from everywhere."""
    lines = list(draw(chart))
    for state, row in chart.table.items():
        for event, target in row.items():
            if target is state or event in everywhere(chart):
                continue
            arrows = [
                line for line in lines if line.startswith(f"    {state.name} --> {target.name}: ")
            ]
            assert len(arrows) == 1
            assert event.value in arrows[0].partition(": ")[2].split(", ")


def test_a_state_without_a_comment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would be a line of the page that says nothing."""
    path = tmp_path / "states.py"
    text = Path(lane_states.__file__).read_text("utf-8")
    path.write_text(text.replace('BACKOFF = "backoff"  #:', 'BACKOFF = "backoff"  #'), "utf-8")
    monkeypatch.setattr(lane_states, "__file__", str(path))
    with pytest.raises(ValueError, match="no comment beside BACKOFF"):
        meanings(lane_states.State, lane_states)
