"""One lane twice: in a real Redis, and in the model of one. Every call goes to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry_keys import RegistryKeys
from celery_stargate.lanes.scripts import DEAD_PARTS, lane_keys, lane_script
from tests.simulation.dead_letters_model import Letter
from tests.simulation.redis_model import RedisModel

__all__ = ["UNIT", "Pair", "State"]

#: Durations are odd multiples of it and leaps in time even ones: so nothing ever ends within the
#: moments that a test takes. In ms.
UNIT = 1_000_000

#: The producer options that each put leaves for workers.
OPTIONS = '{"max_in_flight": 3}'

_HASHES = ("contexts", "outcomes", "meta")
_SORTED_SETS = ("deadlines", "due", "tombstones", "dead")
#: Hashes without a time in them.
_DEAD_HASHES = ("dead_bodies", "dead_counts")


@dataclass
class State:
    """All that a Redis holds of a lane."""

    #: Number, and the fields, of each message.
    log: list[tuple[int, dict[bytes, bytes]]]
    contexts: dict[bytes, bytes]
    outcomes: dict[bytes, bytes]
    meta: dict[bytes, bytes]
    reserved: dict[bytes, bytes]
    deadlines: dict[bytes, int]
    due: dict[bytes, int]
    tombstones: dict[bytes, int]
    dead: dict[bytes, int]
    dead_bodies: dict[bytes, bytes]
    dead_counts: dict[bytes, bytes]
    dead_letters: dict[bytes, bytes]
    #: The lease, the callers' answers, and results, by key.
    strings: dict[str, bytes]
    #: Each key, and the ms to its end; -1 where it has none.
    ends: dict[str, int]
    #: What the log knows of numbers that it holds no more.
    last_id: bytes
    #: The fields of what was set aside.
    quarantine: list[dict[bytes, bytes]]
    #: When each lane was announced, in epoch s.
    announced: dict[bytes, int]
    #: The fields of the events of lanes.
    events: list[dict[bytes, bytes]]


class Pair:
    """A lane in a real Redis, and its model.

    Arguments:
        client: of the real one.
        prefix: what the keys begin with.
    """

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._lane = Lane("persistent://public/default/pair")
        self._prefix = prefix
        self._now = 0
        self.model = RedisModel(lambda: self._now)
        self.state = self._look()

    @property
    def now(self) -> int:
        """When the last script ran, in epoch ms."""
        return self._now

    def key(self, part: str) -> str:
        """The key of one part of the lane."""
        return self._lane.key(self._prefix, part)

    @property
    def _registry(self) -> RegistryKeys:
        return RegistryKeys(self._prefix, self._lane.bucket(self._prefix))

    def call(
        self,
        name: str,
        *arguments: Any,
        caller: str = "owner",
        results: Sequence[str] = (),
        dead: str = "",
    ) -> Any:
        """Run a script in both; the answers, and what is there afterwards, must be the same.

        Arguments:
            results: the parts of the keys that come after the lane's.
            dead: the bounds of dead letters; empty if none are kept.
        """
        keys = lane_keys(self._prefix, self._lane, caller)
        keys += map(self.key, results)
        if name in {"put", "put_many"}:
            arguments += (OPTIONS, self._lane.name)
        if name == "retire":
            arguments += (self._lane.name,)
        if dead:
            keys += map(self.key, DEAD_PARTS)
            arguments += (dead,)
        if name in {"put", "put_many", "retire"}:
            keys += map(self._registry.key, ("lanes", "events"))
        self._now = began = self._time()
        real = self._client.register_script(lane_script(name))(keys=keys, args=arguments)
        took = self._time() - began
        expected = self.model.script(name, keys, arguments)
        if name == "tick" and expected[0] == 0:
            # It is a time that is left.
            assert abs(real[4] - expected[4]) <= took
            expected[4] = real[4]
        assert real == expected, f"{name}{arguments}"
        self._compare(took)
        return real

    def change(self, part: str, name: bytes, value: bytes | None) -> None:
        """Set a hash's field in both, or take it away."""
        if value is None:
            self._client.hdel(self.key(part), name)
            del self.model.hash(self.key(part))[name]
        else:
            self._client.hset(self.key(part), name, value)
            self.model.hset(self.key(part), name, value)
        self._compare()

    def drop(self, part: str, member: bytes) -> None:
        """Take a member out of a sorted set, in both."""
        self._client.zrem(self.key(part), member)
        del self.model.sorted_set(self.key(part))[member]

    def leap(self, ms: int) -> None:
        """Let time pass in both: what is to come draws nearer, and what has come is over."""
        for part in _SORTED_SETS:
            there: dict[bytes, int] = getattr(self.state, part)
            moved: dict[Any, int] = {each: score - ms for each, score in there.items()}
            if moved:
                self._client.zadd(self.key(part), moved)
                self.model.sorted_set(self.key(part)).update(moved)
        lanes = self._registry.key("lanes")
        for lane, second in self.state.announced.items():
            self._client.zadd(lanes, {lane: second - ms // 1000})
            self.model.sorted_set(lanes)[lane] = second - ms // 1000
        for room, value in self.state.reserved.items():
            count, ends = value.split()
            earlier = b"%s %d" % (count, int(ends) - ms)
            self._client.hset(self.key("reserved"), room, earlier)
            self.model.hset(self.key("reserved"), room, earlier)
        for name, left in self.state.ends.items():
            if left == -1:
                continue
            if left <= ms:
                self._client.delete(name)
                self.model.delete(name)
            else:
                self._client.pexpire(name, left - ms)
                self.model.pexpire(name, left - ms)
        self._compare()

    def forget_scripts(self) -> None:
        """Let the real one forget its scripts, as after a restart."""
        self._client.script_flush()

    def check(self) -> None:
        """Compare, after something was done to the real one alone."""
        self._compare()

    def _time(self) -> int:
        seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def _compare(self, took: int = 0) -> None:
        """Compare all keys; take over the real times of what was written during a call."""
        real = self.state = self._look()
        for part in _SORTED_SETS:
            scores: dict[bytes, int] = getattr(real, part)
            model = self.model.sorted_set(self.key(part))
            assert scores.keys() == model.keys(), part
            for member, score in scores.items():
                assert 0 <= score - model[member] <= took, (part, member)
            model.update(scores)
        reserved = self.model.hash(self.key("reserved"))
        assert real.reserved.keys() == reserved.keys()
        for room, value in real.reserved.items():
            (left, until), (expected, ends) = value.split(), reserved[room].split()
            assert left == expected
            assert 0 <= int(until) - int(ends) <= took
        reserved.update(real.reserved)
        self._take_over_mark(real, took)
        for part in _HASHES:
            assert getattr(real, part) == self.model.hash(self.key(part)), part
        for part in _DEAD_HASHES:
            assert getattr(real, part) == self.model.hash(self.key(part)), part
        letters = self.model.hash(self.key("dead_letters"))
        assert real.dead_letters.keys() == letters.keys()
        for each, stored in real.dead_letters.items():
            found, letter = Letter.decode(stored), Letter.decode(letters[each])
            assert 0 <= found.begun - letter.begun <= took
            assert 0 <= found.last - letter.last <= took
            assert letter._replace(begun=found.begun, last=found.last) == found
        letters.update(real.dead_letters)
        log = self.model.stream(self.key("log"))
        assert real.last_id == b"%d-%d" % log.last
        assert real.log == [
            (number, dict(zip(fields[::2], fields[1::2], strict=True)))
            for (number, _), fields in log.entries.items()
        ]
        quarantine = self.model.stream(self.key("quarantine")).entries.values()
        assert real.quarantine == [
            dict(zip(fields[::2], fields[1::2], strict=True)) for fields in quarantine
        ]
        announced = self.model.sorted_set(self._registry.key("lanes"))
        assert real.announced.keys() == announced.keys()
        for each, second in real.announced.items():
            assert 0 <= second - announced[each] <= 1 + took // 1000
        announced.update(real.announced)
        events = self.model.stream(self._registry.key("events")).entries.values()
        assert real.events == [
            dict(zip(fields[::2], fields[1::2], strict=True)) for fields in events
        ]
        there = self.model.keys()
        assert real.ends.keys() == there.keys()
        assert all(value == there[name] for name, value in real.strings.items())
        for key, ms in real.ends.items():
            assert abs(ms - self.model.pttl(key)) < UNIT // 2, key

    def _take_over_mark(self, real: State, took: int) -> None:
        """Take over the time at which a put marked its message."""
        meta = self.model.hash(self.key("meta"))
        stored, expected = real.meta.get(b"marked", b""), meta.get(b"marked", b"")
        (by, _, ms), (own, _, began) = stored.rpartition(b" "), expected.rpartition(b" ")
        if by and by == own:
            assert 0 <= int(ms) - int(began) <= took
            meta[b"marked"] = stored
            for fields in self.model.stream(self.key("log")).entries.values():
                fields[:] = [stored if each == expected else each for each in fields]

    def _is_string(self, name: str) -> bool:
        return name == self.key("lease") or ":answers:" in name or ":result:" in name

    def _look(self) -> State:
        found: Any = self._client.keys(f"{self._prefix}:*")
        names = [name.decode() for name in found]
        strings = [name for name in names if self._is_string(name)]
        with self._client.pipeline(transaction=False) as pipeline:
            for part in _HASHES:
                pipeline.hgetall(self.key(part))
            for part in _DEAD_HASHES:
                pipeline.hgetall(self.key(part))
            pipeline.hgetall(self.key("dead_letters"))
            pipeline.hgetall(self.key("reserved"))
            for part in _SORTED_SETS:
                pipeline.zrange(self.key(part), 0, -1, withscores=True)
            pipeline.xrange(self.key("log"))
            pipeline.xrange(self.key("quarantine"))
            pipeline.zrange(self._registry.key("lanes"), 0, -1, withscores=True)
            pipeline.xrange(self._registry.key("events"))
            for name in names:
                pipeline.pttl(name)
            for name in strings:
                pipeline.get(name)
            if self.key("log") in names:
                pipeline.xinfo_stream(self.key("log"))
            found = iter(pipeline.execute())
        names_of_hashes = (*_HASHES, *_DEAD_HASHES, "dead_letters")
        hashes: dict[str, Any] = {part: next(found) for part in names_of_hashes}
        reserved = next(found)
        sorted_sets: dict[str, Any] = {
            part: {each: int(score) for each, score in next(found)} for part in _SORTED_SETS
        }
        log = [(int(entry.partition(b"-")[0]), fields) for entry, fields in next(found)]
        quarantine = [fields for _, fields in next(found)]
        announced = {each: int(second) for each, second in next(found)}
        events = [fields for _, fields in next(found)]
        ends = {name: next(found) for name in names}
        values = {name: next(found) for name in strings}
        last_id = next(found, {"last-generated-id": b"0-0"})["last-generated-id"]
        return State(
            **hashes,
            **sorted_sets,
            reserved=reserved,
            log=log,
            ends=ends,
            strings=values,
            last_id=last_id,
            quarantine=quarantine,
            announced=announced,
            events=events,
        )
