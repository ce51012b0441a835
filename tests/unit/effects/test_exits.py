"""`sys.exit()` and its like in users' code: the task ends, and nothing else is harmed."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from celery import Celery, signals
from celery.exceptions import Reject
from msgspec.structs import replace

from celery_stargate import Failure, Stargate, observers
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.outcome import Outcome
from celery_stargate.support.daemon import DaemonThread
from celery_stargate.support.exits import CodeExited, as_error
from tests.unit.helpers import failure, make_app, receipt

EXITS = [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]


@pytest.fixture
def app() -> Celery:
    return make_app()


@pytest.fixture
def thread() -> Iterator[DaemonThread]:
    """As in which effects are done."""
    made = DaemonThread("effects")
    yield made
    made.shutdown(wait=True)


def leave(error: BaseException) -> Any:
    def hook(*args: Any, **kwargs: Any) -> None:
        raise error

    return hook


def settled(name: str, task: str, outcome: Outcome | None = None, **fields: Any) -> Settled:
    given = receipt(name) if outcome is None else outcome
    return Settled(Record(name, task=task, request=f'{{"id": "{name}"}}', **fields), (given,))


def run(app: Celery, thread: DaemonThread, *given: Settled) -> list[str]:
    """Do the effects, and return the states of the tasks."""
    done = thread.submit(Effects(app, None).run, given).result(timeout=20)
    assert done == [each.record.context for each in given]
    return [app.AsyncResult(each.record.context).state for each in given]


@pytest.mark.parametrize("error", EXITS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(
    ("hook", "outcome", "state"),
    [
        ("before_start", None, "FAILURE"),
        ("on_success", None, "SUCCESS"),
        ("after_return", None, "SUCCESS"),
        ("before_start", failure("a"), "FAILURE"),
        ("on_failure", failure("a"), "FAILURE"),
        ("after_return", failure("a"), "FAILURE"),
    ],
)
def test_in_a_hook(
    app: Celery,
    thread: DaemonThread,
    hook: str,
    outcome: Outcome | None,
    state: str,
    error: BaseException,
) -> None:
    """What was stored before it stays; else the task fails. The next task is not harmed."""
    name = uuid.uuid4().hex
    if isinstance(outcome, Failure):
        outcome = replace(outcome, context=name)
    stargate: Any = Stargate(app)
    task = stargate.task("shop.leaves", **{hook: leave(error)})
    good = stargate.task("shop.good")
    found = run(app, thread, settled(name, task.name, outcome), settled(f"{name}b", good.name))
    assert found == [state, "SUCCESS"]


@pytest.mark.parametrize("requeue", [False, True])
def test_a_rejection_ends_the_task(app: Celery, thread: DaemonThread, requeue: bool) -> None:
    """As Celery's worker ends one that never comes again; its result would be waited for."""
    stargate: Any = Stargate(app)
    task = stargate.task("shop.rejects", before_start=leave(Reject("no", requeue=requeue)))
    name = uuid.uuid4().hex
    assert run(app, thread, settled(name, task.name)) == ["FAILURE"]
    assert isinstance(app.AsyncResult(name).result, Reject)


@pytest.mark.parametrize(
    "name", ["task_prerun", "task_success", "task_postrun", "before_task_publish"]
)
def test_in_a_receiver_of_a_signal(app: Celery, thread: DaemonThread, name: str) -> None:
    """Also where the next step is published. Each task ends all the same."""
    task = Stargate(app).task("shop.good")
    a, b = uuid.uuid4().hex, uuid.uuid4().hex
    on_ack = freeze_callback("on_ack", app.signature("shop.paid"), app)
    signal = getattr(signals, name)
    receiver = leave(SystemExit(3))
    signal.connect(receiver, weak=False)
    try:
        found = run(app, thread, settled(a, task.name, on_ack=on_ack), settled(b, task.name))
    finally:
        signal.disconnect(receiver)
    assert set(found) <= {"SUCCESS", "FAILURE"}


def test_in_an_observer(thread: DaemonThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a receiver of our own signals, in the event loop."""
    # It is logged seldom, and other tests look for that.
    monkeypatch.setattr(observers, "_log_now", lambda: False)

    class Leaves(observers.Observer):
        def recorded(self, calls: Any) -> None:
            raise SystemExit(3)

    observer = Leaves()
    observers.add(observer)
    try:
        thread.submit(observers.tell, lambda each: each.recorded([])).result(timeout=20)
    finally:
        observers.remove(observer)


def test_a_waiting_event_loop_goes_on(thread: DaemonThread) -> None:
    future: Future[None] = thread.submit(leave(SystemExit(3)))
    with pytest.raises(CodeExited, match="SystemExit was raised: 3"):
        future.result(timeout=20)


def test_the_main_thread_may_end() -> None:
    """There a signal handler ends the program."""
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(SystemExit):
        as_error(SystemExit(3))
    error = ValueError("x")
    assert as_error(error) is error
