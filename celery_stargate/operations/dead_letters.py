"""Ask about dead letters, send them again, and take them away: by bounded steps, each atomic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from celery_stargate.calls.runtime import Runtime
from celery_stargate.lanes.dead_letters import DeadLetterWriter
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.scripts import Argument, script_on
from celery_stargate.model.dead_letters import DeadLetterBounds, DeadLetterRules
from celery_stargate.model.options import ProducerOptions
from celery_stargate.operations.audit import Audit
from celery_stargate.operations.dead_records import (
    EFFECTS,
    Letter,
    ids_meant,
    make_replay,
    read_letter,
    record_of,
    shown_id,
)
from celery_stargate.operations.dead_views import (
    DeadLetterChange,
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterTotals,
    DeadLetterView,
    DeadResult,
)
from celery_stargate.operations.reading import STEP, LaneReader, batches, reader_of
from celery_stargate.operations.records import task_names

__all__ = ["DeadLetters", "check_archived", "dead_letters_of", "receipt_tasks"]

#: Dead letters, as they are stored or as :meth:`DeadLetters.find` returns them.
_Letters: TypeAlias = Iterable[Letter | DeadLetterView]

#: How many letters, and bytes of them, one script moves at most: it must not hold Redis for long.
#: 25 took it up to 6 ms on a busy machine, and 10 take 2 ms.
_COUNT, _BYTES = 10, 1 << 18
_EVERYTHING = DeadLetterFilter()

_WORDS = {
    b"done": DeadResult.DONE,
    b"gone": DeadResult.MISSING,
    b"full": DeadResult.FULL,
    b"known": DeadResult.KNOWN,
}


class DeadLetters:
    """The dead letters of one prefix.

    Every method raises what redis-py raises when Redis is unavailable. An action that is repeated
    changes nothing more.

    It has more methods than a class should, by one: each command has one, and so has each step.

    Arguments:
        reader: reads the lanes.
        outbox: the lanes, as callers use them.
        prefix: what all keys begin with.
        rules: the bounds of dead letters.
        options: returns the options of a topic, by its full name.
        by: who acts, where that is not who runs this process.
    """

    def __init__(
        self,
        reader: LaneReader,
        outbox: Outbox,
        prefix: str,
        rules: DeadLetterRules,
        options: Callable[[str], ProducerOptions],
        by: str | None = None,
    ) -> None:
        self._reader = reader
        self._outbox = outbox
        self._prefix = prefix
        # What is there can be read and replayed where no more are kept.
        self._rules = DeadLetterRules(
            bounds=rules.bounds or DeadLetterBounds(), lane_count=rules.lane_count
        )
        self._options = options
        self._audit = Audit(reader.redis, reader.registry, by)

    def find(self, where: DeadLetterFilter = _EVERYTHING) -> Iterator[DeadLetterView]:
        """Return dead letters lane by lane, the earliest failure first."""
        now = self._reader.now()
        return (each.view(now) for each in self.letters(where))

    def show(self, name: str) -> list[DeadLetterDetail]:
        """Return the dead letters of one id, with all that is known of them but the payload.

        Two topics may have one of the same id.
        """
        now = self._reader.now()
        return [
            each.detail(now, _bodies(self._reader, each.lane, [each])[0])
            for each in self.named([name])
        ]

    def totals(self, topic: str | None = None) -> DeadLetterTotals:
        """Return how many there are, by topic and cause.

        Arguments:
            topic: only those of this topic, by its full name.
        """
        counts: Counter[str] = Counter()
        groups: Counter[tuple[str, str, str]] = Counter()
        for part in batches(self._lanes(topic), STEP):
            with self._reader.redis.pipeline(transaction=False) as pipeline:
                for lane in part:
                    pipeline.zcard(self._reader.key(lane, "dead"))
                    pipeline.hgetall(self._reader.key(lane, "dead_counts"))
                found = batches(pipeline.execute(), 2)
            for lane, (count, counted) in zip(part, found, strict=True):
                counts["count"] += count
                for name, value in counted.items():
                    error, cause, code = name.decode("utf-8", "replace").partition(" ")
                    if cause:
                        groups[lane.topic, error, code] += int(value) if count else 0
                    else:
                        counts[error] += int(value) if count or error != "bytes" else 0
        return DeadLetterTotals(
            count=counts["count"],
            size_bytes=counts["bytes"],
            evicted=counts["evicted"],
            outdated=counts["outdated"],
            groups=[
                DeadLetterGroup(topic=of, error=error, code=code, count=count)
                for (of, error, code), count in sorted(groups.items())
                if count
            ],
        )

    def letters(self, where: DeadLetterFilter = _EVERYTHING) -> Iterator[Letter]:
        """Return dead letters as they are stored."""
        before = None
        if where.older_than is not None:
            before = (self._reader.now() - where.older_than) * 1000
        for lane in self._lanes(where.topic):
            for page in self._reader.pages(self._reader.key(lane, "dead")):
                names = [name for name, _ in page]
                for each in self._read(lane, names):
                    late = before is not None and each.last > before
                    if not late and where.error in (None, each.error, each.code):
                        yield each

    def named(self, names: Iterable[str], topic: str | None = None) -> list[Letter]:
        """Return the dead letters of some ids, as people write them.

        Arguments:
            topic: only those of this topic, by its full name.
        """
        meant = [each for name in dict.fromkeys(names) for each in ids_meant(name)]
        return [
            letter
            for lane in self._lanes(topic)
            for part in batches(meant, STEP)
            for letter in self._read(lane, [each.encode() for each in part])
        ]

    def replay(self, letters: _Letters) -> Iterator[DeadLetterChange]:
        """Send dead letters again: each leaves in the step that records its new attempt.

        The attempt has a context of its own and reports under the first one. If this process dies,
        what was replayed is gone from the dead letters, and what was not is there.

        Arguments:
            letters: from :meth:`letters` or :meth:`named`; one that failed again since is left. Or
                from :meth:`find`; one that failed again since is meant, too.

        Returns:
            What became of each. A step is done when its first result is asked for.
        """
        return self._act("dead replay", letters, self._replay)

    def discard(self, letters: _Letters) -> Iterator[DeadLetterChange]:
        """Delete dead letters for good."""
        return self._act("dead discard", letters, self._discard)

    def archive(
        self, letters: _Letters, write: Callable[[Sequence[Mapping[str, Any]]], None]
    ) -> Iterator[DeadLetterChange]:
        """Move dead letters out of Redis.

        Arguments:
            letters: as for :meth:`replay`.
            write: gets some of them as JSON types, with their payload in base64; they are deleted
                after it returned, so it must have stored them for good.
        """

        def move(lane: Lane, some: Sequence[Letter]) -> list[DeadResult]:
            bodies = _bodies(self._reader, lane, some)
            there = [(each, body) for each, body in zip(some, bodies, strict=True) if body]
            write([_archived(each, body) for each, body in there])
            return self._discard(lane, some)

        return self._act("dead archive", letters, move)

    def restore(self, archived: Sequence[Mapping[str, Any]]) -> int:
        """Put archived dead letters back; return how many. One that is there stays as it is.

        Raises:
            ValueError: one is not what :meth:`archive` wrote.
        """
        restored = 0
        by_lane: dict[Lane, list[_Archived]] = {}
        for each in archived:
            lane, read = _read_archived(each)
            by_lane.setdefault(lane, []).append(read)
        for lane, letters in by_lane.items():
            # An unknown lane would not be found.
            self._outbox.registry.announce(lane, again=True)
            for some in batches(letters, _COUNT):
                arguments: list[Argument] = []
                for of in some:
                    arguments += (of.id, of.kind, of.failures, of.begun, of.last, of.number)
                    arguments += (of.cause, of.outcome, of.body)
                restored += int(self._run("restore", lane, arguments))
        self._audit.note("dead restore", {"restored": restored, "given": len(archived)})
        return restored

    def _lanes(self, topic: str | None) -> Iterator[Lane]:
        for lane, _ in self._reader.names():
            if lane.has_messages and topic in (None, lane.topic):
                yield lane

    def _read(self, lane: Lane, names: Sequence[bytes]) -> Iterator[Letter]:
        found = self._reader.redis.hmget(self._reader.key(lane, "dead_letters"), names)
        for name, stored in zip(names, found, strict=True):
            letter = read_letter(lane, name, stored)
            if letter is not None:
                yield letter

    def _act(
        self,
        what: str,
        letters: _Letters,
        step: Callable[[Lane, Sequence[Letter]], list[DeadResult]],
    ) -> Iterator[DeadLetterChange]:
        """Do something with letters, step by step, and note it before and after."""
        found = _as_stored(letters, self.named)
        if not found:
            return
        by_lane: dict[Lane, list[Letter]] = {}
        for each in found:
            by_lane.setdefault(each.lane, []).append(each)
        told = {"lanes": [lane.name for lane in by_lane][:10], "letters": len(found)}
        self._audit.note(what, told)
        results: Counter[str] = Counter()
        for lane, of_lane in by_lane.items():
            for some in _steps(of_lane):
                for letter, result in zip(some, step(lane, some), strict=True):
                    results[result.value] += 1
                    yield DeadLetterChange(shown_id(letter.id), result)
        self._audit.note(f"{what} ended", dict(results))

    def _replay(self, lane: Lane, letters: Sequence[Letter]) -> list[DeadResult]:
        results = dict.fromkeys((each.id for each in letters), DeadResult.MISSING)
        messages: list[Argument] = []
        effects: list[Argument] = []
        sent: list[str] = []
        redone: list[str] = []
        for letter, body in zip(letters, _bodies(self._reader, lane, letters), strict=True):
            made = make_replay(letter, body) if body is not None else None
            if made is None:
                if body is not None:
                    results[letter.id] = DeadResult.UNREADABLE
            elif letter.kind == EFFECTS:
                effects += (letter.id, letter.last, made.context)
                redone.append(letter.id)
            else:
                messages += (letter.id, letter.last, *made)
                sent.append(letter.id)
        self._outbox.registry.announce(lane, again=True)
        if sent:
            options = self._options(lane.topic)
            once = options.delivery == "effectively_once"
            numbers: list[Argument] = [
                max(1, round(options.delivery_timeout * 1000)),
                options.max_backlog,
                round(options.once_window * 1000) if once else 0,
            ]
            words = self._run("replay", lane, [*numbers, *messages])
            results |= {name: _WORDS[word] for name, word in zip(sent, words, strict=True)}
        if redone:
            words = self._run("redo", lane, effects)
            results |= {name: _WORDS[word] for name, word in zip(redone, words, strict=True)}
        return [results[each.id] for each in letters]

    def _discard(self, lane: Lane, letters: Sequence[Letter]) -> list[DeadResult]:
        arguments: list[Argument] = []
        for each in letters:
            arguments += (each.id, each.last)
        words = self._run("discard", lane, arguments)
        return [DeadResult.DONE if word else DeadResult.MISSING for word in words]

    def _run(self, name: str, lane: Lane, arguments: Sequence[Argument]) -> Any:
        dead = DeadLetterWriter(self._prefix, lane, "operator", self._rules)
        script = script_on(self._reader.redis, name)
        return script(keys=dead.keys, args=[*arguments, *dead.bounds])


def _as_stored(
    letters: _Letters, named: Callable[[Iterable[str], str], list[Letter]]
) -> list[Letter]:
    """Return dead letters as they are stored.

    Arguments:
        named: returns the dead letters of some ids and a topic.
    """
    found: list[Letter] = []
    views: dict[str, dict[tuple[str, str], str]] = {}
    for each in letters:
        if isinstance(each, DeadLetterView):
            views.setdefault(each.topic, {})[each.lane, each.id] = each.id
        else:
            found.append(each)
    for topic, meant in views.items():
        # Another lane of the topic may have one of the same id.
        found += [
            each
            for each in named(meant.values(), topic)
            if (each.lane.name, shown_id(each.id)) in meant
        ]
    return found


def dead_letters_of(runtime: Runtime, by: str | None = None) -> DeadLetters:
    """Return the dead letters of an app.

    Arguments:
        runtime: of the app.
        by: who acts, where that is not who runs this process.
    """
    settings = runtime.settings
    return DeadLetters(
        reader_of(runtime),
        runtime.outbox,
        settings.keyspace,
        settings.dead_letter_rules,
        lambda topic: settings.resolve(topic)[1],
        by,
    )


def receipt_tasks(
    reader: LaneReader, letters: Iterable[Letter]
) -> Iterator[tuple[Letter, str | None]]:
    """Say which tasks a receipt of each dead letter triggers; it reads their bodies by steps."""
    by_lane: dict[Lane, list[Letter]] = {}
    for each in letters:
        by_lane.setdefault(each.lane, []).append(each)
    for lane, of_lane in by_lane.items():
        for some in _steps(of_lane):
            for letter, body in zip(some, _bodies(reader, lane, some), strict=True):
                record = None if body is None else record_of(letter, body)
                yield letter, task_names(record.on_ack) if record else None


def _bodies(reader: LaneReader, lane: Lane, letters: Sequence[Letter]) -> list[bytes | None]:
    key = reader.key(lane, "dead_bodies")
    found: list[bytes | None] = reader.redis.hmget(key, [each.id for each in letters])
    return found


def _steps(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    """Split letters into steps of bounded count and size; a large one is a step by itself."""
    step: list[Letter] = []
    size = 0
    for each in letters:
        if step and (len(step) >= _COUNT or size + each.size > _BYTES):
            yield step
            step, size = [], 0
        step.append(each)
        size += each.size
    if step:
        yield step


class _Archived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dead letter in an archive; bytes are base64."""

    lane: str
    id: str
    kind: str
    failures: int
    begun: int
    last: int
    number: int
    cause: str
    outcome: bytes
    body: bytes


def _archived(letter: Letter, body: bytes) -> dict[str, Any]:
    whole = _Archived(
        *(letter.lane.name, letter.id, letter.kind, letter.failures, letter.begun, letter.last),
        *(letter.number, f"{letter.error} {letter.code}", letter.outcome, body),
    )
    found: dict[str, Any] = msgspec.to_builtins(whole)
    return found


def check_archived(stored: Any) -> None:
    """Check that it is what :meth:`DeadLetters.restore` takes.

    Raises:
        ValueError: it is not.
    """
    _read_archived(stored)


def _read_archived(stored: Any) -> tuple[Lane, _Archived]:
    try:
        read = msgspec.convert(stored, _Archived)
        return Lane.parse(read.lane), read
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"not an archived dead letter: {error}") from None
