"""Observers: told in batches; one that raises harms nobody, and without one nothing is made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from celery_stargate import observers
from celery_stargate.delivery.telling import Telling
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.dead_letters import DeadLetterRules, Policy
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.observers import MessageDeadLettered, Observer, Settlement
from celery_stargate.support.seldom import Seldom
from tests.unit.helpers import TOPIC
from tests.unit.test_counts import calls_of

LANE = Lane(TOPIC)


class Noted(Observer):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.sent_numbers: list[int] = []
        self.settlements: list[Settlement] = []
        self.dead: list[MessageDeadLettered] = []

    def sent(self, lane: Lane, entries: Sequence[Entry]) -> None:
        self.sent_numbers += [each.number for each in entries]

    def settled(
        self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
    ) -> None:
        self.settlements += settlements

    def dead_lettered(self, dead: Sequence[MessageDeadLettered]) -> None:
        self.dead += dead


class Raising(Observer):
    """Raises whatever it is told."""

    def sent(self, lane: Lane, entries: Sequence[Entry]) -> None:
        raise RuntimeError("of the user")


@pytest.fixture
def noted() -> Iterator[Noted]:
    """An observer, for one test."""
    found = Noted()
    observers.add(found)
    yield found
    observers.remove(found)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No observer, whatever other tests have imported."""
    monkeypatch.setattr(observers, "_observers", ())


def entry(number: int) -> Entry:
    return Entry(number, f"c{number}", b"frame")


def receipt(number: int) -> Receipt:
    return Receipt(context=f"c{number}", topic=TOPIC)


class Clock:
    """A clock that goes on by a second at each look."""

    now = 100.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_tells_when_each_message_was_sent_and_answered(noted: Noted) -> None:
    telling = Telling(LANE, Clock(), 10)
    telling.sent([entry(1), entry(2)])
    assert telling.timed
    telling.answered(1)
    telling.settled([(entry(1), receipt(1)), (entry(2), receipt(2)), (entry(3), receipt(3))])
    assert noted.sent_numbers == [1, 2]
    first, second, third = noted.settlements
    assert (first.sent_at, first.answered_at, first.seconds) == (101.0, 102.0, 1.0)
    assert (second.sent_at, second.seconds) == (101.0, None)
    assert (third.sent_at, third.seconds) == (None, None)
    telling.settled([(entry(1), receipt(1))])
    assert noted.settlements[-1].sent_at is None


def test_tells_which_failed_messages_are_kept(noted: Noted) -> None:
    """Those that the policy drops, and receipts, are not among them."""
    rules = DeadLetterRules(policies={"send-error:8": Policy.DROP})
    telling = Telling(LANE, Clock(), 10, rules=rules)
    failed = [
        Failure(context=f"c{number}", topic=TOPIC, code=code)
        for number, code in enumerate(("http-404", "send-error:8", "revoked", "deadline"), 1)
    ]
    telling.settled([(entry(n), each) for n, each in enumerate(failed, 1)])
    telling.settled([(entry(5), receipt(5))])
    assert [each.outcome for each in noted.dead] == [failed[0], failed[3]]
    assert {(each.topic, each.lane) for each in noted.dead} == {(TOPIC, LANE.name)}


def test_keeps_the_times_of_so_many_messages(noted: Noted) -> None:
    """Messages whose outcome came otherwise leave nothing for ever."""
    telling = Telling(LANE, Clock(), 10)
    for number in range(1, 200):
        telling.sent([entry(number)])
        telling.answered(number)
    assert len(vars(telling)["_sent"]) <= 11
    assert len(vars(telling)["_answered"]) <= 11


@pytest.mark.usefixtures("nobody")
def test_without_an_observer_a_batch_costs_two_calls() -> None:
    """However many messages it has: none of them is looked at."""
    telling = Telling(LANE, Clock(), 10)
    many = [entry(number) for number in range(256)]
    outcomes = [(each, receipt(each.number)) for each in many]
    assert calls_of(lambda: telling.sent(many)) == (2, 0)
    assert calls_of(lambda: telling.settled(outcomes)) == (2, 0)
    assert not telling.timed
    assert not vars(telling)["_sent"]


def test_one_that_raises_harms_nobody(
    noted: Noted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is logged seldom, and another test may have had an observer that raises.
    monkeypatch.setattr(observers, "_log_now", Seldom())
    raising = Raising()
    observers.add(raising)
    try:
        observers.tell(lambda each: each.sent(LANE, [entry(1)]))
        observers.tell(lambda each: each.sent(LANE, [entry(2)]))
    finally:
        observers.remove(raising)
    assert noted.sent_numbers == [1, 2]
    assert [each.message for each in caplog.records] == ["Raising raised an error; messages go on"]


def test_an_observer_is_told_once(noted: Noted) -> None:
    observers.add(noted)
    observers.tell(lambda each: each.sent(LANE, [entry(1)]))
    assert noted.sent_numbers == [1]


def test_tells_what_ended_otherwise_and_only_that(noted: Noted) -> None:
    """A list of which one message has its receipt, and the deadline of the other passed."""
    late = deadline_failure("c", TOPIC, sent=True)
    whole = Settled(Record("c", is_list=True), (receipt(1), late), 1)
    observers.ended(LANE, [whole], DeadLetterRules(), "deadline")
    assert noted.settlements == [Settlement(late)]
    observers.ended(CONTEXTS_LANE, [whole], DeadLetterRules())
    assert len(noted.settlements) == 1
    observers.ended(LANE, [whole], DeadLetterRules())
    assert [each.outcome for each in noted.settlements[1:]] == [receipt(1), late]


def test_without_the_extras_nothing_of_them_is_imported() -> None:
    """An app, its worker's steps and its delivery need no extra, and load no exporter or signal."""
    program = """
import sys
for extra in ("prometheus_client", "opentelemetry", "rich"):
    sys.modules[extra] = None
from celery import Celery
from celery_stargate import Stargate, observers
import celery_stargate.delivery.thread
app = Celery("app", broker="memory://", backend="cache+memory://")
Stargate(app)
worker = app.WorkController(hostname="h", pool_cls="solo")
assert "Stargate" in {step.label for step in worker.blueprint.order}
assert not observers.anybody()
own = ("instrumentation.prometheus", "instrumentation.counting", "signals")
print([name for name in own if "celery_stargate." + name in sys.modules])
"""
    ran: Any = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


@pytest.mark.usefixtures("nobody")
def test_dead_letters_without_an_observer() -> None:
    """Nothing is made for them."""

    class Rules(DeadLetterRules):
        def cause_of(self, failure: Failure) -> str:
            raise AssertionError("nobody wants to know")

    dead = Failure(context="c", topic=TOPIC, reason="no", code="http-404")
    observers.dead_lettered(LANE, [dead], Rules())
