"""The table of crash points against the code."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.crashpoints import hooks
from tests.crashpoints.hooks import ARMED, Crash
from tests.crashpoints.steps import STEPS, Step, points


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_each_step_is_a_method_of_the_package(step: Step) -> None:
    """And what it may raise is an error that the package knows."""
    owner, name = step.resolve()
    assert callable(vars(owner)[name])
    assert owner.__module__.startswith("celery_stargate.")
    assert isinstance(step.error(), Exception)


def test_a_step_that_is_gone_is_told() -> None:
    """So the table cannot rot."""
    gone = Step("gone", "", "celery_stargate.lanes.leased:LeasedLane.gone", RuntimeError)
    with pytest.raises(AttributeError, match="LeasedLane has no method gone"):
        gone.resolve()


def test_the_points_are_all_crossings() -> None:
    """Each step, twice, three times."""
    assert len(points()) == len(STEPS) * 6
    assert len({each.name for each in points()}) == len(points())


class Way:
    """Two steps of one's own."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def now(self) -> str:
        """Do something."""
        self.done.append("now")
        return "now"

    async def later(self) -> str:
        """Do something later."""
        self.done.append("later")
        return "later"


@pytest.mark.parametrize("name", ["now", "later"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_strike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, when: str) -> None:
    """At the time that is asked for, once, and not before the calls have begun."""
    step = Step("mine", "", f"{__name__}:Way.{name}", lambda: OSError("struck"))
    monkeypatch.setattr(hooks, "STEPS", (step,))
    monkeypatch.setattr(Way, name, vars(Way)[name])
    hooks.install(Crash("mine", when, "exception", 2, 0.0, str(tmp_path), "me"))
    way = Way()

    def take() -> Any:
        found = getattr(way, name)()
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    assert [take(), take(), take()] == [name] * 3
    (tmp_path / ARMED).touch()
    assert take() == name
    with pytest.raises(OSError, match="struck"):
        take()
    assert len(way.done) == (4 if when == "before" else 5)
    assert take() == name
    [event] = [json.loads(line) for line in (tmp_path / "me.jsonl").read_text().splitlines()]
    assert (event["event"], event["step"]) == ("strike", "mine")
