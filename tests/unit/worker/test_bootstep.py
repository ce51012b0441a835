"""The bootstep, as far as it goes without a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.utils.imports import symbol_by_name
from celery.worker import components

from celery_stargate import ConfigurationError, Stargate
from celery_stargate.calls.peers import PeersThread
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.outcome import Outcome
from celery_stargate.worker import bootstep
from celery_stargate.worker.bootstep import StargateStep, install
from celery_stargate.worker.started import StartsStep
from tests.threads import no_new_threads
from tests.unit.helpers import failure, make_app, receipt


def worker(**conf: Any) -> Any:
    """Return what the step needs of a worker."""
    app = make_app(**conf)
    Stargate(app)
    return SimpleNamespace(app=app, hostname="unit@here", steps=[], consumer=None)


class Noted:
    """Stand where an Acknowledger does."""

    made: list[Noted]

    def __init__(self, app: Any, **given: Any) -> None:
        self.app = app
        self.given = given
        self.calls: list[Any] = []
        self.running = False
        self.made.append(self)

    def start(self) -> None:
        """Note it."""
        self.running = True
        self.calls.append("start")

    def stop(self, timeout: float | None = None) -> None:
        """Note it."""
        self.running = False
        self.calls.append(("stop", timeout))


class NotedPeers:
    """Stand where PeersThread does."""

    def __init__(self, *given: Any) -> None:
        self.given = given

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread looks for workers of other apps."""
    monkeypatch.setattr(bootstep, "PeersThread", NotedPeers)


@pytest.fixture(autouse=True)
def acknowledgers(monkeypatch: pytest.MonkeyPatch) -> list[Noted]:
    """What was made."""
    Noted.made = []
    monkeypatch.setattr(bootstep, "Acknowledger", Noted)
    return Noted.made


def test_a_worker_is_a_producer_by_default() -> None:
    """Unless the option or the setting says otherwise."""
    assert StargateStep(worker()).enabled
    assert not StargateStep(worker(), without_stargate=True).enabled
    assert not StargateStep(worker(stargate_worker=False)).enabled


def test_it_starts_after_the_pool() -> None:
    """So that nothing of ours is inherited by the pool's children."""
    # A worker that ran in this process has looked the name up already.
    needed: Any = StargateStep.requires
    assert [symbol_by_name(each) for each in needed] == [components.Pool]


def test_start_and_stop(acknowledgers: list[Noted]) -> None:
    """One acknowledger, with the worker's name; stopped, it drains."""
    parent = worker()
    step = StargateStep(parent)
    assert step.info(parent) == {"stargate": {"running": False}}
    step.start(parent)
    [made] = acknowledgers
    assert made.app is parent.app
    assert made.given["hostname"] == "unit@here"
    assert step.info(parent) == {"stargate": {"running": True}}
    step.stop(parent)
    step.stop(parent)
    assert made.calls == ["start", ("stop", None)]


def test_terminate_does_not_drain(acknowledgers: list[Noted]) -> None:
    """It has no time."""
    parent = worker()
    step = StargateStep(parent)
    step.terminate(parent)
    step.start(parent)
    step.terminate(parent)
    assert acknowledgers[0].calls == ["start", ("stop", 0.0)]


def test_a_wrong_configuration_stops_the_worker(acknowledgers: list[Noted]) -> None:
    """At once, with the setting's name."""
    parent = worker(stargate_url=None)
    step = StargateStep(parent)
    with pytest.raises(ConfigurationError, match="stargate_url is not set"):
        step.start(parent)
    with pytest.raises(ConfigurationError, match="no setting stargate_workr"):
        StargateStep(worker(stargate_workr=True))
    assert acknowledgers == []


def test_installed_once() -> None:
    """Twice is once, and another app has its own."""
    app = make_app()
    install(app)
    install(app)
    metrics = "celery_stargate.instrumentation.step:MetricsStep"
    assert set(app.steps["worker"]) == {StargateStep, StartsStep, metrics}
    assert len(app.user_options["worker"]) == 1
    assert not make_app().steps["worker"]


class Consumer:
    """What the step needs of the worker's consumer: it notes what is to be sent."""

    def __init__(self, *, enabled: bool, groups: tuple[str, ...] = ()) -> None:
        self.event_dispatcher = SimpleNamespace(
            enabled=enabled,
            groups=set(groups),
            send=self._send,
            flush=lambda **_: None,
            buffer_limit=24,
            on_send_buffered=None,
        )
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def _send(self, kind: str, **fields: Any) -> None:
        self.sent.append((kind, fields))

    def call_soon(self, call: Any) -> None:
        """Call it, in the consumer's own thread."""
        call()


@pytest.mark.parametrize(
    ("outcome", "kind", "field"),
    [
        (receipt("c"), "task-succeeded", "result"),
        (failure("c", code="http-404"), "task-failed", "exception"),
        (failure("c", code="revoked"), "task-revoked", "terminated"),
    ],
)
def test_an_outcome_is_an_event(
    acknowledgers: list[Noted], outcome: Outcome, kind: str, field: str
) -> None:
    """As of any task, under its id."""
    parent = worker()
    parent.consumer = Consumer(enabled=True)
    step = StargateStep(parent)
    step.start(parent)
    assert acknowledgers[0].given["done_matters"]()
    acknowledgers[0].given["on_done"](Settled(Record("c", task="shop.orders"), (outcome,)))
    [(sent, fields)] = parent.consumer.sent
    assert (sent, fields["uuid"]) == (kind, "c")
    assert field in fields


@pytest.mark.parametrize(
    ("consumer", "task"),
    [
        (None, "t"),
        (Consumer(enabled=False), "t"),
        # Celery's own without `-E`: it is enabled for heartbeats.
        (Consumer(enabled=True, groups=("worker",)), "t"),
        (Consumer(enabled=True), None),
        (Consumer(enabled=True, groups=("worker", "task")), None),
    ],
)
def test_no_event_where_none_is_wanted(
    acknowledgers: list[Noted], consumer: Any, task: str | None
) -> None:
    """No consumer yet, events switched off, or no task at all."""
    parent = worker()
    parent.consumer = consumer
    step = StargateStep(parent)
    step.start(parent)
    matters = acknowledgers[0].given["done_matters"]()
    assert matters is (task is None)
    acknowledgers[0].given["on_done"](Settled(Record("c", task=task), (receipt("c"),)))
    assert consumer is None or consumer.sent == []


def test_a_thread_that_cannot_be_started(
    acknowledgers: list[Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that does not start gives its lanes back all the same."""
    monkeypatch.setattr(bootstep, "PeersThread", PeersThread)
    parent = worker()
    step = StargateStep(parent)
    with no_new_threads("stargate-peers"), pytest.raises(RuntimeError, match="start new thread"):
        step.start(parent)
    step.terminate(parent)
    assert acknowledgers[0].calls == ["start", ("stop", 0.0)]
