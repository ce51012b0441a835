"""What the package's own source must not have, read from its syntax."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import celery_stargate
import pytest_celery_stargate

PACKAGES = [
    Path(str(module.__file__)).parent for module in (celery_stargate, pytest_celery_stargate)
]
SOURCES = [path for package in PACKAGES for path in package.rglob("*.py")]
SCRIPTS = [path for package in PACKAGES for path in package.rglob("*.lua")]
#: Modules that make objects, or run code, of bytes.
FORBIDDEN = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle"),
    *("yaml", "ruamel", "xmlrpc", "plistlib", "code", "codeop", "runpy", "imp", "telnetlib"),
}
#: kombu's and Celery's ways to the same.
FORBIDDEN_NAMES = {"pickle_loads", "register_pickle", "enable_insecure_serializers", "subclass_exc"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}


@cache
def trees() -> list[tuple[Path, ast.Module]]:
    """Return each module's syntax."""
    return [(path, ast.parse(path.read_text("utf-8"))) for path in SOURCES]


def imported(tree: ast.Module) -> Iterator[str]:
    """Return the names of all that a module imports, in its functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (each.name for each in node.names)


def called(tree: ast.Module) -> Iterator[str]:
    """Return the plain names of what a module calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_nothing_can_unpickle() -> None:
    """Neither by a module of Python's, nor by one of kombu's."""
    assert len(SOURCES) > 200
    for path, tree in trees():
        names = list(imported(tree))
        assert not {name.partition(".")[0] for name in names} & FORBIDDEN, path
        assert not set(names) & FORBIDDEN_NAMES, path


def test_what_cannot_be_read_is_one_set_of_errors() -> None:
    """Nobody catches a part of it: deep nesting and wrong UTF-8 are no ``DecodeError``."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                assert "'DecodeError'" not in ast.dump(node.type), (path, node.lineno)


def test_nothing_runs_text_as_code() -> None:
    """No eval; and shells of no kind."""
    for path, tree in trees():
        assert not set(called(tree)) & CALLS, path
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{path} starts a shell")


def test_modules_that_are_named_by_text_are_named_here() -> None:
    """``import_module`` gets a literal; the exceptions are names from the user's own settings."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "import_module":
                assert isinstance(node.args[0], ast.Constant), path
            if node.func.id == "symbol_by_name":
                assert path.name == "target.py", path


def test_no_script_is_made_of_text() -> None:
    """The scripts are files; what a caller gives is in KEYS and ARGV, and never in the text."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("eval", "script_load"):
                assert node.attr != "eval", f"{path} runs a script by its text"
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(each.value) for each in node.values if isinstance(each, ast.Constant)
                )
                assert "redis.call" not in text, f"{path} builds a script"
    for path in SCRIPTS:
        text = path.read_text("utf-8")
        assert not re.search(r"\b(loadstring|load|dofile)\s*\(", text), path


def test_no_script_reads_keys_by_pattern() -> None:
    """None looks at the keys of others."""
    for path in SCRIPTS:
        text = path.read_text("utf-8").upper()
        for command in ("KEYS", "SCAN", "FLUSHDB", "FLUSHALL", "CONFIG", "DEBUG", "SORT", "DUMP"):
            assert f"CALL('{command}'" not in text, path


def test_no_hook_of_a_test_stands_in_the_package() -> None:
    """Crash points and the like are wrapped around the code by the tests: the package reads no
    variable of theirs, and knows no name of theirs."""
    words = re.compile(
        r"STARGATE_(SHARED|ACCEPTANCE|CRASH)\w*|crash_?point|(from|import) tests\b",
        re.IGNORECASE,
    )
    allowed = {"testing"}
    for path in SOURCES:
        if allowed & set(path.parts):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            assert not words.search(line), f"{path}:{number}: {line.strip()}"
