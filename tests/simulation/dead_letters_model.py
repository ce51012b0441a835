"""The dead letters of one lane, in plain Python: what `dead_letters.lua` means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.simulation.redis_model import RedisModel

__all__ = ["DeadLetters", "Letter"]

_REPLAYED = re.compile(rb',"replayed":\[(\d+),(\d+)\]\}$')
_SUFFIX = re.compile(rb"\.replay-\d+$")
_HEAD = re.compile(rb"1 (\w) (\d+) (\d+) (\d+) (-?\d+) (\d+)\n([^\n]*)\n(.*)", re.DOTALL)
#: As in the Lua.
_MOST_PRUNED = 200


class Letter(NamedTuple):
    """The head of a dead letter."""

    kind: bytes
    failures: int
    begun: int
    last: int
    number: int
    size: int
    cause: bytes
    outcome: bytes

    def encode(self) -> bytes:
        """Return it as Redis holds it."""
        numbers = b" ".join(b"%d" % each for each in self[1:6])
        return b"1 %s %s\n%s\n%s" % (self.kind, numbers, self.cause, self.outcome)

    @classmethod
    def decode(cls, stored: bytes) -> Letter:
        """Read it."""
        found = _HEAD.fullmatch(stored)
        assert found is not None, stored
        kind, *numbers, cause, outcome = found.groups()
        failures, begun, last, number, size = map(int, numbers)
        return cls(kind, failures, begun, last, number, size, cause, outcome)


class DeadLetters:
    """What the scripts of one lane do with dead letters.

    Arguments:
        redis: holds them.
        keys: the four of them; none if the caller keeps none.
        bounds: the last argument of the script.
        now: epoch ms.
    """

    def __init__(self, redis: RedisModel, keys: Sequence[str], bounds: bytes, now: int) -> None:
        self._redis, self._keys, self._now = redis, keys, now
        self.on = bool(keys)
        self._kept = 0
        if self.on:
            self._max_count, self._max_bytes, self._max_age = map(int, bounds.split())
            self._times = redis.sorted_set(keys[0])
            self._letters, self._bodies = redis.hash(keys[1]), redis.hash(keys[2])
            self._counts = redis.hash(keys[3])

    def __len__(self) -> int:
        return len(self._times) if self.on else 0

    def find(self, letter: bytes) -> Letter | None:
        """Return a letter; None if there is none."""
        stored = self._letters.get(letter)
        return None if stored is None else Letter.decode(stored)

    def body(self, letter: bytes) -> bytes:
        """Return what a replay needs."""
        return self._bodies[letter]

    def count(self, name: bytes, by: int = 1) -> None:
        """Count."""
        self._counts[name] = b"%d" % (int(self._counts.get(name, 0)) + by)
        if by < 0 and int(self._counts[name]) <= 0:
            del self._counts[name]

    def forget(self, letter: bytes) -> bool:
        """Take a letter away; return whether it was there."""
        found = self.find(letter)
        if self._times.pop(letter, None) is None:
            return False
        del self._letters[letter], self._bodies[letter]
        assert found is not None
        self.count(b"bytes", -found.size)
        self.count(found.cause, -1)
        return True

    def keep(self, letter: bytes, head: Letter, body: bytes) -> None:
        """Keep a letter, in the place of one with the same id."""
        if self.forget(letter):
            self.count(b"replaced")
        whole = head._replace(size=len(body))
        self._times[letter] = head.last
        self._letters[letter], self._bodies[letter] = whole.encode(), body
        self.count(b"bytes", len(body))
        self.count(head.cause)
        self._kept += 1

    def bury(
        self, record: bytes, place: int, cause: bytes, outcome: bytes, name: bytes, frame: bytes
    ) -> None:
        """Keep a message that has no receipt."""
        first = int(record.split(b" ", 2)[1])
        if not self.on or first <= 0 or not cause:
            return
        body = record.partition(b"\n")[2]
        letter = self.id_of(name, body)
        if place >= 0:
            letter += b"\t%d" % place
        failures, begun = self.history(letter, body)
        number = first + max(place, 0)
        head = Letter(b"m", failures + 1, begun, self._now, number, 0, cause, outcome)
        self.keep(letter, head, body + b"\n" + frame)
        self.count(b"recorded")

    def give_up(
        self, name: bytes, record: bytes, count: int, outcomes: bytes, cause: bytes
    ) -> None:
        """Keep a context whose effects failed; forget it if its task is tried again."""
        if not self.on:
            return
        first, body = int(record.split(b" ", 2)[1]), record.partition(b"\n")[2]
        letter = self.id_of(name, body)
        if not cause:
            parts = {letter + b"\t%d" % i: first + i for i in range(count if count > 1 else 0)}
            for each, number in (parts | {letter: first}).items():
                found = self.find(each)
                if found is not None and found.number == number:
                    self.forget(each)
                    self.count(b"retried")
            return
        found = self.find(letter)
        if found is not None and found.number == first:
            return
        failures, begun = self.history(letter, body)
        head = Letter(b"e", failures + 1, begun, self._now, first, 0, cause, b"1")
        self.keep(letter, head, record + b"\n" + outcomes.partition(b"\n")[2])
        self.count(b"recorded")

    def confirm(self, *given: bytes) -> int:
        """Take away the letters of messages that are stored after all."""
        taken = 0
        for label, number in zip(given[::2], given[1::2], strict=True):
            for letter in dict.fromkeys((label, _SUFFIX.sub(b"", label))):
                found = self.find(letter) if self.on else None
                if found is not None and found.kind == b"m" and found.number == int(number):
                    self.count(b"confirmed")
                    self.forget(letter)
                    taken += 1
        return taken

    def history(self, letter: bytes, body: bytes) -> tuple[int, int]:
        """Return how often a message failed before, and when first."""
        found = _REPLAYED.search(body)
        if found is not None:
            return int(found[1]), int(found[2])
        before = self.find(letter)
        return (0, self._now) if before is None else (before.failures, before.begun)

    @staticmethod
    def id_of(name: bytes, body: bytes) -> bytes:
        """Return the id of the letter of a context."""
        return _SUFFIX.sub(b"", name) if _REPLAYED.search(body) else name

    def discard(self, *given: bytes) -> list[int]:
        """Take letters away."""
        taken = []
        for letter, last in zip(given[::2], given[1::2], strict=True):
            found = self.find(letter)
            fits = found is not None and found.last == int(last)
            if fits:
                self.count(b"discarded")
                self.forget(letter)
            taken.append(int(fits))
        return taken

    def restore(self, *given: bytes) -> int:
        """Put letters back."""
        restored = 0
        for letter, kind, *numbers, cause, outcome, body in zip(
            *(given[i::9] for i in range(9)), strict=True
        ):
            if letter not in self._times:
                failures, begun, last, number = map(int, numbers)
                head = Letter(kind, failures, begun, last, number, 0, cause, outcome)
                self.keep(letter, head, body)
                self._times[letter] = self._now
                self.count(b"restored")
                restored += 1
        self.prune()
        return restored

    def prune(self) -> None:
        """Let go what is above the bounds."""
        if not self.on or not (self._kept or len(self._times) > self._max_count):
            return
        order = sorted(self._times, key=lambda each: (self._times[each], each))
        old = [each for each in order if self._times[each] <= self._now - self._max_age]
        for each in old[:_MOST_PRUNED]:
            self.forget(each)
        if old:
            self.count(b"outdated", len(old[:_MOST_PRUNED]))
        rest, evicted = [each for each in order if each in self._times], 0
        while evicted < min(_MOST_PRUNED + self._kept, len(rest)) and (
            len(self._times) > self._max_count
            or int(self._counts.get(b"bytes", 0)) > self._max_bytes
        ):
            self.forget(rest[evicted])
            evicted += 1
        if evicted:
            self.count(b"evicted", evicted)
        for key in self._keys if self._kept else ():
            self._redis.pexpire(key, self._max_age)
