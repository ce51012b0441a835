"""Many contexts of one call: checked, gathered, waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from celery import group

from celery_stargate import InvalidMessage
from celery_stargate.calls.inbox import Ticket
from celery_stargate.calls.many import (
    Gathering,
    GatheringInbox,
    callbacks_of_each,
    prepare_many,
    wait_for,
)
from celery_stargate.effects.signatures import Callbacks
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.model.topic import Topic
from tests.unit.helpers import TOPIC, failure, make_app, receipt

PARSED = Topic.parse(TOPIC)
OPTIONS = ProducerOptions()


class Clock:
    """A clock that moves when a future is waited for."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Waited(Future[Any]):
    """A future whose waits take the clock's time, and nobody else's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._clock.now += timeout or 0.0
        return super().result(0)


def gathering(clock: Clock, *contexts: str) -> Gathering:
    """Return a wait for contexts by a clock."""
    return Gathering(Ticket("inbox/1", Waited(clock)), contexts)


def wait(found: Gathering, clock: Clock, settle: Callable[[], None] = lambda: None) -> list[float]:
    """Wait for ten seconds, and return when it was looked for owners."""
    looks: list[float] = []
    wait_for(
        found,
        10.0,
        look_every=4.0,
        look=lambda: looks.append(clock.now),
        settle=settle,
        monotonic=clock,
    )
    return looks


def test_each_message_is_a_call_with_an_id_of_its_own() -> None:
    """As prepare makes them."""
    calls = prepare_many(iter(["a", ("k", "b")]), PARSED, OPTIONS)
    assert [call.is_list for call in calls] == [False, False]
    assert len({call.context for call in calls}) == 2
    assert [call.parts[0].label for call in calls] == [call.context for call in calls]


def test_what_an_iterable_raises_comes_through() -> None:
    """It is the caller's own."""

    def broken() -> Any:
        yield "a"
        raise LookupError

    with pytest.raises(LookupError):
        prepare_many(broken(), PARSED, OPTIONS)


@pytest.mark.parametrize("one", ["a", b"a", bytearray(b"a"), {"payload": "a"}, None])
def test_one_message_is_not_many(one: object) -> None:
    """A text is an iterable of letters, and surely not meant so."""
    with pytest.raises(InvalidMessage, match="takes an iterable of messages"):
        prepare_many(one, PARSED, OPTIONS)


def test_outcomes_come_in_any_order() -> None:
    """And stand in that of the contexts; what comes twice, or is of another wait, counts not."""
    clock = Clock()
    found = gathering(clock, "a", "b")
    found.take(receipt("b", entry_id=2))
    found.take(receipt("b", entry_id=3))
    found.take(receipt("another"))
    assert not found.ticket.future.done()
    found.take(receipt("a", entry_id=1))
    assert found.ticket.future.done()
    assert wait(found, clock) == []
    settled = found.settled(TOPIC)
    assert [each["entry_id"] for each in settled.result] == [1, 2]
    assert not settled.failed


def test_the_failure_is_that_of_the_first_of_which_nobody_knows() -> None:
    """As of a list; of a message without a word nobody can know."""
    found = gathering(Clock(), "a", "b", "c")
    found.take(failure("a", reason="refused"))
    found.take(receipt("c"))
    settled = found.settled(TOPIC)
    assert settled.failure.context == "b"
    assert (settled.failure.status, settled.failure.code) == ("unknown", "deadline")
    assert [type(each).__name__ for each in settled.outcomes] == ["Failure", "Failure", "Receipt"]


def test_while_it_waits_it_looks_for_an_owner() -> None:
    """The worker that was alive may have died since; past the deadline it settles by itself."""
    clock = Clock()
    found = gathering(clock, "a")
    settled: list[float] = []

    def settle() -> None:
        settled.append(clock.now)
        if len(settled) == 3:
            found.take(failure("a", code="deadline"))

    assert wait(found, clock, settle) == [104.0, 108.0, 110.0]
    assert settled[0] == 110.0
    assert clock.now < 111


def test_nobody_waits_for_ever() -> None:
    """Where nothing more comes, the last word is that nobody knows; each sign of life counts."""
    clock = Clock()
    found = gathering(clock, "a", "b")
    given = False

    def settle() -> None:
        nonlocal given
        if clock.now > 114 and not given:
            given = True
            found.take(failure("a", code="deadline"))

    wait(found, clock, settle)
    assert given
    assert 119 < clock.now < 120
    assert found.missing == 1


class Silent:
    """Stand where lanes do: nothing comes by Redis."""

    def subscribe(self, inbox: str, after: str, timeout: float) -> list[tuple[str, str, bytes]]:
        threading.Event().wait(0.01)
        return []


@pytest.fixture
def inbox() -> Iterator[GatheringInbox]:
    """An inbox whose thread has ended when the test has."""
    made = GatheringInbox(Silent())
    yield made
    for thread in threading.enumerate():
        if thread.name == "stargate-inbox":
            thread.join(10)
            assert not thread.is_alive()


def settled(context: str) -> CallOutcomes:
    """Return the receipt of a call."""
    return CallOutcomes(context, is_list=False, outcomes=(receipt(context),))


def test_one_ticket_for_many(inbox: GatheringInbox) -> None:
    """All outcomes come to one address; it is forgotten with the last, not with the first."""
    found = inbox.gather(["a", "b"])
    address = found.ticket.address
    inbox.deliver(address, settled("a"))
    assert found.missing == 1
    inbox.deliver(address, settled("b"))
    assert found.ticket.future.done()
    inbox.forget(found.ticket)
    inbox.deliver(address, settled("a"))
    assert not inbox._gatherings  # noqa: SLF001


def test_who_waits_for_one_is_told_too(inbox: GatheringInbox) -> None:
    """Beside those who wait for many."""
    many, one = inbox.gather(["a", "b"]), inbox.expect()
    inbox.deliver(one.address, settled("c"))
    assert one.future.result(5).context == "c"
    assert many.missing == 2
    inbox.forget(many.ticket)


def test_a_plain_callback_is_frozen_once() -> None:
    """Its task's id is made when it is triggered; in a group the ids are frozen with it."""
    frozen: list[Callbacks] = []

    def freeze() -> Callbacks:
        frozen.append(Callbacks(on_ack=str(len(frozen))))
        return frozen[-1]

    app = make_app()
    plain = app.signature("shop.ship")
    give = callbacks_of_each(freeze, plain, None)
    assert give() is give() is frozen[0]
    give = callbacks_of_each(freeze, plain, group(plain, plain))
    assert give() is not give()
    assert callbacks_of_each(Callbacks, None, None)() == Callbacks()
