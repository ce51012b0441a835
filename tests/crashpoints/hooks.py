"""What wraps a step in a process that is to crash: importing it does, if the environment says so.

A worker imports it by `celery worker -I tests.crashpoints.hooks`. The package itself has no hook.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.crashpoints.steps import STEPS, Step
from tests.faults.ledger import Ledger

__all__ = ["ARMED", "CRASH", "Crash", "install"]

#: The environment variable with a :class:`Crash` as JSON.
CRASH = "STARGATE_CRASH_POINT"
#: The file in the ledger's folder from which on it may strike.
ARMED = "armed"


@dataclass(frozen=True)
class Crash:
    """What is to happen in a process.

    Args:
        step: the name of the step; empty: nothing happens, and each step that is passed is noted.
        when: `before` or `after` it.
        action: `kill`, `exception` or `stall`.
        nth: at which time that the step is taken.
        stall: for how long, in seconds.
        ledger: the folder of the ledger.
        who: the name of this process there.
    """

    step: str
    when: str
    action: str
    nth: int
    stall: float
    ledger: str
    who: str

    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return {CRASH: json.dumps(asdict(self))}


class _Striker:
    """Counts how often the step was taken, and strikes once."""

    def __init__(self, crash: Crash, step: Step, ledger: Ledger) -> None:
        self._crash, self._step, self._ledger = crash, step, ledger
        self._lock = threading.Lock()
        self._count = 0
        self._armed = False

    def __call__(self, when: str) -> None:
        crash = self._crash
        if not crash.step:
            with self._lock:
                self._count += 1
                if self._count == 1:
                    self._ledger.note("passed", step=self._step.name)
            return
        if when != crash.when or not self._is_armed():
            return
        with self._lock:
            self._count += 1
            if self._count != crash.nth:
                return
        self._ledger.note("strike", step=self._step.name, in_flight=0, pid=os.getpid())
        match crash.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stall":
                # In the thread of the step: an event loop stands still with all that it does.
                time.sleep(crash.stall)
            case _:
                raise self._step.error()

    def _is_armed(self) -> bool:
        """Whether the calls have begun: a worker takes some steps while it starts."""
        if not self._armed:
            self._armed = (Path(self._crash.ledger) / ARMED).exists()
        return self._armed


def _wrapped(method: Callable[..., Any], strike: Callable[[str], None]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def later(*args: Any, **options: Any) -> Any:
            strike("before")
            found = await method(*args, **options)
            strike("after")
            return found

        return later

    @functools.wraps(method)
    def now(*args: Any, **options: Any) -> Any:
        strike("before")
        found = method(*args, **options)
        strike("after")
        return found

    return now


def install(crash: Crash) -> None:
    """Wrap the step, or all of them where none is named."""
    ledger = Ledger(Path(crash.ledger), crash.who)
    for step in STEPS:
        if crash.step in ("", step.name):
            owner, name = step.resolve()
            setattr(owner, name, _wrapped(vars(owner)[name], _Striker(crash, step, ledger)))


if CRASH in os.environ:
    install(Crash(**json.loads(os.environ[CRASH])))
