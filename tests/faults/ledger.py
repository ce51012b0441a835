"""The ledger: what was attempted, accepted, told and found, in files outside the system under test.

Each process has a file of its own, with one JSON object a line. Each line is one
`write`: what a process noted before a `kill -9` is there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

__all__ = ["Ledger", "read_ledger"]


class Ledger:
    """The file of one process. A context manager.

    Args:
        folder: of the whole ledger of one run.
        who: the name of the process, which no other has.
    """

    def __init__(self, folder: Path, who: str) -> None:
        self.path = folder / f"{who}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(self.path, flags, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def note(self, event: str, **what: Any) -> None:
        """Write one event, with the wall clock's time where it has none."""
        line = {"event": event, "at": time.time(), **what}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read_ledger(folder: Path) -> Iterator[dict[str, Any]]:
    """Read all files of a ledger, one after the other; a last line that is cut off is left out."""
    for path in sorted(folder.glob("*.jsonl")):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            yield json.loads(line)
