"""A calling process: `python -m tests.faults.caller PLAN`, with the plan as JSON.

It calls `delay()` for one message after the other, each into one of its lanes, and notes before and
after each call. A call that raises `StoreUnavailable` is made again with the same id until it
returns. Meanwhile a second thread calls `stargate.produce`, which waits, now and then.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from celery_stargate import LaneFull, ProduceError, Stargate, StoreUnavailable
from celery_stargate.lanes.lane import spread
from tests.acceptance.tasks import CONF, make_app
from tests.faults.ledger import Ledger

__all__ = ["Allowance", "CallerPlan", "keys_of_lanes"]

#: Seconds between two tries of one call.
_PAUSE = 0.2


def keys_of_lanes(lanes: int) -> list[str]:
    """Return a key for each lane."""
    keys: dict[int, str] = {}
    numbers = itertools.count()
    while len(keys) < lanes:
        text = str(next(numbers))
        keys.setdefault(spread(text, lanes), text)
    return [keys[lane] for lane in range(lanes)]


class Allowance:
    """How many calls each caller may make by now: a number in a file that processes share."""

    def __init__(self, folder: Path) -> None:
        path = folder / "allowance"
        with path.open("a+b") as file:
            file.truncate(8)
            self._map = mmap.mmap(file.fileno(), 8)

    @property
    def count(self) -> int:
        """The number."""
        return int.from_bytes(self._map[:8], "little")

    @count.setter
    def count(self, count: int) -> None:
        self._map[:8] = count.to_bytes(8, "little")


@dataclass(frozen=True)
class CallerPlan:
    """What a caller is to do.

    Args:
        name: of this caller; its messages' ids begin with it.
        ledger: the folder of the ledger.
        topic: where to.
        lanes, mine: how many lanes the topic has, and which of them are this caller's.
        first, last: the numbers of its messages, the last one not included.
        callback_every: each message of such a number has callbacks; 0: none has.
        acked, failed: the lists into which the callbacks write.
        timeout: the deadline, in seconds.
        wait_every, wait_timeout: seconds between calls that wait, 0 for none; and their deadline.
        incarnation: how many callers of that name there were before.
        sizes: bytes of the payloads, in turn; at least those of the id.
    """

    name: str
    ledger: str
    topic: str
    lanes: int
    mine: tuple[int, ...]
    first: int
    last: int
    callback_every: int
    acked: str
    failed: str
    timeout: float
    wait_every: float
    wait_timeout: float
    incarnation: int = 0
    sizes: tuple[int, ...] = (0,)

    def command(self, python: str) -> list[str]:
        """The command line of the process, for an interpreter."""
        return [python, "-m", "tests.faults.caller", json.dumps(asdict(self))]

    @property
    def who(self) -> str:
        """The name of its file in the ledger."""
        return f"caller-{self.name}-{self.incarnation}"


class _Caller:
    def __init__(self, plan: CallerPlan, ledger: Ledger) -> None:
        self._plan, self._ledger = plan, ledger
        self._app = make_app(json.loads(os.environ[CONF]))
        self._stargate = Stargate.of(self._app)
        self._produce: Any = self._app.tasks["celery_stargate.produce"]
        record: Any = self._app.tasks["acceptance.record"]
        # A worker of Celery's ends if it cannot store a result.
        self._acked, self._failed = (
            record.s(key).set(ignore_result=True) for key in (plan.acked, plan.failed)
        )
        self._keys = keys_of_lanes(plan.lanes)
        self._over = threading.Event()

    def run(self) -> None:
        plan = self._plan
        waiter = threading.Thread(target=self._wait_now_and_then, daemon=True)
        if plan.wait_every:
            waiter.start()
        allowance = Allowance(Path(plan.ledger))
        for number in range(plan.first, plan.last):
            while number >= allowance.count:
                time.sleep(0.005)
            self._call(number)
        self._over.set()
        if plan.wait_every:
            waiter.join()
        self._stargate.close()

    def _call(self, number: int) -> None:
        plan = self._plan
        lane = plan.mine[number % len(plan.mine)]
        task_id = f"{plan.name}-{number}"
        options: dict[str, Any] = {"topic": plan.topic, "delivery_timeout": plan.timeout}
        callback = bool(plan.callback_every) and number % plan.callback_every == 0
        if callback:
            options |= {
                "on_ack": self._acked,
                "on_error": self._failed,
            }
        self._ledger.note(
            "attempt", id=task_id, lane=lane, number=number, timeout=plan.timeout, callback=callback
        )
        size = plan.sizes[number // len(plan.mine) % len(plan.sizes)]
        message = self._keys[lane], task_id.ljust(size)
        while True:
            try:
                self._produce.apply_async((message,), options, task_id=task_id)
            except (StoreUnavailable, LaneFull) as error:
                self._ledger.note("raised", id=task_id, error=type(error).__name__)
                time.sleep(_PAUSE)
            else:
                self._ledger.note("accepted", id=task_id)
                return

    def _wait_now_and_then(self) -> None:
        plan, number = self._plan, 0
        while not self._over.wait(plan.wait_every):
            id_ = f"{plan.name}-wait-{plan.incarnation}-{number}"
            number += 1
            self._ledger.note(
                "attempt", id=id_, lane=None, number=0, timeout=plan.wait_timeout, callback=False
            )
            began, error = time.monotonic(), None
            status: str | None = None
            try:
                receipt = self._stargate.produce(
                    (self._keys[0], id_), topic=plan.topic, timeout=plan.wait_timeout, context=id_
                )
                status = receipt.status
            except ProduceError as raised:
                status = raised.status
            except (StoreUnavailable, LaneFull) as raised:
                error = type(raised).__name__
            took = time.monotonic() - began
            self._ledger.note(
                "wait", id=id_, took=took, timeout=plan.wait_timeout, status=status, error=error
            )


def main() -> None:
    """Run to the end of the plan."""
    given = json.loads(sys.argv[1])
    plan = CallerPlan(**given)
    with Ledger(Path(plan.ledger), plan.who) as ledger:
        _Caller(plan, ledger).run()


if __name__ == "__main__":
    main()
