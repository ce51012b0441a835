"""A Redis in plain Python, as far as the lanes use one: their scripts, and a few commands.

It says what a script means, not how its Lua goes about it; `tests/integration/lanes/
test_machine.py` compares it with a real Redis, call by call and key by key.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from celery_stargate.model.frame import fields_in
from tests.simulation.dead_letters_model import DeadLetters

__all__ = ["RedisModel", "Stream"]

#: What redis-py takes for a key or an argument.
Argument = str | bytes | int
_Id = tuple[int, int]
_Hash = dict[bytes, bytes]
_SortedSet = dict[bytes, int]

_HEAD = re.compile(rb"[12] (-?\d+) (\d+) (\d+)\n")
_VERSION = re.compile(rb"(\d+) ")
#: With the keys of dead letters these have them last, and their bounds as the last argument.
_WITH_DEAD_LETTERS = (
    *("settle", "expire", "revoke", "give_up", "retire"),
    *("replay", "redo", "discard", "restore", "confirm"),
)
#: With the keys of the list of lanes, which are their last ones.
_LISTED = ("put", "put_many", "retire")


@dataclass
class Stream:
    """A stream: empty, it remembers its last id."""

    entries: dict[_Id, list[bytes]] = field(default_factory=dict)
    last: _Id = (0, 0)

    def add(self, entry_id: _Id, *fields: bytes) -> None:
        """Append an entry.

        Raises:
            ResponseError: its id is not above the last one.
        """
        if entry_id <= self.last:
            raise ResponseError("The ID specified in XADD is equal or smaller than the last one")
        self.entries[entry_id] = list(fields)
        self.last = entry_id

    def next_id(self, now: int) -> _Id:
        """The id that `*` stands for."""
        return max((now, 0), (self.last[0], self.last[1] + 1))


class RedisModel:
    """Keys, and what is done with them; results are those of redis-py, with bytes.

    An empty hash or sorted set, and a stream that never held anything, are keys that are not there.

    Arguments:
        now: the server's clock, in ms.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        #: Channel and message of what was published.
        self.published: list[tuple[str, bytes]] = []
        self._values: dict[str, Any] = {}
        self._expires: dict[str, int] = {}

    def script(self, name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a lane's script."""
        given = [_encode(each) for each in args]
        listed: Sequence[str] = ()
        if name in _LISTED:
            keys, listed = keys[:-2], keys[-2:]
        dead = keys[11:] if name in _WITH_DEAD_LETTERS else ()
        bounds = given.pop() if dead else b""
        lane = _Lane(self, keys, DeadLetters(self, dead, bounds, self.now()), listed)
        call: Callable[..., Any] = getattr(lane, name)
        return call(*given)

    def registry(self, name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script of the registry."""
        call: Callable[..., Any] = getattr(_Registry(self, keys), name)
        return call(*[_encode(each) for each in args])

    # Commands, as redis-py has them

    def hget(self, key: Argument, name: Argument) -> bytes | None:
        """The value of a hash's field."""
        return self.hash(key).get(_encode(name))

    def hmget(self, key: Argument, *names: Argument) -> list[bytes | None]:
        """The values of some of a hash's fields."""
        return [self.hget(key, name) for name in names]

    def hset(self, key: Argument, name: Argument, value: Argument) -> int:
        """Set a hash's field; whether it is new."""
        fields, name = self.hash(key), _encode(name)
        new = name not in fields
        fields[name] = _encode(value)
        return int(new)

    def hdel(self, key: Argument, name: Argument) -> int:
        """Delete a hash's field; whether it was there."""
        return int(self.hash(key).pop(_encode(name), None) is not None)

    def xlen(self, key: Argument) -> int:
        """How many entries a stream holds."""
        return len(self.stream(key).entries)

    def xadd(
        self,
        key: Argument,
        fields: Mapping[Any, Argument],
        maxlen: int | None = None,
        approximate: bool = True,
    ) -> bytes:
        """Append an entry; its id. An approximate bound leaves a Redis free to keep more."""
        stream = self.stream(key)
        entry_id = stream.next_id(self.now())
        stream.add(entry_id, *(_encode(each) for pair in fields.items() for each in pair))
        if maxlen is not None and not approximate:
            for gone in list(stream.entries)[: max(0, len(stream.entries) - maxlen)]:
                del stream.entries[gone]
        return _show_id(entry_id)

    def xrange(
        self, key: Argument, first: Argument = "-", last: Argument = "+", count: int | None = None
    ) -> list[Any]:
        """Entries, the first of them first: all, or those above an id, ``(ID``."""
        entries = list(self.stream(key).entries.items())
        if first != "-":
            above = _read_id(_encode(first).removeprefix(b"("))
            entries = [each for each in entries if each[0] > above]
        return _show(entries[:count])

    def xrevrange(self, key: Argument, count: int | None = None) -> list[Any]:
        """Entries, the last of them first."""
        return _show(list(reversed(self.stream(key).entries.items()))[:count])

    def xread(self, streams: Mapping[Any, Argument], count: int | None = None) -> list[Any]:
        """Entries above an id, of each stream that has any. It never blocks."""
        found = []
        for key, after in streams.items():
            stream = self.stream(key)
            last = stream.last if _encode(after) == b"$" else _read_id(after)
            entries = [each for each in stream.entries.items() if each[0] > last]
            if entries:
                found.append([_encode(key), _show(entries[:count])])
        return found

    def xtrim(self, key: Argument, minid: Argument, approximate: bool = True) -> int:
        """Throw away what stands before an id; how many those were."""
        entries, first = self.stream(key).entries, _read_id(minid)
        gone = [] if approximate else [entry_id for entry_id in entries if entry_id < first]
        for entry_id in gone:
            del entries[entry_id]
        return len(gone)

    def expire(self, key: Argument, seconds: int) -> bool:
        """Give a key a time to live; whether it is there."""
        return self.pexpire(key, seconds * 1000)

    def pexpire(self, key: Argument, ms: int) -> bool:
        """Give a key a time to live in ms; whether it is there."""
        name = _name(key)
        if not self._holds(name):
            return False
        self._expires[name] = self.now() + ms
        return True

    def pttl(self, key: Argument) -> int:
        """How many ms a key has to live; -1 where it has no end, -2 where it is not there."""
        name = _name(key)
        if not self._holds(name):
            return -2
        return self._expires[name] - self.now() if name in self._expires else -1

    def get(self, key: Argument) -> bytes | None:
        """A key's string."""
        name = _name(key)
        self._drop_if_expired(name)
        value: bytes | None = self._values.get(name)
        return value

    def set(self, key: Argument, value: Argument, px: int = 0) -> None:
        """Set a key's string, and its time to live in ms; 0 for ever."""
        self._values[_name(key)] = _encode(value)
        self._expires.pop(_name(key), None)
        if px:
            self._expires[_name(key)] = self.now() + px

    def exists(self, key: Argument) -> int:
        """Whether a key is there."""
        return int(self._holds(_name(key)))

    def delete(self, *keys: Argument) -> int:
        """Delete keys; how many were there."""
        names = {_name(key) for key in keys}
        there = sum(self._holds(name) for name in names)
        for name in names:
            self._values.pop(name, None)
            self._expires.pop(name, None)
        return there

    # What a simulation does with a whole Redis

    def keys(self) -> dict[str, Any]:
        """Every key that is there, with its value: bytes, a dict, or a `Stream`."""
        return {name: value for name, value in list(self._values.items()) if self._holds(name)}

    def snapshot(self) -> bytes:
        """Return a copy of all data, for `restore`."""
        return pickle.dumps((self._values, self._expires))

    def restore(self, snapshot: bytes) -> None:
        """Go back to the data of a snapshot: what was written since is lost."""
        self._values, self._expires = pickle.loads(snapshot)

    # A key's value, to be read and changed in place

    def hash(self, key: Argument) -> _Hash:
        """A hash; empty where the key is not there."""
        value: _Hash = self._value(key, dict)
        return value

    def sorted_set(self, key: Argument) -> _SortedSet:
        """A sorted set, in no order; empty where the key is not there."""
        value: _SortedSet = self._value(key, dict)
        return value

    def stream(self, key: Argument) -> Stream:
        """A stream; empty where the key is not there."""
        value: Stream = self._value(key, Stream)
        return value

    def _value(self, key: Argument, kind: Callable[[], Any]) -> Any:
        name = _name(key)
        self._drop_if_expired(name)
        try:
            return self._values[name]
        except KeyError:
            value = self._values[name] = kind()
            return value

    def _holds(self, name: str) -> bool:
        self._drop_if_expired(name)
        value = self._values.get(name)
        return value.last > (0, 0) if isinstance(value, Stream) else bool(value)

    def _drop_if_expired(self, name: str) -> None:
        if name in self._expires and self.now() > self._expires[name]:
            del self._expires[name]
            self._values.pop(name, None)


class _Lane:
    """The scripts of one lane; what each means stands on top of its Lua."""

    def __init__(
        self, redis: RedisModel, keys: Sequence[str], dead: DeadLetters, listed: Sequence[str]
    ) -> None:
        self._redis, self._now, self._dead = redis, redis.now(), dead
        self._results, self._listed = keys[11:], listed
        #: Whether a call without numbers is a copy of one that came before.
        self._copy = False
        self._log_key, contexts, deadlines, outcomes, due = keys[:5]
        self._lease_key, meta, tombstones, self._quarantine_key = keys[5:9]
        self._reserved_key, self._answers_key = keys[9:11]
        self._reserved = redis.hash(self._reserved_key)
        self._log = redis.stream(self._log_key)
        self._contexts, self._outcomes = redis.hash(contexts), redis.hash(outcomes)
        self._deadlines, self._due = redis.sorted_set(deadlines), redis.sorted_set(due)
        self._meta, self._tombstones = redis.hash(meta), redis.sorted_set(tombstones)
        self._forgotten_at_retirement = (
            self._log_key,
            deadlines,
            outcomes,
            due,
            keys[5],
            meta,
            keys[9],
        )

    def put(
        self,
        token: bytes,
        context: bytes,
        body: bytes,
        timeout: bytes,
        max_backlog: bytes,
        tombstone: bytes,
        remember: bytes,
        mark: bytes,
        *given: bytes,
    ) -> list[Any]:
        *messages, options, name = given
        if before := self._answered(token):
            return self._begin(before, options, name)
        if context in self._contexts:
            found = _read_head(self._contexts[context])
            first = found[0] if found and context not in self._outcomes else 0
            return self._answer(token, b"known", first, remember)
        if self._buried(context):
            return self._answer(token, b"known", 0, remember)
        labels, frames = messages[::2], messages[1::2]
        here = bool(frames and frames[0])
        if here and max_backlog.isdigit() and int(max_backlog):
            backlog = self._backlog()
            if backlog + len(frames) > int(max_backlog):
                return self._answer(token, b"full", backlog, remember)
        if here:
            first = self._take_numbers(len(frames))
        else:
            first = -self._number("apart") - 1
            self._meta[b"apart"] = b"%d" % -first
        marked = self._mark(first, token) if len(frames) == 1 else ()
        version = max(map(_version, frames), default=1)
        head = b"%d %d %d %d\n" % (version, first, len(frames), int(tombstone))
        self._contexts[context] = head + body
        self._deadlines[context] = self._now + int(timeout)
        for i, (label, frame) in enumerate(zip(labels, frames, strict=True) if here else ()):
            named = (b"l", label) if label else ()
            place = (b"p", b"%d" % i) if len(frames) > 1 else ()
            self._log.add((first + i, 0), *_entry(mark, frame), *named, *place, *marked)
        self._use(max_backlog, len(frames))
        if int(tombstone):
            self._prune()
        return self._begin(self._answer(token, b"new", first, remember), options, name)

    def put_many(
        self,
        token: bytes,
        timeout: bytes,
        max_backlog: bytes,
        tombstone: bytes,
        remember: bytes,
        *given: bytes,
    ) -> list[Any]:
        *puts, options, name = given
        if before := self._answered(token):
            return self._begin(before, options, name)
        quads = list(zip(*(puts[i::4] for i in range(4)), strict=True))
        new = [
            each
            for each in quads
            if each[0] not in self._contexts and not (int(tombstone) and self._buried(each[0]))
        ]
        if max_backlog.isdigit() and int(max_backlog):
            backlog = self._backlog()
            if backlog + len(new) > int(max_backlog):
                return self._answer(token, b"full", backlog, remember)
        if not new:
            return self._answer(token, b"known", 0, remember)
        first = self._take_numbers(len(new))
        marked = self._mark(first, token) if len(new) == 1 else ()
        for number, (context, body, mark, frame) in enumerate(new, first):
            head = b"%d %d 1 %d\n" % (_version(frame), number, int(tombstone))
            self._contexts[context] = head + body
            self._deadlines[context] = self._now + int(timeout)
            self._log.add((number, 0), *_entry(mark, frame), *marked)
        self._use(max_backlog, len(quads))
        if int(tombstone):
            self._prune()
        return self._begin(self._answer(token, b"new", first, remember), options, name)

    def _answered(self, token: bytes) -> list[Any] | None:
        by, _, said = (self._redis.get(self._answers_key) or b"").partition(b"\n")
        if not said:
            return None
        if by == token:
            what, number = said.split()
            return [what, int(number)]
        caller, _, last = by.rpartition(b":")
        this, _, call = token.rpartition(b":")
        if caller == this and last.isdigit() and call.isdigit() and int(call) < int(last):
            return [b"known", 0]
        return None

    def _answer(self, token: bytes, what: bytes, number: int, remember: bytes) -> list[Any]:
        said = token + b"\n%s %d" % (what, number)
        self._redis.set(self._answers_key, said, px=int(remember))
        return [what, number]

    def _take_numbers(self, count: int) -> int:
        first = (self._number("last") or self._log.last[0]) + 1
        self._meta[b"last"] = b"%d" % (first + count - 1)
        return first

    def _begin(self, reply: list[Any], options: bytes, name: bytes) -> list[Any]:
        """Announce a lane that begins, and leave the options for workers."""
        what, number = reply
        if what == b"new" and abs(number) == 1 and name:
            if options:
                self._meta[b"options"] = options
            _Registry(self._redis, self._listed).announce(name)
        return reply

    def _mark(self, number: int, token: bytes) -> tuple[bytes, ...]:
        """Note a message as sent, if the owner expects it; return the fields that say so."""
        lease, _, expected = self._meta.get(b"expected", b"").rpartition(b" ")
        if expected != b"%d" % number or not self._holds(lease):
            return ()
        self._meta[b"sent"] = self._meta[b"tried"] = b"%d" % number
        marked = b"%s %s %d" % (lease, token, self._now)
        self._meta[b"marked"] = marked
        return b"m", marked

    def _is_rolled_back(self, known: bytes, generation: bytes = b"") -> bool:
        number, _, marked = known.partition(b" ")
        sent = self._number("sent")
        stored = self._meta.get(b"marked", b"")
        other = sent == int(number) and marked != stored
        changed = generation and generation != self._meta.get(b"generation")
        return bool(sent < int(number) or other or changed)

    def _is_copy(self, token: bytes, number: bytes) -> bool:
        if number:
            return False
        if self._answered(token):
            return True
        self._answer(token, b"known", 0, b"900000")
        return False

    def _buried(self, context: bytes) -> bool:
        return self._tombstones.get(context, 0) > self._now

    def _prune(self) -> None:
        for context in [each for each, until in self._tombstones.items() if until <= self._now]:
            del self._tombstones[context]

    def _backlog(self) -> int:
        held = {name: list(map(int, each.split())) for name, each in self._reserved.items()}
        for name in [name for name, (_, until) in held.items() if until <= self._now]:
            del held[name], self._reserved[name]
        return len(self._log.entries) + sum(left for left, _ in held.values())

    def _use(self, name: bytes, count: int) -> None:
        if name in self._reserved:
            left, until = map(int, self._reserved.pop(name).split())
            if left > count:
                self._reserved[name] = b"%d %d" % (left - count, until)

    def reserve(self, name: bytes, count: bytes, max_backlog: bytes, ms: bytes) -> list[int]:
        self._reserved.pop(name, None)
        held = self._backlog()
        if not int(count):
            return [1, held]
        if held + int(count) > int(max_backlog):
            return [0, held]
        self._reserved[name] = b"%d %d" % (int(count), self._now + int(ms))
        return [1, held]

    def lease(self, owner: bytes, ttl: bytes, generation: bytes) -> list[Any]:
        held = self._redis.get(self._lease_key) or b""
        by, _, token = held.rpartition(b":")
        if self._redis.pttl(self._lease_key) < 0:
            by = b""
        if by and by != owner:
            return [0, held]
        if by:
            self._redis.pexpire(self._lease_key, int(ttl))
        else:
            token = self._meta[b"fencing_token"] = b"%d" % (self._number("fencing_token") + 1)
            begin = next(iter(self._log.entries), None)
            if b"generation" not in self._meta or begin is None or begin[0] > self._number("tried"):
                self._meta.pop(b"tried", None)
                self._meta[b"generation"], self._meta[b"begun_by"] = generation, token
            self._redis.set(self._lease_key, owner + b":" + token, px=int(ttl))
        return [1, int(token), self._meta.get(b"generation"), self._number("sent")]

    def read(
        self,
        lease: bytes,
        after: bytes,
        count: bytes,
        size: bytes,
        mark: bytes,
        gapless: bytes,
        known: bytes,
        generation: bytes,
    ) -> list[Any]:
        if not self._holds(lease):
            return [1]
        if self._is_rolled_back(known, generation):
            return [2]
        last, left, taken = int(after), int(size), 0
        reply: list[Any] = [0, b""]
        for number, code, label, frame, place, why in list(map(self._message, self._log.entries)):
            if number <= int(after):
                continue
            if (len(reply) - 2) // 5 >= int(count) or left <= 0:
                break
            if why:
                reply += [number, b"", b"", -2, why]
                if why == b"newer":
                    break
                continue
            if (left < len(frame) and taken) or (gapless == b"1" and number != last + 1):
                break
            left -= len(frame)
            taken += 1
            last = number
            reply += [number, label, frame, place, code]
        if mark == b"1" and last > int(after):
            reply[1] = self._note_sent(last)
        return reply

    def note(self, lease: bytes, known: bytes, generation: bytes, *given: bytes) -> list[Any]:
        if not self._holds(lease):
            return [1]
        if self._is_rolled_back(known, generation):
            return [2]
        last = 0
        for number, context, place in zip(given[::3], given[1::3], given[2::3], strict=True):
            last = int(number)
            head = _read_head(self._contexts.get(context, b""))
            names = (context, b"%b\n%b" % (context, place))
            if head is None or head[0] != last - max(int(place), 0):
                return [0]
            if any(name in self._outcomes for name in names):
                return [0]
        return [0, self._note_sent(last)]

    def _note_sent(self, last: int) -> bytes:
        """Note messages up to a number; return the mark of that one, if it is noted already."""
        marked = b""
        if last > self._number("sent"):
            self._meta.pop(b"marked", None)
        elif last == self._number("sent"):
            marked = self._meta.get(b"marked", b"")
        for name in ("sent", "tried"):
            self._meta[name.encode()] = b"%d" % max(last, self._number(name))
        return marked

    def _message(self, entry_id: _Id) -> tuple[int, bytes, bytes, bytes, int, bytes]:
        """Number, code, label, frame, place, and why it may not be sent."""
        number, part = entry_id
        code, frame, *more = self._log.entries[entry_id]
        rest = dict(zip(more[::2], more[1::2], strict=True))
        label, code = rest.get(b"l", b""), code + rest.get(b"t", b"")
        try:
            place = int(rest.get(b"p", -1))
            context = label or json.loads(fields_in(frame))["context"].encode()
        except (ValueError, TypeError, KeyError, AttributeError):
            place, context = -2, b""
        if part or place < -1:
            return number, b"", b"", b"", -1, b"damaged"
        if place >= 0:
            context = context.removesuffix(b"\t%d" % place)
        return number, code, label, frame, place, self._why_not(context, number - max(place, 0))

    def _why_not(self, context: bytes, first: int) -> bytes:
        """Why a message may not be sent, by its record; empty where it may."""
        record = self._contexts.get(context)
        head = _read_head(record or b"")
        if record is None or (head and head[0] != first):
            return b"orphan"
        if head:
            return b""
        version = _VERSION.match(record)
        if version is None or int(version[1]) <= 2:
            return b"damaged"
        return b"newer" if self._deadlines.get(context, 0) > self._now else b"expired"

    def set_aside(self, lease: bytes, *unreadable: bytes) -> list[int]:
        if not self._holds(lease):
            return [1]
        moved, quarantine = 0, self._redis.stream(self._quarantine_key)
        for number, why in zip(unreadable[::2], unreadable[1::2], strict=True):
            for entry_id in [each for each in self._log.entries if each[0] == int(number)]:
                if self._message(entry_id)[-1] != b"newer":
                    told = (b"number", number, b"reason", why)
                    fields = self._log.entries.pop(entry_id)
                    quarantine.add(quarantine.next_id(self._now), *told, *fields)
                    moved += 1
        if moved:
            self._meta[b"set_aside"] = b"%d" % (self._number("set_aside") + moved)
            self._redis.expire(self._quarantine_key, 7 * 86400)
        return [0, moved]

    def settle(self, lease: bytes, token: bytes, grace: bytes, *arguments: bytes) -> list[Any]:
        owns, at = bool(lease) and self._holds(lease), self._now + int(grace)
        given = zip(*(arguments[i::5] for i in range(5)), strict=True)
        self._copy = not lease and bool(arguments) and self._is_copy(token, arguments[1])
        answers = [
            self._settle(context, int(place), json, kind, owns, token, at)
            if self._is_meant(context, number)
            else [b"late"]
            for context, number, place, json, kind in given
        ]
        self._dead.prune()
        return [int(bool(lease) and not owns), *answers]

    def _is_meant(self, context: bytes, number: bytes) -> bool:
        """Whether the context that is there is the one of that first number."""
        head = _read_head(self._contexts.get(context, b""))
        return head is not None and (not number or int(number) == head[0])

    def _settle(
        self,
        context: bytes,
        place: int,
        json: bytes,
        kind: bytes,
        owns: bool,
        token: bytes,
        at: int,
    ) -> list[bytes]:
        record = self._contexts.get(context, b"")
        head = _read_head(record)
        if head is None:
            return [b"late"]
        first, count, _ = head
        kind, _, cause = kind.partition(b"\n")
        if context in self._outcomes:
            by, _, outcomes = self._outcomes[context].partition(b"\n")
            return [b"due", record, outcomes] if by == token else [b"late"]
        if (kind == b"error" and not owns) or (kind == b"foreign" and count):
            return [b"ignored"]
        if self._copy:
            known = 0 <= place < count > 1 and _part(context, place) in self._outcomes
            return [b"part" if known else b"late"]
        if count > 1 and place >= 0:
            if place >= count:
                return [b"late"]
            part, left = _part(context, place), _part(context, "left")
            if part in self._outcomes:
                return [b"part"]
            self._outcomes[part] = json
            self._bury(context, place, cause, json)
            if first > 0:
                self._log.entries.pop((first + place, 0), None)
            missing = int(self._outcomes.get(left, count)) - 1
            self._outcomes[left] = b"%d" % missing
            if missing:
                return [b"part"]
            json = b",".join(self._outcomes[_part(context, i)] for i in range(count))
        else:
            for i in range(count):
                if count == 1 or _part(context, i) not in self._outcomes:
                    self._bury(context, i if count > 1 else -1, cause, json)
        self._make_due(context, first, count, b"[" + json + b"]", token, at)
        return [b"due", record, b"[" + json + b"]"]

    def _bury(self, context: bytes, place: int, cause: bytes, outcome: bytes) -> None:
        """Keep a dead letter of a message."""
        record = self._contexts[context]
        first, count, _ = _read_head(record) or (0, 0, 0)
        if count and first > 0:
            fields = self._log.entries.get((first + max(place, 0), 0), [b"", b""])
            self._dead.bury(record, place, cause, outcome, context, fields[1])

    def complete(
        self, lease: bytes, token: bytes, count: bytes, rows: bytes, calls: bytes, *rest: bytes
    ) -> list[int]:
        # It has no inboxes.
        assert (int(rows), calls) == (len(self._results), b"0")
        contexts, numbers = rest[: int(count)], rest[int(count) : 2 * int(count)]
        told = rest[2 * int(count) :]
        known, generation, expected = told[2 * len(self._results) :] or (b"0", b"", b"")
        fenced = int(not self._holds(lease))
        by, _, answer = self._meta.get(b"completed", b"").rpartition(b" ")
        if by == token:
            late = list(map(int, answer.split(b",") if answer else ()))
            return [fenced, len(late), *late]
        done: dict[bytes, int] = {}
        for place, (each, number) in enumerate(zip(contexts, numbers, strict=True)):
            first, messages, _ = _read_head(self._contexts.get(each, b"")) or (0, 0, 0)
            meant = first > 0 and messages == 1 and self._is_meant(each, number)
            if meant and each not in self._outcomes:
                done.setdefault(each, place)
        for each in done:
            first, _, tombstone = _read_head(self._contexts[each]) or (0, 0, 0)
            self._contexts.pop(each, None)
            self._deadlines.pop(each, None)
            self._log.entries.pop((first, 0), None)
            if tombstone:
                self._tombstones[each] = self._now + tombstone
        results = zip(self._results, told[::2], told[1::2], strict=False)
        for place, (key, value, expires) in enumerate(results, len(contexts) - len(self._results)):
            if done.get(contexts[place]) == place:
                self._redis.set(key, value, 1000 * int(expires))
                self._redis.published.append((key, value))
        self._prune()
        late = [place for place in range(1, len(contexts) + 1) if place - 1 not in done.values()]
        self._meta[b"completed"] = token + b" " + b",".join(b"%d" % place for place in late)
        if expected and not fenced and not self._is_rolled_back(known, generation):
            self._meta[b"expected"] = lease + b" " + expected
        return [fenced, len(late), *late]

    def expire(self, grace: bytes, limit: bytes, wanted: bytes, cause: bytes = b"") -> list[bytes]:
        overdue = [each for each in _sorted(self._deadlines) if self._deadlines[each] <= self._now]
        chosen = [each for each in overdue if each == wanted] if wanted else overdue[: int(limit)]
        reply: list[bytes] = []
        settled = 0
        for context in chosen:
            if settled >= 500:
                break
            record = self._contexts.get(context)
            head = _read_head(record or b"")
            if record is None:
                del self._deadlines[context]
            elif head is None:
                self._deadlines[context] = self._now + 60_000
            else:
                first, count, _ = head
                sent = self._number("sent")
                parts = []
                for i in range(max(count, 1)):
                    known = self._outcomes.get(_part(context, i) if count > 1 else b"")
                    if not known:
                        known = b"1" if count and (first < 0 or first + i <= sent) else b"0"
                        self._bury(context, i if count > 1 else -1, cause, known)
                    parts.append(known)
                outcomes = b"[" + b",".join(parts) + b"]"
                at = self._now + int(grace)
                self._make_due(context, first, count, outcomes, b"deadline", at)
                reply += [context, record, outcomes]
                settled += count
        self._dead.prune()
        return reply

    def revoke(self, token: bytes, grace: bytes, *given: bytes) -> list[Any]:
        at, cause = self._now + int(grace), b""
        if self._dead.on:
            *given, cause = given  # type: ignore[assignment]
        triples = zip(given[::3], given[1::3], given[2::3], strict=True)
        self._copy = bool(given) and self._is_copy(token, given[1])
        answers = [self._revoke(*each, b"ok\n" + cause, token, at) for each in triples]
        self._dead.prune()
        return answers

    def _revoke(
        self, context: bytes, number: bytes, json: bytes, kind: bytes, token: bytes, at: int
    ) -> list[Any]:
        if not self._is_meant(context, number):
            return [b"late"]
        head = _read_head(self._contexts.get(context, b""))
        if head is None or context in self._outcomes:
            return self._settle(context, -1, json, kind, False, token, at)
        first, count, _ = head
        if count and first <= 0:
            return [b"elsewhere", count]
        unsent = range(max(0, self._number("sent") - first + 1), count)
        if count and not unsent:
            return [b"sent"]
        if self._copy:
            return [b"part" if _part(context, "left") in self._outcomes else b"late"]
        if count <= 1:
            return self._settle(context, -1, json, kind, False, token, at)
        answers = [self._settle(context, i, json, kind, False, token, at) for i in unsent]
        return answers[-1]

    def _make_due(
        self, context: bytes, first: int, count: int, outcomes: bytes, token: bytes, at: int
    ) -> None:
        self._outcomes[context] = token + b"\n" + outcomes
        self._due[context] = at
        self._deadlines.pop(context, None)
        self._outcomes.pop(_part(context, "left"), None)
        for i in range(count):
            self._outcomes.pop(_part(context, i), None)
            if first > 0:
                self._log.entries.pop((first + i, 0), None)

    def due(self, lease: bytes, grace: bytes, count: bytes, offset: bytes) -> list[Any]:
        if not self._holds(lease):
            return [1]
        contexts, start = _sorted(self._due), int(offset)
        if start < 0:
            contexts = [each for each in contexts if self._due[each] <= self._now]
        reply: list[Any] = [0]
        for context in contexts[max(start, 0) :][: int(count)]:
            record, outcome = self._contexts.get(context), self._outcomes.get(context)
            if record is None or outcome is None:
                del self._due[context]
                continue
            if start < 0:
                self._due[context] = self._now + int(grace)
            reply += [context, record, outcome.partition(b"\n")[2]]
        return reply

    def finish(self, *arguments: bytes) -> int:
        pairs = zip(arguments[::2], arguments[1::2], strict=True)
        finished = sum(self._finish(context, number) for context, number in pairs)
        self._prune()
        return finished

    def _finish(self, context: bytes, number: bytes) -> bool:
        if not self._is_meant(context, number) or self._due.pop(context, None) is None:
            return False
        head = _read_head(self._contexts.pop(context))
        if head and head[2]:
            self._tombstones[context] = self._now + head[2]
        self._outcomes.pop(context, None)
        return True

    def give_up(self, *given: bytes) -> int:
        finished = 0
        for context, number, cause in zip(given[::3], given[1::3], given[2::3], strict=True):
            record = self._contexts.get(context, b"")
            outcomes = self._outcomes.get(context, b"")
            if self._finish(context, number):
                finished += 1
                count = (_read_head(record) or (0, 0, 0))[1]
                self._dead.give_up(context, record, count, outcomes, cause)
        self._prune()
        self._dead.prune()
        return finished

    def replay(
        self, timeout: bytes, max_backlog: bytes, tombstone: bytes, *given: bytes
    ) -> list[bytes]:
        answers = []
        held = self._backlog() if int(max_backlog) else 0
        for letter, last, context, body, frame in zip(
            *(given[i::5] for i in range(5)), strict=True
        ):
            found = self._dead.find(letter)
            if found is None or found.last != int(last) or found.kind != b"m":
                answers.append(b"gone")
            elif context in self._contexts or self._buried(context):
                answers.append(b"known")
            elif int(max_backlog) and held >= int(max_backlog):
                answers.append(b"full")
            else:
                held += 1
                first = self._take_numbers(1)
                head = b"%d %d 1 %d\n" % (_version(frame), first, int(tombstone))
                self._contexts[context] = head + body
                self._deadlines[context] = self._now + int(timeout)
                self._log.add((first, 0), *_entry(b"f", frame))
                self._dead.forget(letter)
                self._dead.count(b"replayed")
                answers.append(b"done")
        return answers

    def redo(self, *given: bytes) -> list[bytes]:
        answers = []
        for letter, last, context in zip(given[::3], given[1::3], given[2::3], strict=True):
            found = self._dead.find(letter)
            if found is None or found.last != int(last) or found.kind != b"e":
                answers.append(b"gone")
            elif context in self._contexts:
                answers.append(b"known")
            else:
                record, _, outcomes = self._dead.body(letter).rpartition(b"\n")
                self._contexts[context] = record
                self._outcomes[context] = b"redo\n" + outcomes
                self._due[context] = self._now
                self._dead.forget(letter)
                self._dead.count(b"replayed")
                answers.append(b"done")
        return answers

    def discard(self, *given: bytes) -> list[int]:
        return self._dead.discard(*given)

    def restore(self, *given: bytes) -> int:
        return self._dead.restore(*given)

    def confirm(self, *given: bytes) -> int:
        return self._dead.confirm(*given)

    def generation(self, lease: bytes, ended: bytes, begun: bytes) -> list[Any]:
        if not self._holds(lease):
            return [1]
        if not begun:
            self._meta.pop(b"begun_by", None)
        elif ended in (b"", self._meta.get(b"generation")):
            self._meta.pop(b"tried", None)
            self._meta[b"generation"] = begun
            self._meta[b"begun_by"] = lease.rpartition(b":")[2]
        return [0, self._meta.get(b"generation")]

    def tick(self, lease: bytes, ttl: bytes, known: bytes) -> list[int]:
        if not self._holds(lease):
            return [1]
        if self._is_rolled_back(known):
            return [2]
        self._redis.pexpire(self._lease_key, int(ttl))
        left = max(0, min(self._deadlines.values()) - self._now) if self._deadlines else -1
        return [0, len(self._contexts), len(self._log.entries), len(self._due), left]

    def release(self, lease: bytes) -> int:
        return self._redis.delete(self._lease_key) if self._holds(lease) else 0

    def retire(self, lease: bytes, idle: bytes, name: bytes) -> int:
        if not self._holds(lease) or self._contexts or self._log.entries or len(self._dead):
            return 0
        self._prune()
        lanes, now = self._redis.sorted_set(self._listed[0]), self._now / 1000
        if self._tombstones or now - int(idle) < lanes.get(name, 0) < now + 86_400:
            return 0
        lanes.pop(name, None)
        self._redis.delete(*self._forgotten_at_retirement)
        return 1

    def _holds(self, lease: bytes) -> bool:
        return self._redis.get(self._lease_key) == lease

    def _number(self, name: str) -> int:
        return int(self._meta.get(name.encode(), 0))


class _Registry:
    """The scripts of the registry."""

    def __init__(self, redis: RedisModel, keys: Sequence[str]) -> None:
        self._redis, self._keys, self._now = redis, keys, redis.now()
        #: The lanes of an announcement, before which the key meta of the lane may come; or owners.
        self._first = redis.sorted_set(keys[-2])

    def announce(self, lane: bytes, options: bytes | None = None) -> int:
        if options is not None:
            self._redis.hset(self._keys[0], "options", options)
        new = lane not in self._first
        self._first[lane] = self._now // 1000
        if new:
            self._redis.xadd(self._keys[-1], {"lane": lane}, maxlen=1000)
        return int(new)

    def heartbeat(self, worker: bytes, ttl: bytes) -> list[Any]:
        bound = self._now + (max(4 * int(ttl), 300_000) if int(ttl) else 86_400_000)
        if worker:
            for gone in [each for each, until in self._first.items() if until <= self._now]:
                del self._first[gone]
            for gone in [each for each, until in self._first.items() if until > bound]:
                del self._first[gone]
            if int(ttl):
                self._first[worker] = self._now + int(ttl)
            else:
                self._first.pop(worker, None)
        alive = sum(self._now <= until <= bound for until in self._first.values())
        return [alive, *_sorted(self._redis.sorted_set(self._keys[1]))]


def _encode(argument: Argument) -> bytes:
    if isinstance(argument, bytes):
        return argument
    return argument.encode() if isinstance(argument, str) else b"%d" % argument


def _name(key: Argument) -> str:
    return key if isinstance(key, str) else _encode(key).decode()


def _read_id(text: Argument) -> _Id:
    ms, _, sequence = _encode(text).partition(b"-")
    return int(ms), int(sequence or 0)


def _show_id(entry_id: _Id) -> bytes:
    return b"%d-%d" % entry_id


def _show(entries: Sequence[tuple[_Id, list[bytes]]]) -> list[Any]:
    return [
        (_show_id(each), dict(zip(fields[::2], fields[1::2], strict=True)))
        for each, fields in entries
    ]


def _sorted(members: _SortedSet) -> list[bytes]:
    return sorted(members, key=lambda member: (members[member], member))


def _read_head(record: bytes) -> tuple[int, int, int] | None:
    found = _HEAD.match(record)
    if found is None:
        return None
    first, count, tombstone = map(int, found.groups())
    return first, count, tombstone


def _version(frame: bytes) -> int:
    """The version of the record of a message: 2 where its payload is stored as bytes."""
    return 2 if frame[:1].isdigit() else 1


def _entry(mark: bytes, frame: bytes) -> list[bytes]:
    """A message's fields; the name of its task stands behind its mark."""
    return [mark[:1], frame, *((b"t", mark[1:]) if mark[1:] else ())]


def _part(context: bytes, place: int | str) -> bytes:
    return b"%s\n%s" % (context, str(place).encode())
