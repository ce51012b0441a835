"""The last release of the package, in an environment of its own.

It is built from the newest tag before the present commit. While nothing is released, it is built
from the last commit that wrote records of version 1.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

from tests.acceptance.rig import Installation
from tests.servers.process import cache_folder

__all__ = ["Release", "last_release", "no_release"]

_ROOT = Path(__file__).parents[2]
#: "Give Pulsar three minutes to start in tests", just before "Store large payloads as bytes".
_BEFORE_VERSION_2 = "da2c9bbbc552816a7c2e070d6ae14e7b3287f549"
_TIMEOUT = 300.0


@dataclass(frozen=True)
class Release:
    """A release, and what it was built from."""

    commit: str
    installation: Installation


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> str | None:
    """The commit of the last release; None if the history that is here does not have it."""
    for tag in (_git("tag", "--merged", "HEAD~", "--sort=-v:refname", "v*") or "").splitlines():
        return _git("rev-parse", f"{tag}^{{commit}}")
    return _git("rev-parse", "--verify", f"{_BEFORE_VERSION_2}^{{commit}}")


def no_release() -> str | None:
    """Why there is no last release here; None if there is one."""
    if _commit() is None:
        return "the history of the repository does not have the last release"
    return None


@functools.cache
def last_release() -> Release:
    """Return the last release; it is installed the first time, with pip.

    Raises:
        AssertionError: it cannot be installed; pip's words are in the text.
    """
    commit = _commit()
    assert commit is not None, no_release()
    folder = cache_folder() / f"release-{commit[:12]}"
    if not folder.is_dir():
        _install(commit, folder)
    return Release(commit, Installation(str(folder / "env" / "bin" / "python"), folder / "here"))


def _install(commit: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        source, made = Path(scratch) / "source", Path(scratch) / "made"
        source.mkdir()
        archive = subprocess.run(
            ["git", "-C", str(_ROOT), "archive", commit], check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
        # Nothing but the package differs.
        constraints = Path(scratch) / "constraints"
        constraints.write_text("".join(f"{each}=={version(each)}\n" for each in _dependencies()))
        _run([sys.executable, "-m", "venv", str(made / "env")])
        _run(
            [
                *(str(made / "env" / "bin" / "python"), "-m", "pip", "install", "--quiet"),
                *("--constraint", str(constraints), str(source)),
            ]
        )
        # The processes of the tests import `tests`, and must not find the package beside it.
        (made / "here").mkdir()
        (made / "here" / "tests").symlink_to(_ROOT / "tests")
        # A folder appears whole or not at all.
        made.rename(folder)


def _dependencies() -> list[str]:
    found = [Requirement(each) for each in requires("celery-stargate") or []]
    return [each.name for each in found if each.marker is None]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    assert done.returncode == 0, f"{command}:\n{(done.stdout + done.stderr)[-2000:]}"
