"""The calling processes of a run, as the run sees them, and the count of their calls."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from tests.acceptance.rig import HERE, Installation
from tests.faults.caller import CallerPlan
from tests.servers.process import ServerProcess

__all__ = ["Caller", "Tail"]


class Caller:
    """A calling process that can be killed, and followed by one that goes on.

    Args:
        plan: what it is to do.
        env: more of its environment.
        logs: the folder for its logs.
        installation: where it takes the package from.
    """

    def __init__(
        self, plan: CallerPlan, env: dict[str, str], logs: Path, installation: Installation = HERE
    ) -> None:
        self.plan, self._env, self._logs = plan, env, logs
        self.installation = installation
        self.process = self._process()

    def _process(self) -> ServerProcess:
        log = self._logs / f"{self.plan.who}.log"
        python, folder = self.installation.python, self.installation.folder
        env = {**os.environ, "PYTHONPATH": str(folder), **self._env}
        command = self.plan.command(python)
        return ServerProcess(self.plan.who, command, log_path=log, env=env, cwd=folder)

    def start(self) -> None:
        """Start it, and do not wait."""
        self.process.start(lambda: True, timeout=10)

    def kill_and_follow(self, installation: Installation | None = None) -> bool:
        """Kill it with -9, and start one that goes on behind the call that was made.

        Args:
            installation: where the new one takes the package from; as before by default.

        Returns:
            False if it had ended.
        """
        if not self.process.alive:
            return False
        self.process.kill()
        path = Path(self.plan.ledger) / f"{self.plan.who}.jsonl"
        events = [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]
        made = [
            each["number"]
            for each in events
            if each["event"] == "attempt" and each["lane"] is not None
        ]
        first = made[-1] + 1 if made else self.plan.first
        self.plan = replace(self.plan, first=first, incarnation=self.plan.incarnation + 1)
        self.installation = installation or self.installation
        self.process = self._process()
        self.start()
        return True


class Tail:
    """Counts the calls that returned, by what the ledger has.

    Args:
        folder: of the ledger.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._count = 0

    def accepted(self) -> int:
        """How many there are by now."""
        for path in self._folder.glob("caller-*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(whole) + len(end)
            self._count += whole.count(b'"event":"accepted"')
        return self._count
