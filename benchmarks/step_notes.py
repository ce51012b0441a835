"""Note when the steps of a call happen, by a clock that all processes of a machine share."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from celery_stargate.delivery.watcher import Watcher
from celery_stargate.lanes.inbox import Inboxes
from celery_stargate.lanes.scripts import AsyncScripts, Scripts
from celery_stargate.pulsar import socket

__all__ = ["WRITE_EVERY", "Note", "Notes", "read_notes"]

#: Seconds between two writes; until then notes are kept in memory.
WRITE_EVERY = 0.1

#: When, in seconds, and what.
Note = tuple[float, str]


class Notes:
    """The notes of this process.

    Arguments:
        path: the file that gets them; None to keep them.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.kept: list[Note] = []
        if path is not None:
            self._path = path
            threading.Thread(target=self._write, name="notes", daemon=True).start()

    def note(self, what: str) -> None:
        """Note that something happens now."""
        self.kept.append((time.monotonic(), what))

    def of_caller(self) -> None:
        """Note the steps of a caller, from now on."""
        self._around(Scripts, "run", before=lambda _, name, *__: f"{name} is asked for")
        self._around(Inboxes, "subscribe", after="the caller is told")

    def of_owner(self) -> None:
        """Note the steps of an owner, from now on."""
        self._around(Watcher, "_release", before=lambda *_: "the owner is woken")
        connection: Any = socket._Connection  # noqa: SLF001  # there is no other place to look
        self._around(connection, "data_received", before=lambda *_: "Pulsar answers")
        self._around_async(connection, "send_all", after=lambda *_: "the frame is written")
        self._around_async(
            AsyncScripts,
            "run",
            before=lambda _, name, *__: f"{name} is asked for",
            after=lambda _, name, *__: f"{name} is answered",
        )

    def _around(
        self, owner: Any, name: str, before: Callable[..., str] | None = None, after: str = ""
    ) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def around(*args: Any, **options: Any) -> Any:
            if before is not None:
                self.note(before(*args))
            found = real(*args, **options)
            if after:
                self.note(after)
            return found

        setattr(owner, name, around)

    def _around_async(
        self,
        owner: Any,
        name: str,
        before: Callable[..., str] | None = None,
        after: Callable[..., str] | None = None,
    ) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        async def around(*args: Any, **options: Any) -> Any:
            if before is not None:
                self.note(before(*args))
            found = await real(*args, **options)
            if after is not None:
                self.note(after(*args))
            return found

        setattr(owner, name, around)

    def _write(self) -> None:
        with self._path.open("ab") as file:
            while True:
                time.sleep(WRITE_EVERY)
                some, self.kept = self.kept, []
                for each in some:
                    file.write(msgspec.json.encode(each) + b"\n")
                file.flush()


def read_notes(path: Path) -> list[Note]:
    """Return what another process has written."""
    decode = msgspec.json.Decoder(tuple[float, str]).decode
    # Its last line may be half written.
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [decode(line) for line in whole.splitlines()]
