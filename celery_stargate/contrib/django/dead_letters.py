"""The seam to the dead letters in Redis: all that the admin asks of them stands here."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from django.db import router

from celery_stargate.app import Stargate
from celery_stargate.contrib.django.closing import CLOSE_TASK
from celery_stargate.contrib.django.contexts import parse_context
from celery_stargate.contrib.django.rows import outbox_model, outbox_rows
from celery_stargate.lanes.connections import store_errors
from celery_stargate.operations.dead_letters import dead_letters_of, receipt_tasks
from celery_stargate.operations.dead_pages import read_page
from celery_stargate.operations.dead_records import Letter, shown_id
from celery_stargate.operations.dead_views import (
    DeadLetterChange,
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLetterTotals,
    DeadResult,
)
from celery_stargate.operations.reading import reader_of
from celery_stargate.support.bound import bounded, call_bound
from celery_stargate.support.decoding import UNDECODABLE

__all__ = [
    "DeadLetterFilter",
    "DeadResult",
    "Letter",
    "OutboxRow",
    "act",
    "closing",
    "details",
    "forget",
    "named",
    "now",
    "pack",
    "page",
    "rows_of",
    "shown_id",
    "totals",
    "unpack",
]

#: Seconds that an action may take; a web server gives up at about the same time.
_PATIENCE = 25.0

#: What tells one dead letter from another, and from what it becomes when it fails again.
_Token = tuple[str, str, int]
_tokens = msgspec.json.Decoder(list[_Token])


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """The outbox's row of a dead letter: it is sent again there."""

    pk: int
    state: str


def totals(stargate: Stargate) -> DeadLetterTotals:
    """Return how many there are, by topic and cause.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with call_bound(), store_errors():
        return dead_letters_of(stargate.runtime).totals()


def page(
    stargate: Stargate, where: DeadLetterFilter, after: str | None, most: int
) -> tuple[list[Letter], str | None]:
    """Return dead letters, the latest failure first, and where the next page begins.

    Raises:
        StoreUnavailable: Redis did not answer.
        ValueError: ``after`` is not of a page.
    """
    with call_bound(), store_errors():
        found = read_page(reader_of(stargate.runtime), where, after=after, most=most)
    return found.letters, found.after


def named(stargate: Stargate, name: str) -> list[Letter]:
    """Return the dead letters of one id, as people write it.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with call_bound(), store_errors():
        return dead_letters_of(stargate.runtime).named([name])


def details(stargate: Stargate, name: str) -> list[DeadLetterDetail]:
    """Return all that is known of the dead letters of one id, but their payloads.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with call_bound(), store_errors():
        return dead_letters_of(stargate.runtime).show(name)


def now(stargate: Stargate) -> float:
    """Return Redis' time, epoch seconds.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with call_bound(), store_errors():
        return reader_of(stargate.runtime).now()


def pack(letters: Iterable[Letter]) -> str:
    """Return what a page carries of the dead letters that somebody chose."""
    return msgspec.json.encode([(each.lane.name, each.id, each.last) for each in letters]).decode()


def unpack(stargate: Stargate, packed: Iterable[str]) -> list[Letter]:
    """Return the dead letters that :func:`pack` wrote, as far as they are still the same.

    Raises:
        StoreUnavailable: Redis did not answer.
        ValueError: it is not what :func:`pack` wrote.
    """
    try:
        tokens = {token for each in packed for token in _tokens.decode(each)}
    except UNDECODABLE as error:
        raise ValueError(f"not a choice of dead letters: {error}") from None
    names = sorted({name for _, name, _ in tokens})
    with call_bound(), store_errors():
        found = dead_letters_of(stargate.runtime).named(names)
    return [each for each in found if (each.lane.name, each.id, each.last) in tokens]


def act(
    stargate: Stargate, verb: Literal["replay", "discard"], letters: Sequence[Letter], by: str
) -> Iterator[DeadLetterChange]:
    """Replay or discard dead letters, step by step, each in one step.

    Arguments:
        by: who does it.

    Raises:
        StoreUnavailable: Redis did not answer; what was told before was done.
    """
    with bounded(_PATIENCE), store_errors():
        dead_letters = dead_letters_of(stargate.runtime, by)
        do = dead_letters.replay if verb == "replay" else dead_letters.discard
        yield from do(letters)


def forget(stargate: Stargate, contexts: Mapping[str, Iterable[str]]) -> int:
    """Delete the dead letters of rows that are sent again, or given up, in the outbox.

    Arguments:
        contexts: of their attempts, by the full name of their topic.

    Returns:
        How many there were.

    Raises:
        StoreUnavailable: Redis did not answer; what is left can be deleted again.
    """
    gone = 0
    with bounded(_PATIENCE), store_errors():
        dead_letters = dead_letters_of(stargate.runtime, "the outbox")
        for topic, some in contexts.items():
            changes = dead_letters.discard(dead_letters.named(some, topic))
            gone += sum(each.result is DeadResult.DONE for each in changes)
    return gone


def rows_of(letters: Iterable[Letter]) -> Mapping[str, OutboxRow]:
    """Return the outbox's rows of dead letters by the letters' ids, of the router's database."""
    by_row: dict[uuid.UUID, list[str]] = {}
    for each in letters:
        row_id = _row_id(each)
        if row_id is not None:
            by_row.setdefault(row_id, []).append(each.id)
    found: dict[str, OutboxRow] = {}
    if by_row:
        rows: Any = outbox_rows(router.db_for_write(outbox_model())).filter(uuid__in=list(by_row))
        for row_id, pk, state in rows.values_list("uuid", "pk", "state"):
            found |= dict.fromkeys(by_row[row_id], OutboxRow(pk, state))
    return found


def closing(stargate: Stargate, letters: Iterable[Letter]) -> set[Letter]:
    """Return the dead letters whose receipt closes a row of the outbox, in whichever database.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    meant = [each for each in letters if _row_id(each) is not None]
    with bounded(_PATIENCE), store_errors():
        tasks = receipt_tasks(reader_of(stargate.runtime), meant)
        return {letter for letter, task in tasks if task == CLOSE_TASK}


def _row_id(letter: Letter) -> uuid.UUID | None:
    try:
        return parse_context(letter.id)[0]
    except ValueError:
        return None
