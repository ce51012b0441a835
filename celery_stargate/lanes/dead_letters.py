"""What the scripts that may keep dead letters get: keys, bounds and causes."""

from __future__ import annotations

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.scripts import lane_keys
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.outcome import Failure

__all__ = ["NO_DEAD_LETTERS", "DeadLetterWriter"]

#: The rules of who keeps none.
NO_DEAD_LETTERS = DeadLetterRules(bounds=None)


class DeadLetterWriter:
    """How one caller's scripts keep the dead letters of one lane.

    Arguments:
        prefix: what all keys begin with.
        lane: which lane; one whose contexts have no messages has no dead letters.
        caller: as :func:`lane_keys` gets it.
        rules: which messages are kept.
    """

    __slots__ = ("_rules", "_topic", "bounds", "keys")

    def __init__(self, prefix: str, lane: Lane, caller: str, rules: DeadLetterRules) -> None:
        self._rules = rules
        self._topic = lane.topic
        bounds = rules.argument(lane.topic) if lane.has_messages else ""
        #: The last argument of each script; none where nothing is kept.
        self.bounds: list[str] = [bounds] if bounds else []
        #: The keys of each script.
        self.keys = lane_keys(prefix, lane, caller, dead_letters=bool(bounds))

    def cause_of(self, failure: Failure) -> str:
        """Return the cause under which a message is kept; empty if it is not kept."""
        return self._rules.cause_of(failure) if self.bounds else ""

    @property
    def deadline_cause(self) -> str:
        """The cause of messages whose deadline passed; empty if they are not kept."""
        return self.cause_of(deadline_failure("", self._topic, sent=None))
