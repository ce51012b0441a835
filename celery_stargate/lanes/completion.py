"""What the script ``complete`` gets: contexts that have their receipt, and what follows it."""

from __future__ import annotations

from collections.abc import Sequence

from celery_stargate.lanes.inbox import inbox_key
from celery_stargate.lanes.record import encode_outcome
from celery_stargate.lanes.scripts import Argument
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import ResultRow
from celery_stargate.model.outcome import Receipt

__all__ = ["completion_arguments", "completion_keys"]


def completion_keys(
    prefix: str,
    results: Sequence[tuple[Entry, ResultRow]],
    waited_for: Sequence[tuple[Entry, Receipt]],
) -> list[str]:
    """Return the keys of the script ``complete``, all after those of the lane.

    Arguments:
        prefix: what all keys begin with.
        results, waited_for: as ``LeasedLane.complete`` takes them.
    """
    inboxes = dict.fromkeys(entry.inbox.partition("/")[0] for entry, _ in waited_for)
    return [*(row.key for _, row in results), *(inbox_key(prefix, each) for each in inboxes)]


def completion_arguments(
    fire_and_forget: Sequence[Entry],
    results: Sequence[tuple[Entry, ResultRow]],
    waited_for: Sequence[tuple[Entry, Receipt]],
) -> list[Argument]:
    """Return the arguments of the script ``complete`` that come after the token.

    The message that the owner waits for comes after them.

    Arguments:
        fire_and_forget, results, waited_for: as ``LeasedLane.complete`` takes them.
    """
    entries = [*fire_and_forget, *(entry for entry, _ in (*results, *waited_for))]
    arguments: list[Argument] = [len(entries), len(results), len(waited_for)]
    arguments += [entry.label for entry in entries]
    arguments += [entry.number for entry in entries]
    for _, row in results:
        arguments += (row.value, row.expires)
    for entry, receipt in waited_for:
        arguments += (encode_outcome(receipt), entry.inbox)
    return arguments
