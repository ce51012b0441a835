"""Check the subjects of commits: at most 72 characters: `python -m tools.check_commits`.

Looks at all commits after the one where the rule began, where git knows them: a copy without its
history has nothing to check. With a file as argument it checks the message in it: git's hook
`commit-msg` calls it so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
#: The last commit before the rule.
_BASE = "7eb0556"
_LONGEST = 72


def too_long(subjects: Iterable[str]) -> Iterator[str]:
    """Return what is wrong with each subject that is too long."""
    for subject in subjects:
        if len(subject) > _LONGEST:
            yield f"{len(subject)} characters, at most {_LONGEST}: {subject}"


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], check=False, capture_output=True, text=True, cwd=_ROOT
    )


def subjects() -> list[str]:
    """Return the subjects since the base; none where git does not know it."""
    try:
        known = _git("merge-base", "--is-ancestor", _BASE, "HEAD").returncode == 0
    except FileNotFoundError:
        return []
    return _git("log", "--format=%s", f"{_BASE}..HEAD").stdout.splitlines() if known else []


def subject_of(message: str) -> str:
    """Return the subject of a message as the editor leaves it, comments before it skipped."""
    lines = (line for line in message.splitlines() if line.strip() and not line.startswith("#"))
    return next(lines, "")


def main(arguments: list[str]) -> int:
    """Print the subjects that are too long; 1 when there is one."""
    texts = [Path(each).read_text("utf-8") for each in arguments]
    wrong = list(too_long(map(subject_of, texts) if texts else subjects()))
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
