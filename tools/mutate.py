"""Which faults the tests find: `python -m tools.mutate` breaks the code, one place at a time.

Mutants are made of the lanes' scripts and of `window.py`: an operator or a number changed, a
condition turned round, a statement left out. Each is run with the tests that belong to its file, in
a copy of the tree; a mutant that they pass has survived. Writes the figures of docs/mutations.md.
Before that the tests of each file must pass with it, and fail with one that cannot be read.
docs/mutations.toml explains by hand why a survivor is no fault; a survivor without an explanation
makes the command fail. An explanation of a mutant that was found is only printed: where one
millisecond decides, a run may find it and the next one not. It needs a `redis-server`.

With `--found FILE` a run that was stopped goes on: a mutant that the tests have found is noted in
the file, and not run again; nor is one that survived and of which something is said. Begin with a
new file when tests were changed or removed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tools.generated import fingerprints, measured_page, record

ROOT = Path(__file__).resolve().parent.parent
PAGE = "docs/mutations.md"
WORDS = ROOT / "docs" / "mutations.toml"
PACKAGE, PLUGIN = "celery_stargate", "pytest_celery_stargate"

_LUA = f"{PACKAGE}/lanes/lua"
_LANES = "tests/integration/lanes"
_OF_LANES = [
    f"{_LANES}/test_{name}.py"
    for name in ("machine", "states", "full", "leased", "outbox", "controls")
]
_OF_DEAD_LETTERS = [
    f"tests/integration/operations/test_dead_{name}.py" for name in ("steps", "letters")
]
_OF_UNSTARTED = [f"{_LANES}/test_unstarted.py"]
#: The tests of a file, by the folder or the file that it is, the first that fits; those that fail
#: soonest come first.
TESTS = {
    f"{PACKAGE}/pulsar/window.py": ["tests/unit/pulsar/test_window.py"],
    f"{_LUA}/registry/keep.lua": _OF_UNSTARTED,
    f"{_LUA}/registry/overdue.lua": _OF_UNSTARTED,
    f"{_LUA}/registry/heal.lua": [f"{_LANES}/test_registry.py", *_OF_UNSTARTED],
    f"{_LUA}/registry": [f"{_LANES}/test_registry.py"],
    f"{_LUA}/announcement.lua": [*_OF_LANES, f"{_LANES}/test_registry.py"],
    f"{_LUA}/complete.lua": [*_OF_LANES, f"{_LANES}/test_inbox.py"],
    **{
        f"{_LUA}/{name}.lua": [*_OF_LANES, *_OF_DEAD_LETTERS]
        for name in ("dead_letters", "redo", "replay", "restore")
    },
    f"{_LUA}/discard.lua": _OF_DEAD_LETTERS,
    f"{_LUA}/pause.lua": [f"{_LANES}/test_leased.py", f"{_LANES}/test_full.py"],
    f"{_LUA}/revoke.lua": [*_OF_LANES, f"{_LANES}/test_revocations.py"],
    f"{PACKAGE}/lanes": _OF_LANES,
}
#: After the digest of a mutant that survived.
_SURVIVED = " survived"
#: What else is said to pytest. A Redis that is frozen, away, or more than one is no matter of a
#: script's; and no test that needs a Pulsar is run.
_OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=40"]
_LEFT_OUT = (
    *("frozen", "fails_at_once", "threads", "sentinel", "cluster", "paused_topic", "killed"),
    # It looks for the text that a mutant changes.
    "is_missed",
)
_OPTIONS += ["-k", " and ".join(f"not {each}" for each in _LEFT_OUT)]
# Plugins that were imported already: see `main`.
_OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]


@dataclass(frozen=True)
class Mutant:
    """A file with one place broken."""

    path: str
    line: int
    #: The line, and what became of it.
    before: str
    after: str
    #: The whole file.
    text: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What it is known by, wherever its line moves."""
        return self.path, self.before, self.after

    @property
    def digest(self) -> str:
        """What it is known by in the file of those that were found."""
        return hashlib.sha256(f"{self.path}\n{self.text}".encode()).hexdigest()[:16]


# Lua, by its words.

_LUA_WORD = re.compile(
    r"--[^\n]*|'(?:[^'\\]|\\.)*'|(?:ARGV|KEYS)\[\d\]|[A-Za-z_]\w*|\d+|[=~<>]=|\.\.|[-+*/#<>=]"
)
_LUA_OTHERS = {
    "==": "~=",
    "~=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "and": "or",
    "or": "and",
    "not": "",
}
_LUA_CONDITION = re.compile(r"\b(?:if|elseif) (.+?) then\b", re.DOTALL)
_LUA_ARGUMENTS = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
#: A call or an assignment, on lines of its own or alone in a block.
_LUA_STATEMENT = re.compile(
    r"(?:(?<=\n)|(?<=then )|(?<=do )) *(?!for|if|elseif|while|local|return)"
    rf"(?:break|[a-z][\w.]*{_LUA_ARGUMENTS}|[a-z][^\n='(]* = [^\n]*?)(?=\n| end\b)"
)


def lua_mutants(path: str, text: str) -> Iterator[Mutant]:
    """Break a script in each of its places."""
    for found in _LUA_WORD.finditer(text):
        word = found[0]
        other = "0" if word == "1" else str(int(word) + 1) if word.isdigit() else None
        other = _LUA_OTHERS.get(word, other)
        if other is not None:
            yield _replaced(path, text, found.span(), other)
    code = _LUA_WORD.sub(_without_comment, text)
    for found in _LUA_CONDITION.finditer(code):
        yield _replaced(path, text, found.span(1), f"not ({found[1]})")
    for found in _LUA_STATEMENT.finditer(code):
        yield _replaced(path, text, found.span(), "")


def _without_comment(word: re.Match[str]) -> str:
    """Return a word, or as many spaces as a comment has characters."""
    return " " * len(word[0]) if word[0].startswith("--") else word[0]


def _replaced(path: str, text: str, span: tuple[int, int], other: str) -> Mutant:
    start, end = span
    # A statement may begin with the white space before it.
    visible = end - len(text[start:end].lstrip())
    first, last = text.rfind("\n", 0, visible) + 1, text.find("\n", end)
    broken = text[:start] + other + text[end:]
    before, after = text[first:last], broken[first : last + len(broken) - len(text)]
    line = text.count("\n", 0, visible) + 1
    return Mutant(path, line, " ".join(before.split()), " ".join(after.split()), broken)


# Python, by its syntax.

_PYTHON_OTHERS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def python_mutants(path: str, text: str) -> Iterator[Mutant]:
    """Break a module in each of its places."""
    tree = ast.parse(text)
    whole = ast.unparse(tree).splitlines()
    for index, node in enumerate(ast.walk(tree)):
        for broken in _broken(node):
            changed = copy.deepcopy(tree)
            place = next(each for i, each in enumerate(ast.walk(changed)) if i == index)
            _put(changed, place, broken)
            lines = ast.unparse(ast.fix_missing_locations(changed)).splitlines()
            pairs = zip(whole, lines, strict=False)
            before, after = next(pair for pair in pairs if pair[0] != pair[1])
            line = getattr(node, "lineno", 0)
            yield Mutant(path, line, before.strip(), after.strip(), "\n".join(lines) + "\n")


def _broken(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of a node."""
    match node:
        case ast.cmpop() | ast.operator() | ast.boolop():
            if type(node) in _PYTHON_OTHERS:
                yield _PYTHON_OTHERS[type(node)]()
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() as number):
            yield ast.Constant(number + 1)
        case ast.If() | ast.IfExp():
            turned = copy.deepcopy(node)
            turned.test = ast.UnaryOp(ast.Not(), turned.test)
            yield turned
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            pass
        case ast.Assign() | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()


def _put(tree: ast.AST, place: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is place:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if each is place else each for each in value]


# The run.


def find_mutants() -> list[Mutant]:
    """Return all of them, each once."""
    scripts = sorted((ROOT / PACKAGE / "lanes").rglob("*.lua"))
    found: dict[tuple[str, str], Mutant] = {}
    for file in [*scripts, ROOT / PACKAGE / "pulsar" / "window.py"]:
        path, text = file.relative_to(ROOT).as_posix(), file.read_text("utf-8")
        make = lua_mutants if file.suffix == ".lua" else python_mutants
        found.update({(path, each.text): each for each in make(path, text)})
    return list(found.values())


def tests_of(path: str) -> list[str]:
    """Return the tests that belong to a file."""
    return next(tests for place, tests in TESTS.items() if path.startswith(place))


def copy_tree(folder: Path) -> Path:
    """Copy what the tests need into a folder."""
    for name in (PACKAGE, PLUGIN, "tests"):
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_all(mutants: Iterable[Mutant], folders: list[Path]) -> Iterator[tuple[Mutant, bool]]:
    """Run the tests of mutants, in each folder one at a time; yield whether each survived."""
    waiting, running = list(mutants)[::-1], dict[int, tuple[Mutant, Path, str]]()
    free = list(folders)
    while waiting or running:
        while waiting and free:
            mutant, folder = waiting.pop(), free.pop()
            original = (folder / mutant.path).read_text("utf-8")
            (folder / mutant.path).write_text(mutant.text, "utf-8")
            # What tests import and is not ours has been imported already: see main().
            child = os.fork()
            if child == 0:
                _run_tests(folder, tests_of(mutant.path))
            running[child] = mutant, folder, original
        child, status = os.wait()
        mutant, folder, original = running.pop(child)
        (folder / mutant.path).write_text(original, "utf-8")
        free.append(folder)
        yield mutant, status == 0


def _run_tests(folder: Path, tests: list[str]) -> None:
    """In a process of its own: run tests in a copy of the tree, and end."""
    code = 1
    try:
        os.chdir(folder)
        with Path("log").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.path[:] = [str(folder), *(each for each in sys.path if Path(each) != ROOT)]
        for name in [name for name in os.environ if name.startswith(("STARGATE_", "PYTEST_"))]:
            del os.environ[name]
        os.environ["STARGATE_TEST_MACHINE"] = "quick x0.3"
        os.environ["PYTHONPATH"] = str(folder)
        sys.dont_write_bytecode = True
        code = int(pytest.main([*_OPTIONS, *tests]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def read_notes(notes: Path | None) -> tuple[set[str], set[str]]:
    """Return the digests of the mutants that earlier runs found, and of those that survived."""
    lines = notes.read_text("utf-8").splitlines() if notes and notes.is_file() else []
    survived = {line.removesuffix(_SURVIVED) for line in lines if line.endswith(_SURVIVED)}
    return {line for line in lines if not line.endswith(_SURVIVED)}, survived


def note(notes: Path | None, mutant: Mutant, *, survived: bool) -> None:
    """Note what became of a mutant, for a run that goes on after this one."""
    if notes is not None:
        with notes.open("a", encoding="utf-8") as file:
            file.write(f"{mutant.digest}{_SURVIVED if survived else ''}\n")


def read_words() -> dict[tuple[str, str, str], str]:
    """Return what is said of survivors, by their names."""
    rows = tomllib.loads(WORDS.read_text("utf-8"))["survivors"] if WORDS.is_file() else []
    return {(row["file"], *change): row["why"] for row in rows for change in row["changes"]}


def page(
    mutants: list[Mutant], survivors: list[Mutant], words: dict[tuple[str, str, str], str]
) -> str:
    """Return what docs/mutations.md shows."""
    made = Counter(each.path for each in mutants)
    lived = Counter(each.path for each in survivors)
    lines = ["| File | Mutants | Found | Survived | Rate |", "|---|---|---|---|---|"]
    for name, count, left in [
        *((path, made[path], lived[path]) for path in sorted(made)),
        ("together", made.total(), lived.total()),
    ]:
        rate = f"{100 * (count - left) / count:.1f} %"
        lines.append(f"| {name} | {count} | {count - left} | {left} | {rate} |")
    lines += ["", "**What survived.**", ""]
    for each in survivors:
        why = words.get(each.name, "nobody has said why")
        lines += [f"- {each.path}, line {each.line}: `{each.before}`", f"  became `{each.after}`."]
        lines += [f"  {why}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all mutants, write the page; 1 when something is to be looked at."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__)
    parser.add_argument("--only", default="", help="files whose path holds this; writes no page")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--found", type=Path, help="notes what is found; a stopped run goes on")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    options = parser.parse_args()
    sources = fingerprints(measured_page(PAGE))
    mutants = [each for each in find_mutants() if options.only in each.path]
    if options.list:
        for each in mutants:
            print(f"{each.path}:{each.line}: {each.before}  ->  {each.after}")
        return 0
    # Half of a run's time goes into these: imported here, once.
    import celery.contrib.testing.app
    import hypothesis.stateful
    import redis.asyncio

    del celery, hypothesis, redis
    began, words = time.monotonic(), read_words()
    with tempfile.TemporaryDirectory() as folder:
        folders = [copy_tree(Path(folder) / str(number)) for number in range(options.jobs)]
        unbroken = [
            Mutant(path, 0, "", "", (ROOT / path).read_text("utf-8"))
            for path in sorted({each.path for each in mutants})
        ]
        for each, passed in run_all({tests_of(e.path)[0]: e for e in unbroken}.values(), folders):
            if not passed:
                print(f"the tests of {each.path} fail with nothing broken")
                for log in Path(folder).glob("*/log"):
                    print(log.read_text("utf-8", "replace")[-4000:])
                return 1
        broken = [replace(each, text="!") for each in unbroken]
        unread = [each.path for each, passed in run_all(broken, folders) if passed]
        if unread:
            print("tests pass with a file that cannot be read:", *unread)
            return 1
        found, left = read_notes(options.found)
        survivors = [each for each in mutants if each.digest in left - found and each.name in words]
        done = {*found, *(each.digest for each in survivors)}
        waiting = [each for each in mutants if each.digest not in done]
        for count, (each, survived) in enumerate(run_all(waiting, folders), start=1):
            note(options.found, each, survived=survived)
            if survived:
                survivors.append(each)
                print(f"{each.path}:{each.line}: {each.before}  ->  {each.after}", flush=True)
            if count % 50 == 0:
                print(f"{count} of {len(waiting)}, {time.monotonic() - began:.0f} s", flush=True)
    survivors.sort(key=lambda each: (each.path, each.line))
    known = {each.name for each in survivors}
    unsaid = [each for each in survivors if each.name not in words]
    stale = [name for name in words if name not in known and options.only in name[0]]
    if not options.only:
        record(PAGE, page(mutants, survivors, words), sources)
    print(f"{len(mutants)} mutants, {len(survivors)} survived, {len(unsaid)} of them unsaid")
    for name in stale:
        print("found, though something is said of it:", *name)
    return 1 if unsaid else 0


if __name__ == "__main__":
    sys.exit(main())
