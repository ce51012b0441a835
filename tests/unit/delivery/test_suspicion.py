"""``delivery/suspicion.py``: the message that breaks each connection is found and failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import pytest

from celery_stargate.delivery.suspicion import (
    SUSPICION_TRANSITIONS,
    Suspicion,
    SuspicionEvent,
    SuspicionState,
)
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure
from celery_stargate.pulsar.link import Blame, LinkBroken
from celery_stargate.pulsar.sequence import SequenceMismatch
from celery_stargate.pulsar.window import Window
from tests.unit.delivery.rig import entry
from tests.unit.helpers import TOPIC

PAIRS = list(product(SuspicionState, SuspicionEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=str)
def test_the_table(state: SuspicionState, event: SuspicionEvent) -> None:
    """A break never widens what may be in flight, and only CLEARED ends a suspicion."""
    after = SUSPICION_TRANSITIONS[state].get(event)
    order = list(SuspicionState)
    if event is SuspicionEvent.CLEARED:
        assert after is (None if state is SuspicionState.NONE else SuspicionState.NONE)
    else:
        assert after is not None
        assert order.index(after) > order.index(state) or state is after is SuspicionState.ALONE


class Lane:
    """Messages that are sent as the suspicion allows, to a server that breaks at some of them."""

    def __init__(
        self, count: int, poisons: Iterable[int], blame: Blame, window: int = 1000
    ) -> None:
        self.suspicion = Suspicion("x")
        self.log = list(range(1, count + 1))
        self.poisons = set(poisons)
        self.error = LinkBroken("it broke", blame)
        self.window = window
        self.sent_before = self.receipts = self.connections = self.sends = 0
        self.failures: dict[int, Failure] = {}

    def run(self, bound: int, receipts_come: Callable[[int], bool] = lambda number: False) -> None:
        """Send everything, over at most so many connections."""
        while self.log:
            self.connections += 1
            assert self.connections <= bound
            self._connect(receipts_come)

    def _connect(self, receipts_come: Callable[[int], bool]) -> None:
        sent_before, after = self.sent_before, self.log[0] - 1
        while self.log:
            limit = self.suspicion.limit(after, Window(1, 1))
            some = self.log[: self.window if limit is None else limit]
            self.sends += 1
            self.sent_before = max(self.sent_before, some[-1])
            if not self.poisons.isdisjoint(some):
                heard = [each for each in some if receipts_come(each)]
                self._settle(heard)
                found = self.suspicion.broke(
                    self.error,
                    [entry(each) for each in some if each not in heard],
                    sent_before=sent_before,
                    receipts=self.receipts,
                    topic=TOPIC,
                )
                if found is not None:
                    self.failures[found[0].number] = found[1]
                    self.log.remove(found[0].number)
                return
            after = some[-1]
            self._settle(some)

    def _settle(self, numbers: list[int]) -> None:
        self.receipts += len(numbers)
        for each in numbers:
            self.log.remove(each)


@pytest.mark.parametrize("poison", [1, 2, 500, 1000, 1001, 9999, 10_000])
@pytest.mark.parametrize(("blame", "bound"), [(Blame.FRAME_TOO_LARGE, 4), (Blame.UNCLEAR, 9)])
def test_one_poison_among_ten_thousand(poison: int, blame: Blame, bound: int) -> None:
    """It alone fails, after a few connections and a few dozen round trips."""
    lane = Lane(10_000, [poison], blame)
    lane.run(bound)
    assert set(lane.failures) == {poison}
    assert lane.sends < 120


def test_many_poisons() -> None:
    """Each is found; all others are sent."""
    poisons = range(100, 1000, 100)
    lane = Lane(2000, poisons, Blame.REPLY_TOO_LARGE)
    lane.run(40)
    assert set(lane.failures) == set(poisons)
    assert lane.receipts == 2000 - len(poisons)


def test_two_poisons_side_by_side_without_a_receipt_between() -> None:
    """The second takes more breaks: a broker that is ill breaks any connection."""
    lane = Lane(2, [1, 2], Blame.UNCLEAR)
    lane.run(4 + 5 + 10)
    assert set(lane.failures) == {1, 2}
    lane = Lane(2, [1, 2], Blame.UNCLEAR)
    with pytest.raises(AssertionError):
        lane.run(10)


def test_breaks_at_different_messages_condemn_nobody() -> None:
    """A network that breaks now and then is no message's doing."""
    suspicion = Suspicion("x")
    for number in range(1, 200):
        found = suspicion.broke(
            LinkBroken("cut"), [entry(number)], sent_before=0, receipts=number, topic=TOPIC
        )
        assert found is None
        assert suspicion.state is SuspicionState.NOTED
        assert suspicion.limit(0, Window(1, 1)) is None


@pytest.mark.parametrize(
    "error",
    [
        LinkBroken("no receipt in 60 s", Blame.NONE),
        SequenceMismatch("an error receipt", regenerate=True),
    ],
    ids=str,
)
def test_what_is_no_messages_doing(error: LinkBroken | SequenceMismatch) -> None:
    """A server that goes away, or does not answer, condemns nobody however often."""
    suspicion = Suspicion("x")
    for _ in range(100):
        assert suspicion.broke(error, [entry(1)], sent_before=0, receipts=0, topic=TOPIC) is None
    assert suspicion.state is SuspicionState.NONE


@pytest.mark.parametrize("blame", [Blame.UNREADABLE, Blame.FRAME_TOO_LARGE, Blame.REPLY_TOO_LARGE])
def test_a_message_that_has_its_outcome_may_be_to_blame(blame: Blame) -> None:
    """The only one left is not condemned; the lane sends one at a time, and then it is clear."""
    suspicion, error = Suspicion("x"), LinkBroken("bad JSON", blame)
    for _ in range(100):
        assert (
            suspicion.broke(error, [entry(2)], forgotten=1, sent_before=0, receipts=0, topic=TOPIC)
            is None
        )
    assert suspicion.state is not SuspicionState.NONE
    found = suspicion.broke(error, [entry(2)], sent_before=0, receipts=0, topic=TOPIC)
    assert found is not None
    assert found[0].number == 2


def test_a_reply_that_names_its_message() -> None:
    """Needs no search; it has to repeat itself all the same."""
    culprit = entry(7)
    suspicion = Suspicion("x")
    error = LinkBroken("an ok that cannot be read", entry=culprit)
    found = [
        suspicion.broke(error, [entry(8), entry(9)], sent_before=0, receipts=0, topic=TOPIC)
        for _ in range(5)
    ]
    assert found[:4] == [None] * 4
    assert found[4] is not None
    assert found[4][0] is culprit
    assert found[4][1].status == "unknown"


@pytest.mark.parametrize(
    ("blame", "sent_before", "status", "code"),
    [
        (Blame.FRAME_TOO_LARGE, 0, "refused", "frame-too-large"),
        (Blame.FRAME_TOO_LARGE, 1, "unknown", "frame-too-large"),
        (Blame.UNREADABLE, 0, "refused", "unreadable"),
        (Blame.REPLY_TOO_LARGE, 0, "unknown", "reply-too-large"),
    ],
)
def test_the_failure(blame: Blame, sent_before: int, status: str, code: str) -> None:
    """Refused only where it is surely not stored (P3), and with what to do."""
    message = Entry(1, "c1", b"x" * 300)
    found = Suspicion("x").broke(
        LinkBroken("closed", blame), [message], sent_before=sent_before, receipts=0, topic=TOPIC
    )
    assert found is not None
    failure = found[1]
    assert (failure.context, failure.topic, failure.status, failure.code) == (
        *("c1", TOPIC, status),
        code,
    )
    hint = {"frame-too-large": "stargate_max_frame_size", "reply-too-large": "2 characters"}
    assert hint.get(code, "cannot read") in failure.reason


def test_one_unclear_break_on_the_way_makes_it_unknown() -> None:
    """Then the message may have been stored."""
    suspicion = Suspicion("x")
    for blame in (Blame.UNCLEAR, Blame.FRAME_TOO_LARGE):
        found = suspicion.broke(
            LinkBroken("closed", blame), [entry(1)], sent_before=0, receipts=0, topic=TOPIC
        )
    assert found is not None
    assert found[1].status == "unknown"


def test_the_limit_holds_until_the_suspects_have_their_outcomes() -> None:
    """Those in flight, and those that are still to be read."""
    suspicion = Suspicion("x")
    suspects = [entry(number) for number in range(1, 101)]
    for _ in range(2):
        suspicion.broke(LinkBroken("cut"), suspects, sent_before=0, receipts=0, topic=TOPIC)
    window = Window(1000, 1 << 20)
    assert suspicion.limit(0, window) == 32
    assert suspicion.limit(99, window) == 32
    window.add(entry(100))
    assert suspicion.limit(100, window) == 32
    window.remove("c100")
    window.add(entry(101))
    assert suspicion.limit(101, window) is None
    assert suspicion.state is SuspicionState.NONE
