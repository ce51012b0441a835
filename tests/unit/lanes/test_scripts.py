"""The Lua files: all are found, each is documented, each gets the keys it names."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from celery_stargate.lanes.scripts import LANE_PARTS, lane_script, registry_script

FOLDER = Path(str(files("celery_stargate.lanes")))
LANE = sorted(path.stem for path in FOLDER.glob("*.lua") if path.stem != "common")
REGISTRY = sorted(path.stem for path in (FOLDER / "registry").glob("*.lua"))


@pytest.fixture(autouse=True)
def _unread() -> None:
    """Whatever other tests have read."""
    lane_script.cache_clear()
    registry_script.cache_clear()


@pytest.mark.parametrize("name", LANE)
def test_a_lanes_script_stands_behind_the_common_part(name: str) -> None:
    """And is read once."""
    common = (FOLDER / "common.lua").read_text("utf-8")
    assert lane_script(name) == common + (FOLDER / f"{name}.lua").read_text("utf-8")
    assert lane_script(name) is lane_script(name)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_registrys_script_stands_alone(name: str) -> None:
    """Its keys are others."""
    assert registry_script(name) == (FOLDER / "registry" / f"{name}.lua").read_text("utf-8")


@pytest.mark.parametrize("path", [*FOLDER.glob("*.lua"), *FOLDER.glob("registry/*.lua")], ids=str)
def test_each_begins_with_words(path: Path) -> None:
    """What it does, its arguments and its answer."""
    text = path.read_text("utf-8")
    assert text.startswith("-- ")
    if "ARGV[" in text:
        assert "ARGV:" in text.split("\nlocal ")[0]


def test_the_keys_are_those_of_the_common_part() -> None:
    """In the same order, with the caller's answers last."""
    common = (FOLDER / "common.lua").read_text("utf-8")
    documented = re.findall(r"^--\s+(\d)\s+(\w+)\s", common, re.MULTILINE)
    assert documented == [
        (str(number), part) for number, part in enumerate([*LANE_PARTS, "answers"], start=1)
    ]


@pytest.mark.parametrize("name", LANE)
def test_no_script_names_a_key_of_its_own(name: str) -> None:
    """A key that is not declared would break a cluster."""
    text = (FOLDER / f"{name}.lua").read_text("utf-8")
    assert "KEYS[" not in text
