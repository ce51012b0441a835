"""What a message costs in the pure core, counted: calls and blocks do not depend on the machine.

Each bound is about 15 % above what was counted on Python 3.11, where comprehensions are calls; a
change that passes one is a change of what every message costs, and says so by changing the bound.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest

from celery_stargate import Message, Receipt
from celery_stargate.calls.prepare import Preparation
from celery_stargate.effects.successes import text_of
from celery_stargate.lanes.record import Record, encode_record
from celery_stargate.model.entry import Entry
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.judge import judge
from celery_stargate.pulsar.replies import decode_reply
from celery_stargate.pulsar.window import Window
from tests.unit.helpers import TOPIC

CONTEXT = "7f1e7d52-8f1c-4a3e-9d55-0b1c2d3e4f50"
PAYLOAD = "0123456789" * 10
REPLY = b'{"result":"ok","messageId":"CAwQADAA","context":"%s","schemaVersion":-1}'
PARSED = Topic.parse(TOPIC)
OPTIONS = ProducerOptions()


def entry(number: int) -> Entry:
    """Return a message of a lane's log."""
    return Entry(number, f"{CONTEXT}-{number}", b"frame")


def calls_of(work: Callable[[], object]) -> tuple[int, int]:
    """Return how many Python functions, and how many C functions, a call of ``work`` calls."""
    work()  # what is made once is made
    counted = {"call": 0, "c_call": 0}

    def count(frame: object, event: str, argument: object) -> None:
        if event in counted:
            counted[event] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    # `work` itself, and the way back.
    return counted["call"] - 1, counted["c_call"] - 1


WINDOW = Window(1000, 1 << 20)
ENTRY = entry(1)
REPLY_OF_ONE = decode_reply(REPLY % CONTEXT.encode())
RESULT = Receipt(context=CONTEXT, topic=TOPIC, ledger_id=12, entry_id=5).to_dict()


def add_and_remove() -> None:
    """Take a message in and out, beside one that stays."""
    WINDOW.add(ENTRY)
    WINDOW.remove(ENTRY.label)


PARTS: list[tuple[str, Callable[[], object], int, int]] = [
    # What, how, and the bounds: Python's calls and C's.
    ("add and remove", add_and_remove, 2, 4),
    ("encode_frame", lambda: encode_frame(Message(payload=PAYLOAD), CONTEXT, 1 << 20), 6, 10),
    ("decode_reply", lambda: decode_reply(REPLY % CONTEXT.encode()), 1, 2),
    ("judge", lambda: judge(REPLY_OF_ONE, ENTRY, PARSED, 0), 17, 18),
    # What the log shows of a success: `saferepr` takes 90 and 159.
    ("text_of", lambda: text_of(RESULT, 64), 2, 4),
    ("prepare", lambda: Preparation(PARSED, OPTIONS).call(PAYLOAD, CONTEXT), 17, 18),
]


@pytest.mark.parametrize(("name", "work", "python", "c"), PARTS, ids=[each[0] for each in PARTS])
def test_calls_of_one_message(name: str, work: Callable[[], object], python: int, c: int) -> None:
    """So many functions, and no more."""
    found = calls_of(work)
    assert found[0] <= python, found
    assert found[1] <= c, found


def test_a_window_costs_the_same_however_full_it_is() -> None:
    """Nothing is looked through: neither calls nor kept blocks grow with what is in flight."""
    few, many = Window(10, 1 << 20), Window(10_000, 1 << 30)
    few.add(entry(1))
    for number in range(1, 5001):
        many.add(entry(number))
    new = entry(9000)

    def through(window: Window) -> Callable[[], object]:
        def work() -> None:
            assert window.add(new)
            assert window.room[0]
            assert window.oldest
            window.remove(new.label)

        return work

    assert calls_of(through(few)) == calls_of(through(many))


def test_what_a_message_in_flight_keeps() -> None:
    """A place in the window, and nothing beside the entry that was read from the lane."""
    entries = [entry(number) for number in range(1, 1001)]
    window = Window(1000, 1 << 20)
    window.add(entries[0])
    gc.collect()
    before = sys.getallocatedblocks()
    for each in entries[1:]:
        window.add(each)
    kept = sys.getallocatedblocks() - before
    # The dict's table is one block, and a few ints; not one for each message.
    assert kept < 100


def test_bytes_of_a_frame_beside_its_payload() -> None:
    """What goes to Pulsar for each message: base64, the context, and the names of the two."""
    for size in (100, 10_000):
        frame = encode_frame(Message(payload="x" * size), CONTEXT, 1 << 20)
        assert len(frame) - -(-size // 3) * 4 <= len('{"payload":"","context":""}') + len(CONTEXT)


def test_bytes_of_a_record() -> None:
    """What Redis holds for a message that somebody waits for, beside what its keys cost."""
    record = Record(CONTEXT, inbox=f"{'0' * 32}/17")
    assert len(encode_record(record)) <= 110
