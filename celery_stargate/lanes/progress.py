"""How far a lane's messages have come, as Redis has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PROGRESS_FIELDS", "Progress", "read_progress"]

#: The fields of the lane's ``meta`` that say so.
PROGRESS_FIELDS = ("sent", "tried", "generation", "begun_by", "marked")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a lane's messages have come; all numbers are the lane's."""

    #: The last message that may have been sent.
    sent: int
    #: The last message that may have been sent under the present generation.
    tried: int
    #: Part of the producer's name, by which Pulsar knows the lane's sequence ids.
    generation: str
    #: Whether this hold of the lease began the generation. Only then may new messages be sent under
    #: it: Redis may have come back without its tail before, and give numbers again.
    own: bool


def read_progress(values: Sequence[bytes | None], fencing_token: int) -> tuple[Progress, str]:
    """Read how far the messages have come, and field ``m`` of the last one that may have been sent.

    Arguments:
        values: of the :data:`PROGRESS_FIELDS`.
        fencing_token: of the present hold of the lease.
    """
    sent, tried, generation, begun_by, marked = ((each or b"").decode() for each in values)
    own = begun_by == str(fencing_token)
    return Progress(int(sent or 0), int(tried or 0), generation, own), marked
