"""The ledger: what was attempted, accepted, settled and told, noted where it happens.

It is written by the simulated servers, callers and effects, and knows nothing of the package's own
books.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from celery_stargate.model.frame import text_frame

__all__ = ["Context", "Ledger", "Told", "name_in", "name_of"]

_decode = msgspec.json.Decoder().decode


class _Sent(msgspec.Struct):
    payload: bytes


_sent = msgspec.json.Decoder(_Sent)


def name_of(record: bytes) -> str:
    """Return by what the ledger knows the call of a record; its context may be used again."""
    return str(_decode(record.partition(b"\n")[2])["incarnation"])


def name_in(frame: bytes) -> str:
    """Return by what the ledger knows the call of a frame."""
    return _sent.decode(text_frame(frame)).payload.decode().partition("\t")[0]


@dataclass(slots=True)
class Told:
    """One run of a context's effects."""

    at: float
    by: str
    #: The task id of the callback, made of context and outcome.
    callback: str
    #: The outcome of each message, as the callback's argument has it.
    outcomes: tuple[Any, ...]


@dataclass(slots=True)
class Context:
    """One call."""

    name: str
    #: The id that Pulsar echoes; another call may have used it before.
    context: str
    lane: str
    #: The topic that its messages go to; None for a context without a message.
    topic: str | None
    #: What its messages are known by.
    labels: list[str]
    #: Seconds until its deadline.
    timeout: float
    #: When `put` returned to the caller; None where it did not.
    accepted: float | None = None
    #: When Redis recorded it, and its deadline by Redis' clock, in ms; None where it did not.
    recorded: float | None = None
    deadline_ms: int = 0
    #: The lane's number of its first message, and in which of its lives: each begins with 1.
    first: int = 0
    life: int = 0
    #: Whether Redis forgot it, or forgot what became of it: nothing is promised then.
    forgotten: bool = False
    #: What Redis was told of its outcome, and when.
    settled: str | None = None
    settled_at: float = 0.0
    #: By Redis' clock.
    settled_ms: int = 0
    finished: float | None = None
    #: Whether it was finished by its receipt: nothing was to follow.
    completed: bool = False
    #: Whether its effects have several stages, and whether its `on_ack` cannot be published.
    staged: bool = False
    broken: bool = False
    told: list[Told] = field(default_factory=list)


class Ledger:
    """All that is known of one run."""

    def __init__(self) -> None:
        self.contexts: dict[str, Context] = {}
        #: Labels that Pulsar answered with an error, of one message alone.
        self.refused: set[str] = set()
        #: Topics with a reply that could not be read: its message, and whether it was an error, are
        #: unknown.
        self.unreadable: set[str] = set()
        #: What no fault explains, found while it ran.
        self.wrong: list[str] = []
        #: Contexts that Redis recorded and did not finish.
        self.open: set[str] = set()
        self._numbers: dict[tuple[str, int, int], str] = {}
        self._lives: Counter[str] = Counter()
        #: When each put and each completion was done first, as far as Redis knows; by its token.
        self._done: dict[str, float] = {}
        #: The calls, by what the scripts know them by: lane, context and first number.
        self._calls: dict[tuple[str, str, int], Context] = {}

    def attempted(self, context: Context) -> None:
        """A caller begins a call."""
        self.contexts[context.name] = context

    def watch_script(
        self, now: float, now_ms: int, lane: str, name: str, args: Sequence[Any], reply: Any
    ) -> None:
        """Redis ran a lane's script."""
        if name in {"put", "put_many"}:
            if reply[0] == b"new":
                # The simulated callers put one at a time.
                body = args[2] if name == "put" else args[6]
                repeated = self._is_repeat(args[0], now)
                self._recorded(now, now_ms, lane, body, reply[1], repeated=repeated)
        elif name == "complete":
            count, rows, calls = args[2:5]
            given = zip(args[5 : 5 + count], args[5 + count : 5 + 2 * count], strict=True)
            names = [self._calls[lane, context, number].name for context, number in given]
            quiet = names[: count - rows - calls]
            self._completed(now, now_ms, args[1], names, quiet, late=reply[2:])
        elif name == "settle":
            for answer in reply[1:]:
                if answer[0] == b"due":
                    self._settled(now, now_ms, name_of(answer[1]), answer[2])
        elif name == "expire":
            for record, outcomes in zip(reply[1::3], reply[2::3], strict=True):
                self._settled(now, now_ms, name_of(record), outcomes)
        elif name == "finish":
            for each, number in zip(args[::2], args[1::2], strict=True):
                context = self._calls[lane, each, number]
                if context.settled is None and not context.forgotten:
                    self.wrong.append(f"{context.name} was finished and never settled")
                if context.finished is None or context.forgotten:
                    context.finished = now
                    self.open.discard(context.name)
        elif name == "retire" and reply:
            self._lives[lane] += 1

    def _is_repeat(self, token: str, now: float) -> bool:
        """Whether Redis knows a call; then the answer was lost, and is given again."""
        known = token in self._done
        self._done.setdefault(token, now)
        return known

    def _recorded(
        self, now: float, now_ms: int, lane: str, body: bytes, first: int, *, repeated: bool
    ) -> None:
        context = self.contexts[name_of(b"\n" + body)]
        self._calls[lane, context.context, first] = context
        if context.recorded is not None and context.forgotten:
            if not repeated:
                # Its caller repeats what Redis forgot.
                context.settled = context.finished = None
                self.open.add(context.name)
            return
        if context.recorded is not None:
            if context.first != first:
                self.wrong.append(f"P6: {context.name} is recorded twice")
            return
        context.recorded, context.first = now, first
        context.life = self._lives[context.lane]
        context.deadline_ms = now_ms + round(context.timeout * 1000)
        self.open.add(context.name)
        for place, label in enumerate(context.labels if first > 0 else ()):
            other = self._numbers.setdefault((context.lane, context.life, first + place), label)
            if other != label and not self.contexts[other.partition("\t")[0]].forgotten:
                self.wrong.append(f"P5: {label!r} and {other!r} have one number")

    def _completed(
        self,
        now: float,
        now_ms: int,
        token: str,
        names: Sequence[str],
        quiet: Sequence[str],
        *,
        late: Sequence[int],
    ) -> None:
        if self._is_repeat(token, now):
            return
        contexts = [self.contexts[each] for each in names]
        settled = [place for place, each in enumerate(contexts, 1) if each.settled is not None]
        if settled != list(late) and not any(each.forgotten for each in contexts):
            self.wrong.append(f"P3: of {names} {late} are late, and {settled} were settled")
        for place, context in enumerate(contexts, 1):
            if place in late or place in settled:
                continue
            context.settled, context.settled_at, context.settled_ms = "receipt", now, now_ms
            context.finished, context.completed = now, context.name in quiet
            self.open.discard(context.name)

    def _settled(self, now: float, now_ms: int, name: str, outcomes: bytes) -> None:
        context, said = self.contexts[name], outcomes.decode()
        if context.settled is None:
            context.settled, context.settled_at, context.settled_ms = said, now, now_ms
        elif context.settled != said and not context.forgotten:
            self.wrong.append(f"P3: {name} is settled twice: {context.settled}, then {said}")

    def restored(self, copied_at: float, there: Callable[[Context], bool]) -> None:
        """Redis went back to what it held at a moment.

        Arguments:
            there: whether it holds a context now.
        """
        for context in self.contexts.values():
            before = context.finished is not None and context.finished < copied_at
            if context.recorded is None or before:
                continue
            context.forgotten, context.completed = True, False
            context.settled = context.finished = None
            self.open.discard(context.name)
            if there(context):
                self.open.add(context.name)
        # A repeat of a call that Redis forgot does it again.
        self._done = {token: at for token, at in self._done.items() if at < copied_at}

    def notify(self, name: str, told: Told) -> None:
        """The effects of a context were done."""
        self.contexts[name].told.append(told)
