"""A calling process: `python -m tests.crashpoints.caller PLAN`, with the plan as JSON.

It calls `delay()` for each message that its ledger does not have as accepted, with the same ids as
the one before it that was killed.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tests.crashpoints.hooks  # noqa: F401  # it wraps the step
from celery_stargate import Stargate, StoreUnavailable
from tests.acceptance.tasks import CONF, make_app
from tests.faults.ledger import Ledger, read_ledger

__all__ = ["CallPlan", "call_all"]

#: How often a call that raises is made again.
_TRIES = 5


@dataclass(frozen=True)
class CallPlan:
    """What is called.

    Args:
        ledger: the folder of the ledger.
        topic: where to.
        name: what the ids begin with.
        count: how many messages.
        callback_every: each message of such a number has callbacks.
        acked, failed: the lists into which the callbacks write.
        timeout: the deadline, in seconds.
        who: the name of the process in the ledger.
    """

    ledger: str
    topic: str
    name: str
    count: int
    callback_every: int
    acked: str
    failed: str
    timeout: float
    who: str

    def command(self) -> list[str]:
        """The command line of a process that does it."""
        return [sys.executable, "-m", "tests.crashpoints.caller", json.dumps(asdict(self))]


def call_all(app: Any, plan: CallPlan, ledger: Ledger) -> None:
    """Call what is not accepted yet, in order; a call that raises is made again."""
    produce, record = app.tasks["celery_stargate.produce"], app.tasks["acceptance.record"]
    accepted = {e["id"] for e in read_ledger(Path(plan.ledger)) if e["event"] == "accepted"}
    for number in range(plan.count):
        task_id = f"{plan.name}-{number}"
        if task_id in accepted:
            continue
        options: dict[str, Any] = {"topic": plan.topic, "delivery_timeout": plan.timeout}
        callback = number % plan.callback_every == 0
        if callback:
            options |= {"on_ack": record.s(plan.acked), "on_error": record.s(plan.failed)}
        ledger.note(
            "attempt", id=task_id, lane=0, number=number, timeout=plan.timeout, callback=callback
        )
        for _ in range(_TRIES):
            try:
                produce.apply_async((task_id,), options, task_id=task_id)
            except StoreUnavailable as error:
                ledger.note("raised", id=task_id, error=type(error).__name__)
            else:
                ledger.note("accepted", id=task_id)
                break


def main() -> None:
    """Run to the end of the plan."""
    plan = CallPlan(**json.loads(sys.argv[1]))
    app = make_app(json.loads(os.environ[CONF]))
    with Ledger(Path(plan.ledger), plan.who) as ledger:
        call_all(app, plan, ledger)
    Stargate.of(app).close()


if __name__ == "__main__":
    main()
