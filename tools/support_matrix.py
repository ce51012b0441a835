"""The support matrix: what tox.ini tests, as a table of a page."""

from __future__ import annotations

import configparser
import itertools
import re
from pathlib import Path

__all__ = ["environments", "pairs", "render_support"]

ROOT = Path(__file__).resolve().parent.parent
_ENVIRONMENTS = re.compile(r"^py\{([\d, ]+)\}-celery\{([\d, ]+)\}$", re.MULTILINE)
_VERSION = re.compile(r'^TESTED = "([\d.]+)"$', re.MULTILINE)
#: What each column shows, by the names of its pins in tox.ini.
_PINNED = ("kombu", "redis", "websockets")


def _tox() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read(ROOT / "tox.ini", encoding="utf-8")
    return found


def _dotted(number: str) -> str:
    return f"{number[0]}.{number[1:]}"


def pairs() -> tuple[list[str], list[str]]:
    """Return the versions of Python and of Celery that are tested, each with each."""
    found = _ENVIRONMENTS.search(_tox()["tox"]["env_list"])
    assert found is not None, "env_list of tox.ini has no pairs of Python and Celery"
    pythons, celeries = (re.findall(r"\d+", each) for each in found.groups())
    return [*map(_dotted, pythons)], [*map(_dotted, celeries)]


def environments() -> tuple[str, ...]:
    """Return the environments of tox.ini for all pairs of Python and Celery."""
    pythons, celeries = pairs()
    return tuple(
        f"py{python}-celery{celery}".replace(".", "")
        for python, celery in itertools.product(pythons, celeries)
    )


def _pin(celery: str, package: str) -> str:
    """Return what tox.ini pins beside a version of Celery; "newest" if nothing."""
    factor = "celery" + celery.replace(".", "")
    for line in _tox()["testenv"]["deps"].splitlines():
        factors, _, requirement = line.strip().partition(": ")
        if factors == factor and re.match(rf"{package}\W", requirement):
            lowest = re.search(r"(?:==|>=)([\d.]+)", requirement)
            return lowest[1].rstrip(".") if lowest else requirement
    return "newest"


def render_support() -> str:
    """Return the tables."""
    pythons, celeries = pairs()
    server = _VERSION.search((ROOT / "tests" / "servers" / "pulsar.py").read_text("utf-8"))
    assert server is not None, "tests/servers/pulsar.py has no TESTED"
    head = ["| | " + " | ".join(f"Celery {each}" for each in celeries) + " |"]
    head.append("|---" * (len(celeries) + 1) + "|")
    rows = [
        f"| Python {each} | " + " | ".join("tested" for _ in celeries) + " |" for each in pythons
    ]
    for package in _PINNED:
        name = {"redis": "redis-py"}.get(package, package)
        rows.append(
            f"| with {name} | " + " | ".join(_pin(each, package) for each in celeries) + " |"
        )
    count = len(list(itertools.product(pythons, celeries)))
    text = (
        f"Each of the {count} pairs runs the unit and smoke tests. Every other test runs on the "
        "Python that\nruns `make test`, with the newest Celery, on Pulsar "
        f"{server[1]}."
    )
    return "\n".join([text, "", *head, *rows])
