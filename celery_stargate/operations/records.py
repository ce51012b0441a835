"""What a lane keeps of a context, read for people: nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celery_stargate.lanes.record import RECORD_VERSIONS, Record
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["StoredRecord", "read_outcomes", "read_record", "task_names"]

_record = msgspec.json.Decoder(Record)
_outcomes = msgspec.json.Decoder(list[Receipt | Failure | int])


class StoredRecord(msgspec.Struct, frozen=True):
    """A record with its head, as ``common.lua`` describes it."""

    #: The lane's number of its first message; negative if it has none in this lane.
    first: int
    #: How many messages it has.
    count: int
    #: When it was recorded, epoch ms; None for a head that does not say so.
    recorded_at: int | None
    record: Record


def read_record(stored: bytes) -> StoredRecord | None:
    """Read a record; None if it is damaged, or of another version.

    Arguments:
        stored: head, line break and JSON.
    """
    head, _, body = stored.partition(b"\n")
    version, *numbers = head.split(b" ")
    try:
        first, count, _, *rest = map(int, numbers)
        record = _record.decode(body)
    except UNDECODABLE:
        return None
    if version not in RECORD_VERSIONS:
        return None
    return StoredRecord(first, count, rest[0] if rest else None, record)


def read_outcomes(stored: bytes) -> list[dict[str, Any]]:
    """Read outcomes as they are stored, as dicts; an empty list if they cannot be read.

    Arguments:
        stored: a JSON list. A number in it is a message whose deadline passed: 1 if it may have
            been sent, else 0.
    """
    try:
        outcomes = _outcomes.decode(stored)
    except UNDECODABLE:
        return []
    return [
        {"status": "unknown" if each else "refused", "code": "deadline"}
        if isinstance(each, int)
        else each.to_dict()
        for each in outcomes
    ]


def task_names(packed: str | None) -> str | None:
    """Return the names of the tasks of a packed signature, without arguments; None for none.

    Arguments:
        packed: a signature as JSON; a group, chain or chord has several tasks.
    """
    if packed is None:
        return None
    try:
        signature: Any = msgspec.json.decode(packed)
    except UNDECODABLE:
        return "?"
    names = list(dict.fromkeys(_names(signature, 0)))
    return ", ".join(names) or "?"


#: Deeper canvases are cut; no person reads that far.
_DEPTH = 8


def _names(signature: Any, depth: int) -> list[str]:
    if not isinstance(signature, Mapping) or depth > _DEPTH:
        return []
    parts = signature.get("kwargs")
    inner = parts.get("tasks") or parts.get("header") if isinstance(parts, Mapping) else None
    if isinstance(inner, Mapping):
        inner = inner.get("kwargs", {}).get("tasks")
    if isinstance(inner, list) and str(signature.get("task", "")).startswith("celery."):
        found = [name for each in inner for name in _names(each, depth + 1)]
        body = parts.get("body") if isinstance(parts, Mapping) else None
        return found + _names(body, depth + 1)
    name = signature.get("task")
    return [name] if isinstance(name, str) else []
