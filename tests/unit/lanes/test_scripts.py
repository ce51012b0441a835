"""The Lua files (all are found and documented, and get the keys they name) and their callers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from celery_stargate.lanes import scripts
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry_keys import RegistryKeys
from celery_stargate.lanes.scripts import (
    DEAD_PARTS,
    LANE_PARTS,
    Callers,
    lane_keys,
    lane_script,
    registry_script,
)
from celery_stargate.model.buckets import in_buckets

FOLDER = Path(str(files("celery_stargate.lanes"))) / "lua"
COMMON = ("common", "dead_letters", "announcement", "sending")
LANE = sorted(path.stem for path in FOLDER.glob("*.lua") if path.stem not in COMMON)
REGISTRY = sorted(path.stem for path in (FOLDER / "registry").glob("*.lua"))


@pytest.fixture(autouse=True)
def _unread() -> None:
    """Whatever other tests have read."""
    scripts._text.cache_clear()  # noqa: SLF001


def code(path: Path) -> str:
    """Return a script without the lines that are comments."""
    return re.sub(r"(?m)^ *--.*\n", "", path.read_text("utf-8"))


@pytest.mark.parametrize("name", LANE)
def test_a_lanes_script_stands_behind_the_common_part(name: str) -> None:
    """And is read once."""
    own, common = code(FOLDER / f"{name}.lua"), code(FOLDER / "common.lua")
    # What keeps dead letters, or takes them, has a second common part.
    if re.search(r"\b(GIVEN|DEAD|MAX_COUNT|prune_letters|letter_of)\b", own):
        common += code(FOLDER / "dead_letters.lua")
    if re.search(r"\b(begin_lane|is_announced)\(", own):
        common += code(FOLDER / "announcement.lua")
    if "note_sent(" in own:
        common += code(FOLDER / "sending.lua")
    assert lane_script(name) == common + own
    assert lane_script(name) is lane_script(name)
    assert "--" not in lane_script(name)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_registrys_script_stands_alone(name: str) -> None:
    """Its keys are others."""
    own = code(FOLDER / "registry" / f"{name}.lua")
    common = code(FOLDER / "announcement.lua") if "announce(" in own else ""
    assert registry_script(name) == common + own


@pytest.mark.parametrize("path", [*FOLDER.glob("*.lua"), *FOLDER.glob("registry/*.lua")], ids=str)
def test_each_begins_with_words(path: Path) -> None:
    """What it does, its arguments and its answer."""
    text = path.read_text("utf-8")
    assert text.startswith("-- ")
    if "ARGV[" in text:
        assert "ARGV:" in text.split("\nlocal ")[0]


def test_the_keys_are_those_of_the_common_part() -> None:
    """In the same order, with the caller's answers last."""
    texts = "".join((FOLDER / f"{name}.lua").read_text("utf-8") for name in COMMON)
    documented = re.findall(r"^--\s+(\d+)\s+(\w+)\s", texts, re.MULTILINE)
    parts = [*LANE_PARTS, "answers", *DEAD_PARTS]
    assert documented == [(str(number), part) for number, part in enumerate(parts, start=1)]


@pytest.mark.parametrize("name", LANE)
def test_no_script_names_a_key_of_its_own(name: str) -> None:
    """A key that is not declared would break a cluster."""
    text = (FOLDER / f"{name}.lua").read_text("utf-8")
    assert "KEYS[" not in text


def test_the_keys_of_a_lane() -> None:
    """One for each part, in order, and the caller's answers last; all in one slot of a cluster."""
    lane = Lane("persistent://public/default/t", 3)
    keys = lane_keys("p", lane, "me")
    assert [key.rpartition(":")[2] for key in keys[:-1]] == list(LANE_PARTS)
    assert keys[-1] == lane.key("p", "answers:me")
    more = lane_keys("p", lane, "me", dead_letters=True)
    assert more[: len(keys)] == keys
    assert [key.rpartition(":")[2] for key in more[len(keys) :]] == list(DEAD_PARTS)
    assert {re.search(r"\{(.*)\}", key)[1] for key in more} == {lane.name}  # type: ignore[index]


@pytest.mark.parametrize(("prefix", "slots"), [("p", 2), (in_buckets("p", 16), 1)])
def test_the_keys_of_the_list_of_lanes(prefix: str, slots: int) -> None:
    """They are those of the registry that it is in, after its own."""
    lane = Lane("persistent://public/default/t", 3)
    keys = lane_keys(prefix, lane, "me")
    registry = RegistryKeys(prefix, lane.bucket(prefix))
    more = lane_keys(prefix, lane, "me", listed=True)
    assert more == [*keys, registry.key("lanes"), registry.key("events")]
    assert len({re.search(r"\{(.*)\}", key)[1] for key in more}) == slots  # type: ignore[index]


def test_a_caller_has_one_call_at_a_time() -> None:
    """A caller that is lent is not lent again until it is back; then it is."""
    callers = Callers()
    with callers.lend(2) as [one, two], callers.lend() as [three]:
        assert len({one.name, two.name, three.name}) == 3
        assert one.token() != one.token()
    with callers.lend(3) as again:
        assert {each.name for each in again} == {one.name, two.name, three.name}


def test_a_caller_comes_back_after_an_error() -> None:
    """Or there would be a key in Redis for every call that failed."""
    callers = Callers()
    with pytest.raises(ValueError, match="x"), callers.lend() as [lent]:
        raise ValueError("x")
    with callers.lend() as [again]:
        assert again is lent


def test_only_two_modules_make_clients_or_run_scripts() -> None:
    """So that another topology of Redis changes nothing else."""
    package = FOLDER.parent.parent
    found = {
        (path.relative_to(package).as_posix(), word)
        for path in package.rglob("*.py")
        for word in ("register_script", "from_pool", "from_url", "evalsha", "script_load")
        if f".{word}(" in path.read_text("utf-8")
        # It starts servers for tests, and knows no lanes.
        and "testing" not in path.parts
    }
    assert found == {
        ("lanes/connections.py", "from_pool"),
        ("lanes/scripts.py", "register_script"),
        ("lanes/scripts.py", "script_load"),
        ("lanes/scripts.py", "evalsha"),
    }


def test_to_read_a_script_imports_nothing() -> None:
    """The thread that owns lanes reads them, while its process may fork others."""
    code = (
        "import sys\nfrom celery_stargate.lanes import scripts\nknown = set(sys.modules)\n"
        "scripts._text('put')\nprint(*set(sys.modules) - known)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "\n"
