"""Faults of the links to Pulsar and to the lanes' Redis: cut, half-open, late, slow, mixed up."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from tests.faults.checker import Promise
from tests.faults.registry import Setup, fault
from tests.faults.trial import Trial

#: The first byte of a text frame, which is a receipt.
_TEXT = 0x81


@fault(
    "link-cut",
    "the link to Pulsar is reset after 1 to 4,096 more bytes, of frames or of receipts",
    strikes=8,
    lasts=0.5,
)
def _cut(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.cut_after(draw.randint(1, 4096), answers=draw.random() < 0.5)
    yield


@fault(
    "link-half-open",
    "the link to Pulsar forwards nothing, and no end",
    strikes=2,
    lasts=6.0,
    setup=Setup(conf={"stargate_ping_timeout": 2.0}),
)
def _half_open(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.half_open = True
    yield
    trial.link.half_open = False
    trial.link.cut()


@fault("link-refused", "the link to Pulsar refuses connections", lasts=3.0)
def _refused(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.refuse()
    yield
    trial.link.accept()


@fault("link-late", "what Pulsar gets and says is 0.8 s late", strikes=2, lasts=5.0)
def _late(trial: Trial, draw: random.Random) -> Iterator[None]:
    before, trial.link.latency = trial.link.latency, 0.8
    yield
    trial.link.latency = before


@fault("link-slow", "the link to Pulsar carries one byte at a time", strikes=2, lasts=5.0)
def _slow(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.slices = 1, 0.002
    yield
    trial.link.slices = None


@fault(
    "receipts-reordered",
    "receipts come in another order for a while",
    lasts=3.0,
    promise=Promise(any_copies=True),
)
def _reordered(trial: Trial, draw: random.Random) -> Iterator[None]:
    def shuffle(frames: list[bytes]) -> list[bytes]:
        receipts = [each for each in frames if each[0] == _TEXT]
        draw.shuffle(receipts)
        return [receipts.pop() if each[0] == _TEXT else each for each in frames]

    trial.link.frames = shuffle
    yield
    trial.link.frames = None


@fault(
    "receipts-swallowed",
    "one receipt in thirty is lost for a while",
    lasts=3.0,
    promise=Promise(any_copies=True),
    setup=Setup(conf={"stargate_receipt_timeout": 3.0}),
)
def _swallowed(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.frames = lambda frames: [
        each for each in frames if each[0] != _TEXT or draw.random() > 1 / 30
    ]
    yield
    trial.link.frames = None


@fault(
    "redis-link-cut",
    "the links to the lanes' Redis are reset, one of them within a command or an answer",
    strikes=8,
    lasts=0.5,
)
def _store_cut(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store_link.cut_after(draw.randint(1, 4096), answers=draw.random() < 0.5)
    time.sleep(0.2)
    trial.store_link.cut()
    yield


@fault(
    "redis-answers-lost",
    "the lanes' Redis does what it is told, and its answers are lost with the links",
    strikes=5,
    lasts=0.5,
)
def _store_answers_lost(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store_link.hold(answers_only=True)
    time.sleep(0.3)
    trial.store_link.cut()
    trial.store_link.release()
    yield


@fault(
    "redis-link-half-open",
    "the links to the lanes' Redis forward nothing, and no end",
    strikes=2,
    lasts=7.0,
)
def _store_half_open(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store_link.half_open = True
    yield
    trial.store_link.half_open = False
    trial.store_link.cut()


@fault("redis-link-late", "what the lanes' Redis gets and says is 0.2 s late", lasts=4.0)
def _store_late(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store_link.latency = 0.2
    yield
    trial.store_link.latency = 0.0
