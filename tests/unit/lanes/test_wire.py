"""What goes between processes: both ends agree, and damage raises an error that can be logged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, Settled, encode_outcome, encode_record
from celery_stargate.lanes.wire import (
    CompleteReply,
    Fenced,
    LaneTick,
    PutReply,
    PutWord,
    SettleReply,
    SettleWord,
    StoredEntry,
    StoreRolledBack,
    check_lease,
    decode_call,
    encode_call,
    last_number,
    read_answer,
    read_complete,
    read_entries,
    read_marked,
    read_put,
    read_settle,
    read_stored,
    read_tick,
)
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import PRODUCE, FollowUp
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.model.outcomes import CallOutcomes
from tests.unit.helpers import TOPIC, failure, receipt

LANE = Lane(TOPIC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
OUTCOMES: st.SearchStrategy[Outcome] = st.builds(
    Receipt, context=TEXT, topic=st.none() | TEXT, value=st.none() | st.integers(0, 9) | TEXT
) | st.builds(Failure, context=TEXT, reason=TEXT, status=st.sampled_from(["refused", "unknown"]))


@given(st.booleans(), st.lists(OUTCOMES, min_size=1, max_size=3))
def test_a_waiting_process_reads_what_was_sent(is_list: bool, outcomes: list[Outcome]) -> None:
    """All outcomes, and whether the caller gave a list; the context is the first outcome's."""
    call = CallOutcomes(outcomes[0].context, is_list, tuple(outcomes))
    assert decode_call(encode_call(call)) == call


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"0",
        b"0[]",
        b"0{}",
        b"0garbage",
        b"0[0]",
        b"0\xff",
        b"2" + encode_call(CallOutcomes("c", is_list=False, outcomes=(receipt(),)))[1:],
        b'0[{"type":"rumour","context":"c"}]',
        b'0[{"type":"receipt","context":"c","value":' + b"[" * 10**5 + b"]" * 10**5 + b"}]",
    ],
)
def test_damaged_outcomes(wire: bytes) -> None:
    """Raise one kind of error, whose text can be logged."""
    with pytest.raises(ValueError, match="^(damaged outcomes|outcomes of an unknown)") as caught:
        decode_call(wire)
    assert str(caught.value).isprintable()


def test_put_replies() -> None:
    """A word and a number; and whether the lane could not be announced."""
    assert read_put([b"new", 7]) == PutReply(PutWord.NEW, 7)
    assert read_put([b"new", 1, b"unlisted"]) == PutReply(PutWord.NEW, 1, unlisted=True)
    assert read_put([b"known", 0]) == PutReply(PutWord.KNOWN, 0)
    assert read_put([b"full", 100]) == PutReply(PutWord.FULL, 100)


def due(context: str, *outcomes: Outcome) -> list[bytes]:
    """Return the answer for a context that is settled now."""
    record = b"1 7 1 0\n" + encode_record(Record(context))
    return [b"due", record, b"[" + b",".join(map(encode_outcome, outcomes)) + b"]"]


def test_settle_answers() -> None:
    """Only ``due`` has a settled context."""
    assert read_answer([b"part"], TOPIC) == (SettleWord.PART, None)
    assert read_answer([b"late"], TOPIC) == ("late", None)
    word, settled = read_answer(due("a", receipt("a")), TOPIC)
    assert word is SettleWord.DUE
    assert settled == Settled(Record("a"), (receipt("a"),), first=7)


def test_a_settle_reply(caplog: pytest.LogCaptureFixture) -> None:
    """Settled contexts and the places of late outcomes; what cannot be read is logged."""
    other = [b"due", b"3 7 1 0\n{}", b"[0]"]
    answers: list[Any] = [due("a", failure("a")), [b"late"], [b"part"], [b"ignored"], other]
    found = read_settle([1, *answers], LANE)
    settled = [Settled(Record("a"), (failure("a"),), first=7)]
    assert found == SettleReply(settled, frozenset({1, 3}), fenced=True)
    assert "unknown version" in caplog.text
    assert read_settle([0], LANE) == SettleReply([], frozenset(), fenced=False)


def test_a_complete_reply() -> None:
    """The first word is whether the lease is lost."""
    assert read_complete([1, 2, 1, 3]) == CompleteReply(late=frozenset({0, 2}), fenced=True)


def test_who_lost_the_lease() -> None:
    """Learns it from the first word."""
    check_lease(0)
    with pytest.raises(Fenced):
        check_lease(1)
    with pytest.raises(StoreRolledBack):
        read_tick([2])


def test_a_tick() -> None:
    """In seconds; -1 is no deadline."""
    assert read_tick([0, 2, 1, 0, 1500]) == LaneTick(2, 1, 0, 1.5)
    assert not read_tick([0, 0, 0, 0, 0]).idle
    assert read_tick([0, 0, 0, 0, -1]).idle


def test_entries() -> None:
    """The label may be in the frame; an unknown code means that the record tells.

    What may not be sent is told apart, whether the script or this process cannot read it.
    """
    frame = b'{"payload":"","context":"in the frame"}'
    fields = [
        *(1, b"", frame, -1, b"q"),
        *(2, b"list\t1", b"frame", 1, b"f"),
        *(3, b"own", b"frame", -1, b"rshop.orders"),
        *(4, b"later", b"frame", -1, b"z"),
        *(5, b"", b"no frame", -1, b"q"),
        *(6, b"bad name", b"frame", -1, b"r\xff"),
        *(7, b"", b"", -2, b"orphan"),
        *(8, b"", b"", -2, b"newer"),
    ]
    found, unreadable = read_entries(fields)
    assert found == [
        Entry(1, "in the frame", frame, -1, FollowUp.NOTHING, PRODUCE),
        Entry(2, "list\t1", b"frame", 1, FollowUp.MORE, PRODUCE),
        Entry(3, "own", b"frame", -1, FollowUp.RESULT, "shop.orders"),
        Entry(4, "later", b"frame", -1, FollowUp.MORE, PRODUCE),
    ]
    assert unreadable == [(5, "damaged"), (6, "damaged"), (7, "orphan"), (8, "newer")]
    assert last_number(fields) == 8


def test_a_message_that_its_put_marked() -> None:
    """For this hold of the lease; its label may be in the frame, and its code have a name."""
    frame = b'{"payload":"","context":"in the frame"}'
    found = read_marked((b"7-0", {b"q": frame, b"m": b"one:3 caller:1 7"}), "one:3")
    assert found is not None
    assert found == (
        Entry(7, "in the frame", frame, -1, FollowUp.NOTHING, PRODUCE),
        "one:3 caller:1 7",
    )
    fields = {b"w": b"frame", b"t": b"inbox/4", b"l": b"own", b"m": b"one:3 caller:2 7"}
    found = read_marked((b"8-0", fields), "one:3")
    assert found is not None
    waits = Entry(8, "own", b"frame", -1, FollowUp.WAITER, inbox="inbox/4")
    assert found == (waits, "one:3 caller:2 7")


@pytest.mark.parametrize(
    "fields",
    [
        {b"q": b'{"context":"c"}'},
        {b"q": b'{"context":"c"}', b"m": b"one:4 caller:1 7"},
        {b"q": b'{"context":"c"}', b"m": b"two:3 caller:1 7"},
        {b"q": b'{"context":"c"}', b"m": b"one:33 caller:1 7"},
        {b"q": b"no frame", b"m": b"one:3 caller:1 7"},
        {b"q": b"frame", b"l": b"\xff", b"m": b"one:3 caller:1 7"},
        {},
    ],
)
def test_a_message_that_its_owner_has_to_read(fields: dict[bytes, bytes]) -> None:
    """It was not marked, or for another hold, or it is damaged."""
    assert read_marked((b"7-0", fields), "one:3") is None


def test_entries_of_the_log_as_they_are_stored() -> None:
    """Up to some bytes of frames, and one always."""
    own = b'{"payload":"","context":"a"}'
    stored = [
        (b"7-0", {b"r": own, b"t": b"shop.orders"}),
        (b"8-0", {b"w": b"frame", b"t": b"inbox/4", b"l": b"b"}),
        (b"9-0", {b"f": b"frame", b"l": b"c\t2", b"p": b"2", b"m": b"one:3 caller:1 7"}),
    ]
    expected = [
        Entry(7, "a", own, -1, FollowUp.RESULT, "shop.orders"),
        Entry(8, "b", b"frame", -1, FollowUp.WAITER, inbox="inbox/4"),
        Entry(9, "c\t2", b"frame", 2, FollowUp.MORE, PRODUCE),
    ]
    size = len(own) + 2 * len(b"frame")
    assert read_stored(stored, size) == expected
    assert read_stored(stored, size - 1) == expected[:2]
    assert read_stored(stored, 0) == expected[:1]
    assert read_stored([], size) == []


@pytest.mark.parametrize(
    "damaged",
    [
        (b"8-3", {b"q": b'{"context":"c"}'}),
        (b"8-0", {b"q": b"no frame"}),
        (b"8-0", {b"q": b"frame", b"l": b"\xff"}),
        (b"8-0", {b"q": b"frame", b"l": b"c", b"p": b"x"}),
        (b"8-0", {b"q": b"frame", b"l": b"c", b"p": b"-2"}),
    ],
)
def test_an_entry_that_is_read_by_a_script(damaged: StoredEntry) -> None:
    """Then all of them are: it tells what is wrong."""
    assert read_stored([(b"7-0", {b"q": b'{"context":"c"}'}), damaged], 1000) == []
