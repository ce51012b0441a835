"""How dead letters are stored, and what a replay makes of one; no Redis here."""

from __future__ import annotations

import re
import uuid
from typing import Any, NamedTuple

import msgspec

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, encode_record
from celery_stargate.model.frame import relabelled
from celery_stargate.operations.dead_views import DeadLetterDetail, DeadLetterView
from celery_stargate.operations.records import read_outcomes, task_names
from celery_stargate.support.decoding import UNDECODABLE

__all__ = [
    "EFFECTS",
    "Letter",
    "Replay",
    "ids_meant",
    "make_replay",
    "read_letter",
    "record_of",
    "shown_id",
]

#: The kind of a letter whose message is stored.
EFFECTS = "e"

_HEAD = re.compile(rb"1 (\w) (\d+) (\d+) (\d+) (-?\d+) (\d+)\n([^\n]*)\n(.*)", re.DOTALL)
_PLACE = re.compile(r"(.+)\[(\d+)\]")
_record = msgspec.json.Decoder(Record)


class Letter(NamedTuple):
    """A dead letter without its body, as ``dead_letters.lua`` describes it."""

    lane: Lane
    id: str
    kind: str
    failures: int
    #: Epoch ms.
    begun: int
    last: int
    number: int
    size: int
    error: str
    code: str
    outcome: bytes

    def view(self, now: float) -> DeadLetterView:
        """Return what people see of it.

        Arguments:
            now: epoch seconds, by Redis' clock.
        """
        status, reason = self._told()
        return DeadLetterView(
            id=shown_id(self.id),
            lane=self.lane.name,
            topic=self.lane.topic,
            kind="effects" if self.kind == EFFECTS else "message",
            error=self.error,
            code=self.code,
            status=status,
            reason=reason,
            failures=self.failures,
            first_failed_seconds=max(0.0, now - self.begun / 1000),
            last_failed_seconds=max(0.0, now - self.last / 1000),
            size_bytes=self.size,
        )

    def detail(self, now: float, body: bytes | None) -> DeadLetterDetail:
        """Return all that is known of it but its payload."""
        record = None if body is None else record_of(self, body)
        view = {name: getattr(self.view(now), name) for name in DeadLetterView.__struct_fields__}
        return DeadLetterDetail(
            **view,
            task=record.task if record else None,
            on_ack=task_names(record.on_ack) if record else None,
            on_error=task_names(record.on_error) if record else None,
            replayable=body is not None and make_replay(self, body) is not None,
        )

    def _told(self) -> tuple[str, str]:
        """Return status and reason."""
        if self.kind == EFFECTS:
            return "stored", "what follows its receipt cannot be done"
        for each in read_outcomes(b"[" + self.outcome + b"]"):
            return each["status"], each.get("reason", "the deadline passed")
        return "unknown", "its outcome cannot be read"


def read_letter(lane: Lane, name: bytes, stored: bytes | None) -> Letter | None:
    """Read a dead letter; None if it is gone, damaged or of another version."""
    found = _HEAD.fullmatch(stored or b"")
    if found is None:
        return None
    kind, *numbers, cause, outcome = found.groups()
    failures, begun, last, number, size = map(int, numbers)
    error, _, code = cause.decode("utf-8", "replace").partition(" ")
    return Letter(
        *(lane, name.decode(), kind.decode(), failures, begun, last, number, size),
        *(error, code, outcome),
    )


def shown_id(name: str) -> str:
    """Return the id of a dead letter for people: a message of a list ends in its place."""
    context, tab, place = name.partition("\t")
    return f"{context}[{place}]" if tab else name


def ids_meant(given: str) -> list[str]:
    """Return the ids that a person may mean."""
    found = _PLACE.fullmatch(given)
    return [given, f"{found[1]}\t{found[2]}"] if found else [given]


class Replay(NamedTuple):
    """What is put into the lane for a dead letter."""

    context: str
    #: The record's body; empty where only effects are done again.
    body: bytes
    frame: bytes


def record_of(letter: Letter, body: bytes) -> Record | None:
    """Return the record of a dead letter; None if it cannot be read."""
    parts = body.split(b"\n", 2)
    try:
        return _record.decode(parts[1] if letter.kind == EFFECTS else parts[0])
    except (*UNDECODABLE, IndexError):
        return None


def make_replay(letter: Letter, body: bytes) -> Replay | None:
    """Return the next attempt at a dead letter; None if it cannot be read.

    It has a context of its own, because lanes and brokers know the earlier one, and reports under
    the first one. Nobody waits for it, and a chord that has ended is not told again. A message of a
    list has no callbacks and no result: those were the list's, which has its outcome.
    """
    record = record_of(letter, body)
    if record is None:
        return None
    if letter.kind == EFFECTS:
        return Replay(record.context, b"", b"")
    context = f"{letter.id}.replay-{letter.failures}"
    frame = relabelled(body.partition(b"\n")[2], context)
    if frame is None:
        return None
    own: dict[str, Any] = {"context": context, "replayed": (letter.failures, letter.begun)}
    if "\t" not in letter.id:
        own |= {
            "is_list": record.is_list,
            "task": record.task,
            "request": _without_chord(record.request),
            "on_ack": record.on_ack,
            "on_error": record.on_error,
        }
        if record.on_ack or record.on_error:
            own["incarnation"] = uuid.uuid4().hex[:16]
    return Replay(context, encode_record(Record(**own)), frame)


def _without_chord(request: str | None) -> str | None:
    if request is None or '"chord"' not in request:
        return request
    fields: dict[str, Any] = msgspec.json.decode(request)
    fields.pop("chord", None)
    return msgspec.json.encode(fields).decode()
