"""What became of one call: the outcome of its message, or of each message of its list."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from celery_stargate.model.outcome import Failure, Outcome, Receipt, error_of

__all__ = ["CallOutcomes", "Receipts"]

#: What a call that waits returns: the receipt, for a list the list of receipts, in order.
Receipts: TypeAlias = Receipt | list[Receipt]


class CallOutcomes(msgspec.Struct, frozen=True, gc=False):
    """The outcomes of one call's messages."""

    context: str
    #: Whether the caller gave a list; then the result is a list, even of one.
    is_list: bool
    #: One for each message, in order; at least one.
    outcomes: tuple[Outcome, ...]
    #: What tells this call from another with the same context, in the ids of its callbacks.
    incarnation: str = ""

    @property
    def failed(self) -> bool:
        """Whether any message has no receipt."""
        return Failure in map(type, self.outcomes)

    @property
    def result(self) -> Any:
        """What the task returns and ``on_ack`` gets: the receipt as a dict, for a list all of them.

        Failures are among the items of a list that failed.
        """
        receipts = [outcome.to_dict() for outcome in self.outcomes]
        return receipts if self.is_list else receipts[0]

    @property
    def failure(self) -> Failure:
        """What the error holds and ``on_error`` gets.

        For a list it is the first failure (the first ``unknown`` one, if there is any), with the
        outcome of every message.

        Raises:
            IndexError: nothing failed.
        """
        failures = [outcome for outcome in self.outcomes if isinstance(outcome, Failure)]
        if not self.is_list:
            return failures[0]
        unknown = [failure for failure in failures if failure.status == "unknown"]
        first = (unknown or failures)[0]
        return Failure(
            context=self.context,
            topic=first.topic,
            status=first.status,
            reason=f"{len(failures)} of {len(self.outcomes)} messages failed: {first.reason}",
            code=first.code,
            outcomes=[outcome.to_dict() for outcome in self.outcomes],
        )

    def receipts(self) -> list[Receipt]:
        """Return the receipts, in order.

        Raises:
            ProduceError: a message was refused, or nobody can know whether it is in the topic.
            ProduceTimeout: its deadline passed.
        """
        found = [outcome for outcome in self.outcomes if isinstance(outcome, Receipt)]
        if len(found) < len(self.outcomes):
            raise error_of(self.failure)
        return found

    def answer(self) -> Receipts:
        """Return what a call that waits returns: the receipt, for a list the list of receipts.

        Raises:
            ProduceError, ProduceTimeout: as :meth:`receipts`.
        """
        found = self.receipts()
        return found if self.is_list else found[0]
