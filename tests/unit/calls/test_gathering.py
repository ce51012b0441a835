"""One wait for many contexts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from celery_stargate.calls.gathering import Gathering, GatheringInbox
from celery_stargate.calls.inbox import Ticket
from celery_stargate.model.outcomes import CallOutcomes
from tests.unit.helpers import TOPIC, failure, receipt


def gathering(*contexts: str) -> Gathering:
    """Return a wait for contexts."""
    return Gathering(Ticket("inbox/1"), contexts)


def test_outcomes_come_in_any_order() -> None:
    """And stand in that of the contexts; what comes twice, or is of another wait, counts not."""
    found = gathering("a", "b")
    found.take(receipt("b", entry_id=2))
    found.take(receipt("b", entry_id=3))
    found.take(receipt("another"))
    assert not found.ticket.future.done()
    found.take(receipt("a", entry_id=1))
    assert found.ticket.future.done()
    settled = found.settled(TOPIC)
    assert [each["entry_id"] for each in settled.result] == [1, 2]
    assert not settled.failed


def test_the_failure_is_that_of_the_first_of_which_nobody_knows() -> None:
    """As of a list; of a message without a word nobody can know."""
    found = gathering("a", "b", "c")
    found.take(failure("a", reason="refused"))
    found.take(receipt("c"))
    settled = found.settled(TOPIC)
    assert settled.failure.context == "b"
    assert (settled.failure.status, settled.failure.code) == ("unknown", "deadline")
    assert [type(each).__name__ for each in settled.outcomes] == ["Failure", "Failure", "Receipt"]


class Silent:
    """Stand where lanes do: nothing comes by Redis."""

    def subscribe(
        self, inbox: str, handled: Sequence[str], timeout: float
    ) -> list[tuple[str, str, bytes]]:
        threading.Event().wait(0.01)
        return []


@pytest.fixture
def inbox() -> Iterator[GatheringInbox]:
    """An inbox whose thread has ended when the test has."""
    others = set(threading.enumerate())
    made = GatheringInbox(Silent())  # type: ignore[arg-type]
    yield made
    for thread in set(threading.enumerate()) - others:
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
