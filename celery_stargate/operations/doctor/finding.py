"""A finding, and the checks that make findings of facts."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

__all__ = [
    "Check",
    "Finding",
    "Findings",
    "Level",
    "Problem",
    "error",
    "examine",
    "examine_each",
    "exit_code",
    "note",
    "warning",
    "within",
]

_Facts = TypeVar("_Facts")
_Result = TypeVar("_Result")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"  #: nothing to do
    NOTE = "note"  #: good to know
    WARNING = "warning"  #: it works, and will hurt some day
    ERROR = "error"  #: messages are lost, refused or stuck


class Problem(msgspec.Struct, frozen=True):
    """What a check found, without the check's name."""

    level: Level
    found: str
    why: str
    mend: str


class Finding(msgspec.Struct, frozen=True):
    """One answer of ``doctor``; its fields are the documented JSON form."""

    #: The name of the check.
    check: str
    #: ``ok``, ``note``, ``warning`` or ``error``.
    level: Level
    #: What was found.
    found: str
    #: Why it matters; empty if nothing is wrong.
    why: str = ""
    #: The line that mends it; empty if nothing is wrong.
    mend: str = ""


#: Of a part of the run.
Findings = Generator[Finding, None, None]


@dataclass(frozen=True)
class Check(Generic[_Facts]):
    """One question about facts."""

    #: Its name, such as ``redis-persistence``.
    name: str
    #: What is so if it finds nothing.
    sound: str
    judge: Callable[[_Facts], Iterable[Problem]]


def examine(checks: Sequence[Check[_Facts]], facts: _Facts) -> Iterator[Finding]:
    """Run checks on facts; a check that finds nothing gives one ``ok``."""
    return examine_each(checks, {"": facts})


def examine_each(checks: Sequence[Check[_Facts]], facts: Mapping[str, _Facts]) -> Iterator[Finding]:
    """Run checks on several things; a problem that not all of them have tells whose it is.

    Arguments:
        facts: by the name of each thing.
    """
    for check in checks:
        problems: dict[Problem, list[str]] = {}
        for name, its in facts.items():
            for problem in _judge(check, its):
                problems.setdefault(problem, []).append(name)
        for each, names in problems.items():
            whose = "" if len(names) == len(facts) else f"{', '.join(names)}: "
            yield Finding(check.name, each.level, f"{whose}{each.found}", each.why, each.mend)
        if not problems:
            yield Finding(check.name, Level.OK, check.sound)


def _judge(check: Check[_Facts], facts: _Facts) -> Iterator[Problem]:
    try:
        yield from check.judge(facts)
    except Exception as problem:  # noqa: BLE001  # a server may answer anything
        yield _unexpected(problem)


def within(
    part: str,
    findings: Generator[Finding, None, _Result],
    *,
    about: str = "",
    but: tuple[type[Exception], ...] = (),
) -> Generator[Finding, None, _Result | None]:
    """Yield the findings of a part of the run; an unexpected exception ends this part only.

    Arguments:
        part: its name, which takes the place of a check's.
        findings: made while they are taken.
        about: what it looks at.
        but: what is raised, because the caller has a finding for it.

    Returns:
        What the part returns; None if it failed.
    """
    try:
        return (yield from findings)
    except but:
        raise
    except Exception as problem:  # noqa: BLE001  # a server may answer anything
        each = _unexpected(problem)
        yield Finding(part, each.level, f"{about}{each.found}", each.why, each.mend)
        return None


def _unexpected(problem: Exception) -> Problem:
    """Return what is said of an exception: its class and place, for a message may hold a secret."""
    place = traceback.extract_tb(problem.__traceback__)[-1]
    return error(
        f"the check failed itself: {type(problem).__name__} at {place.filename}:{place.lineno}",
        "nothing is known of what it looks at",
        "report this line as a bug of celery-stargate; run pip install -U celery-stargate before",
    )


def error(found: str, why: str, mend: str) -> Problem:
    """Return a problem by which messages are lost, refused or stuck."""
    return Problem(Level.ERROR, found, why, mend)


def warning(found: str, why: str, mend: str) -> Problem:
    """Return a problem that will hurt some day."""
    return Problem(Level.WARNING, found, why, mend)


def note(found: str, why: str, mend: str) -> Problem:
    """Return something that is good to know."""
    return Problem(Level.NOTE, found, why, mend)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if nothing is wrong, 1 for warnings, 2 for errors."""
    levels = {finding.level for finding in findings}
    if Level.ERROR in levels:
        return 2
    return 1 if Level.WARNING in levels else 0
