"""What a caller gets of an outcome: receipts, or an error."""

from __future__ import annotations

from typing import TypeAlias

from celery_stargate.lanes.record import Settled
from celery_stargate.model.outcome import Receipt, error_of

__all__ = ["Receipts", "receipts_of"]

#: Of one message its receipt; of a list the list of receipts, in order.
Receipts: TypeAlias = Receipt | list[Receipt]


def receipts_of(settled: Settled) -> Receipts:
    """Return the receipts of a settled context.

    Raises:
        ProduceError, ProduceTimeout: a message has no receipt.
    """
    if settled.failed:
        raise error_of(settled.failure)
    receipts = [outcome for outcome in settled.outcomes if isinstance(outcome, Receipt)]
    return receipts if settled.record.is_list else receipts[0]
