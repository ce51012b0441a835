"""Many contexts of one call: prepared one by one, and their outcomes gathered by one inbox."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from celery_stargate.calls.inbox import Inbox, Ticket
from celery_stargate.calls.prepare import Call, Preparation
from celery_stargate.effects.signatures import Callbacks
from celery_stargate.errors import InvalidMessage
from celery_stargate.model.message import Message
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.model.topic import Topic

__all__ = ["Gathering", "GatheringInbox", "callbacks_of_each", "prepare_many", "wait_for"]

#: How much longer one who waits does so, past the deadline and past each sign of progress.
_GRACE_PERIOD = 5.0


def prepare_many(messages: object, topic: Topic, options: ProducerOptions) -> list[Call]:
    """Check all messages, and return what each records: a context of its own, with a new id.

    Raises:
        InvalidMessage: one cannot be published, and which; or these are no messages, but one.
    """
    if isinstance(messages, str | bytes | bytearray | memoryview | Mapping | Message) or not (
        isinstance(messages, Iterable)
    ):
        raise InvalidMessage(
            f"produce_many takes an iterable of messages, not {type(messages).__name__}; "
            "for one message use produce"
        )
    calls, preparation = [], Preparation(topic, options)
    for index, message in enumerate(messages):
        try:
            if isinstance(message, list):
                raise InvalidMessage(
                    "a message is text, bytes, (key, payload), a mapping or a Message, not list"
                )
            calls.append(preparation.call(message, str(uuid.uuid4())))
        except InvalidMessage as error:
            raise InvalidMessage(error.problem, index) from None
    return calls


def callbacks_of_each(
    freeze: Callable[[], Callbacks], on_ack: Any, on_error: Any
) -> Callable[[], Callbacks]:
    """Return what gives each message its callbacks.

    A plain signature's task gets its id when it is triggered, so one frozen signature serves all.
    The ids in a group, chain or chord are frozen, and each message must have its own.
    """
    frozen = freeze()
    given = (each for each in (on_ack, on_error) if each is not None)
    if any(each.get("subtask_type") is not None for each in given):
        return freeze
    return lambda: frozen


class Gathering:
    """One wait for the outcomes of many contexts, in their order.

    Arguments:
        ticket: its future is done when all are here.
    """

    def __init__(self, ticket: Ticket, contexts: Sequence[str]) -> None:
        self.ticket = ticket
        self._places = {context: place for place, context in enumerate(contexts)}
        self._outcomes: list[Outcome | None] = [None] * len(contexts)
        self.missing = len(contexts)

    def take(self, outcome: Outcome) -> None:
        """Take in an outcome; a repeated one, or one of another wait, changes nothing."""
        place = self._places.get(outcome.context)
        if place is None or self._outcomes[place] is not None:
            return
        self._outcomes[place] = outcome
        self.missing -= 1
        if not self.missing:
            self.ticket.future.set_result(None)

    def settled(self, topic: str) -> CallOutcomes:
        """Return all outcomes as those of one list, under the context that failed first.

        One that never came is a failure: nobody can know.
        """
        outcomes = [
            outcome
            if outcome is not None
            else Failure(
                context=context,
                topic=topic,
                status="unknown",
                code="deadline",
                reason="the deadline passed, and nobody could tell what became of the message",
            )
            for context, outcome in zip(self._places, self._outcomes, strict=True)
        ]
        failures = [each for each in outcomes if isinstance(each, Failure)]
        unknown = [each for each in failures if each.status == "unknown"]
        first = (unknown or failures or outcomes)[0]
        return CallOutcomes(first.context, is_list=True, outcomes=tuple(outcomes))


class GatheringInbox(Inbox):
    """An inbox at which one may also wait for many contexts with one ticket."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gatherings: dict[str, Gathering] = {}
        self._gathering = threading.Lock()

    def gather(self, contexts: Sequence[str]) -> Gathering:
        """Wait for the outcomes of contexts that are to be recorded with the ticket's address."""
        ticket = self.expect()
        gathering = Gathering(ticket, contexts)
        with self._gathering:
            self._gatherings[ticket.address] = gathering
        return gathering

    def forget(self, ticket: Ticket) -> None:
        """Wait no more with a ticket."""
        with self._gathering:
            self._gatherings.pop(ticket.address, None)
        super().forget(ticket)

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Release the one who waits with a ticket, if anyone does and all that it needs is here."""
        with self._gathering:
            gathering = self._gatherings.get(address)
            if gathering is not None:
                for outcome in call.outcomes:
                    gathering.take(outcome)
                return
        super().deliver(address, call)


def wait_for(
    gathering: Gathering,
    seconds: float,
    *,
    look_every: float,
    look: Callable[[], None],
    settle: Callable[[], None],
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Return when all outcomes are here, or when nobody can tell what is missing.

    Arguments:
        seconds: until the deadline; past it, what is overdue is settled from here.
        look: looks every ``look_every`` seconds whether somebody owns lanes.
        settle: settles some of what is overdue.
    """
    future = gathering.ticket.future
    deadline = monotonic() + seconds
    while (left := deadline - monotonic()) > 0:
        if _done(future, min(left, look_every)):
            return
        look()
    end, missing = monotonic() + _GRACE_PERIOD, gathering.missing
    while not _done(future, 0.0) and monotonic() < end:
        settle()
        if _done(future, 0.05):
            return
        if gathering.missing < missing:
            end, missing = monotonic() + _GRACE_PERIOD, gathering.missing


def _done(future: Any, timeout: float) -> bool:
    try:
        future.result(timeout)
    except TimeoutError:
        return False
    return True
