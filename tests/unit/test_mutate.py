"""``tools/mutate.py``: what it makes of a script and of a module, and what it says of the rest."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import replace
from pathlib import Path

from tools import mutate
from tools.mutate import Mutant, find_mutants, lua_mutants, page, python_mutants

FILES = ("registry/heartbeat", "put")

LUA = """\
-- a and b: 1 + 1, if there are any. Only
local a = tonumber(ARGV[1]) -- not 2 of them
if a > 1 and b then redis.call('SET', KEYS[1], 'x + 1') end
for i = 0, a do
  count = count + i
  redis.call('HSET', META, 'a',
    string.format('%d', (a)))
  if not a then break end
end
return { 0, a }
"""

PYTHON = '''\
"""Words: 1 + 1."""

__all__ = ["f"]


def f(a: int, b: bool) -> int:
    """1 < 2."""
    if a < 2 and not b:
        a += 1
        g(a)
        raise ValueError
    return a if b is None else 0
'''


def changes(mutants: list[Mutant]) -> set[tuple[int, str]]:
    """Line, and what became of it."""
    return {(each.line, each.after) for each in mutants}


def test_places_of_a_script() -> None:
    """Operators, numbers, conditions and statements; no comment, no text, no argument's number."""
    mutants = list(lua_mutants("a.lua", LUA))
    assert changes(mutants) == {
        (3, "if a >= 1 and b then redis.call('SET', KEYS[1], 'x + 1') end"),
        (3, "if a > 0 and b then redis.call('SET', KEYS[1], 'x + 1') end"),
        (3, "if a > 1 or b then redis.call('SET', KEYS[1], 'x + 1') end"),
        (3, "if not (a > 1 and b) then redis.call('SET', KEYS[1], 'x + 1') end"),
        (3, "if a > 1 and b then end"),
        (4, "for i = 1, a do"),
        (5, "count = count - i"),
        (5, ""),
        (6, ""),
        (8, "if a then break end"),
        (8, "if not (not a) then break end"),
        (8, "if not a then end"),
        (10, "return { 1, a }"),
    }
    # One place at a time: the rest is as it was.
    for each in mutants:
        assert each.text != LUA
        assert abs(len(each.text) - len(LUA)) < 80
        assert each.before in " ".join(LUA.split())


def test_places_of_a_module() -> None:
    """The same kinds; what is made is Python."""
    mutants = list(python_mutants("a.py", PYTHON))
    assert {after for _, after in changes(mutants)} == {
        "if a <= 2 and (not b):",
        "if a < 2 or not b:",
        "if a < 2 and b:",
        "if a < 3 and (not b):",
        "if not (a < 2 and (not b)):",
        "a -= 1",
        "a += 2",
        "pass",
        "return a if b is not None else 0",
        "return a if not b is None else 0",
        "return a if b is None else 1",
    }
    for each in mutants:
        ast.parse(each.text)
    # `pass` for each of three statements.
    assert [each.before for each in mutants if each.after == "pass"] == [
        "a += 1",
        "g(a)",
        "raise ValueError",
    ]


def test_every_file_has_mutants_and_tests() -> None:
    """All scripts, and the window."""
    paths = {each.path for each in find_mutants()}
    assert "celery_stargate/pulsar/window.py" in paths
    assert "celery_stargate/lanes/lua/put.lua" in paths
    heartbeat, put = (mutate.tests_of(f"celery_stargate/lanes/lua/{each}.lua") for each in FILES)
    assert heartbeat != put
    assert all(mutate.tests_of(path) for path in paths)
    # One only calls what stands in announcement.lua.
    registry = f"{mutate.PACKAGE}/lanes/lua/registry"
    assert {mutate.ROOT / each for each in [*paths, f"{registry}/announce.lua"]} >= set(
        mutate.ROOT.glob(f"{mutate.PACKAGE}/**/*.lua")
    )
    assert all((mutate.ROOT / test).is_file() for tests in mutate.TESTS.values() for test in tests)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """What was found is noted; the same place in another file, or broken otherwise, is not it."""
    notes = tmp_path / "found"
    mutant = Mutant("a.lua", 1, "old", "new", "new text")
    assert mutate.read_notes(None) == mutate.read_notes(notes) == (set(), set())
    mutate.note(None, mutant, survived=False)
    mutate.note(notes, mutant, survived=True)
    assert mutate.read_notes(notes) == (set(), {mutant.digest})
    mutate.note(notes, mutant, survived=False)
    mutate.note(notes, mutant, survived=False)
    assert mutate.read_notes(notes) == ({mutant.digest}, {mutant.digest})
    for other in (replace(mutant, path="b.lua"), replace(mutant, text="newer text")):
        assert other.digest not in mutate.read_notes(notes)[0]


def test_the_page() -> None:
    """Counts, the rate, and what is said of each survivor."""
    mutants = [Mutant("a.lua", line, f"old {line}", f"new {line}", "") for line in range(1, 5)]
    text = page(mutants, mutants[:2], {("a.lua", "old 1", "new 1"): "It is the same."})
    assert "| a.lua | 4 | 2 | 2 | 50.0 % |" in text
    assert "| together | 4 | 2 | 2 | 50.0 % |" in text
    assert "- a.lua, line 1: `old 1`\n  became `new 1`.\n  It is the same.\n" in text
    assert "`new 2`.\n  nobody has said why\n" in text


def test_the_copy_holds_all_packages(tmp_path: Path) -> None:
    """The tests of a mutant run in it, and pytest loads the plugins that the project has."""
    project = tomllib.loads((mutate.ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    plugins = project["project"]["entry-points"]["pytest11"].values()
    copied = mutate.copy_tree(tmp_path)
    assert {each.name for each in copied.iterdir()} >= {*packages, "tests", "pyproject.toml"}
    assert all((copied / each.partition(".")[0]).is_dir() for each in plugins)
