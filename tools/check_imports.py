"""Run import-linter where pyproject.toml has contracts for it: `python -m tools.check_imports`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Return import-linter's exit status; 0 when there is no contract."""
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
    if "importlinter" not in settings["tool"]:
        print("pyproject.toml has no [tool.importlinter]: nothing to check")
        return 0
    command = ["lint-imports", "--no-cache"]
    return subprocess.run(command, check=False, cwd=_ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
