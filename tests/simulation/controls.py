"""Controls: with one protection switched off, the checker must find something in a few seeds.

This shows that the checker sees violations, and that the simulated world gets to where the
protection is needed. A control replaces functions by name: :func:`replaced` makes sure that each
name exists there and that the replacement runs, so that a control cannot outlive what it controls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any
from unittest import mock

from celery_stargate.delivery import source as source_module
from celery_stargate.delivery.keeper import Keeper
from celery_stargate.delivery.source import LaneSource
from celery_stargate.delivery.suspicion import Suspicion
from celery_stargate.effects.failures import Kind
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.pulsar import judge as judge_module
from celery_stargate.pulsar import session as session_module
from celery_stargate.pulsar.window import Window
from tests.simulation import effects as effects_module
from tests.simulation.cases import CASES
from tests.simulation.plan import Focus
from tests.simulation.redis_model import _Lane

__all__ = ["CONTROLS", "Control", "replaced"]


@dataclass(frozen=True, slots=True)
class Control:
    """One protection.

    Arguments:
        off: returns a context manager in which it is off.
        promise: which promise is broken then, as the checker's texts begin.
        focus: the faults that it protects from.
        seeds: how many seeds to try at most, from 0.
    """

    off: Callable[[], AbstractContextManager[Any]]
    promise: str
    focus: Focus
    seeds: int = 60


@contextmanager
def replaced(target: Any, name: str, new: Callable[..., Any]) -> Iterator[None]:
    """Replace a function of a module or class while the block runs.

    Arguments:
        target: the module or class that looks the name up.
        name: of the function.
        new: is called in its place, with the same arguments.

    Raises:
        KeyError: the target has no such name of its own.
        TypeError: it is called with arguments that the function does not take.
        AssertionError: the block ended and the replacement was never called.
    """
    signature = inspect.signature(vars(target)[name])
    calls = 0

    @wraps(vars(target)[name])
    def counting(*args: Any, **options: Any) -> Any:
        nonlocal calls
        signature.bind(*args, **options)
        calls += 1
        return new(*args, **options)

    with mock.patch.object(target, name, counting):
        yield
    assert calls, f"{target.__name__}.{name} was replaced and never called"


_read = LeasedLane.read
_judge = judge_module.judge


async def _read_on(store: Any, after: int, *args: Any, mark: bool, **options: Any) -> Any:
    """Read only what was never read: nothing is sent again."""
    seen = store.__dict__.setdefault("seen", [0])
    entries = await _read(store, max(after, seen[0]), *args, mark=mark, **options)
    if mark and entries:
        seen[0] = entries[-1].number
    return entries


async def _read_over_gaps(store: Any, *args: Any, gapless: bool = False, **options: Any) -> Any:
    return await _read(store, *args, gapless=False, **options)


async def _read_without_mark(store: Any, *args: Any, mark: bool, **options: Any) -> Any:
    return await _read(store, *args, mark=False, **options)


def _believe(
    reply: Any, entry: Any, topic: Any, sent_before: int, numbered: Any = None, **others: Any
) -> Any:
    """Take every ok for true."""
    if numbered is not None:
        numbered = replace(numbered, tried=2**62)
    return _judge(reply, entry, topic, sent_before, numbered, **others)


async def _nothing(*args: Any, **options: Any) -> Any:
    return []


@contextmanager
def _realigning_off() -> Iterator[None]:
    with (
        replaced(LeasedLane, "read", _read_over_gaps),
        replaced(LaneSource, "_gap_after", _nothing),
        replaced(source_module, "leading_run", lambda entries, after: list(entries)),
    ):
        yield


@contextmanager
def _replay_off() -> Iterator[None]:
    # The look for messages that nobody is about to send would find them, too.
    with (
        replaced(LeasedLane, "read", _read_on),
        replaced(Keeper, "_require_read", lambda keeper, tick: None),
    ):
        yield


_lease = vars(_Lane)["lease"]


def _one_generation(lane: Any, owner: bytes, ttl: bytes, generation: bytes) -> Any:
    """Take the lease, and go on under the generation that is there."""
    meta = lane._meta  # noqa: SLF001
    before = {name: meta[name] for name in (b"generation", b"tried") if name in meta}
    reply = _lease(lane, owner, ttl, generation)
    if before:
        meta.update(before)
        meta[b"begun_by"] = meta[b"fencing_token"]
    return [*reply[:2], meta.get(b"generation"), *reply[3:]]


def _by_context_alone(lane: Any, context: bytes, number: bytes) -> bool:
    return context in lane._contexts  # noqa: SLF001


def _repeats_alone(lane: Any, token: bytes) -> list[Any] | None:
    """Know a repeat of the last put, and no copy of an earlier one."""
    stored = lane._redis.get(lane._answers_key) or b""  # noqa: SLF001
    by, _, said = stored.partition(b"\n")
    return [said.split()[0], int(said.split()[1])] if said and by == token else None


@contextmanager
def _late_copies_on() -> Iterator[None]:
    with (
        replaced(_Lane, "_answered", _repeats_alone),
        mock.patch.object(_Lane, "_buried", lambda lane, context: False),
    ):
        yield


_add = vars(Window)["add"]


def _add_at_once(window: Any, entry: Any) -> Any:
    """Do not wait for the receipt of another message with the label: leave the new one out."""
    return entry.label not in window._entries and _put_in(window, entry)  # noqa: SLF001


def _put_in(window: Any, entry: Any) -> Any:
    window._unheard.pop(entry.label, None)  # noqa: SLF001
    return _add(window, entry)


@contextmanager
def _numbers_believed() -> Iterator[None]:
    with (
        replaced(session_module, "judge", _believe),
        # By itself it keeps the numbers apart, too.
        replaced(_Lane, "lease", _one_generation),
    ):
        yield


_wait_for_put = vars(LaneSource)["_wait_for_put"]


def _forget_mark(store: LeasedLane, last: int, marked: str) -> None:
    del marked
    store._known = max(store._known, last)  # noqa: SLF001


async def _wait_to_be_marked(source: Any) -> Any:
    """Wait as if numbers did not count."""
    numbers, source._gapless = source._gapless, False  # noqa: SLF001
    try:
        return await _wait_for_put(source)
    finally:
        source._gapless = numbers  # noqa: SLF001


class _Counting:
    """Another id each time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, context: str, incarnation: str, option: str) -> str:
        self.count += 1
        return f"{option}:{context}:{self.count}"


CONTROLS: Mapping[str, Control] = {
    "replay": Control(
        _replay_off,
        "P2",
        Focus(rates={"cut mid-frame": 0.1}),
    ),
    "realigning": Control(
        _realigning_off,
        "P",
        Focus(effectively_once=True, rates={"cut before the receipt": 0.1}, timed=("revoked",)),
        seeds=200,
    ),
    "generation": Control(
        _numbers_believed,
        "P1",
        Focus(effectively_once=True, restored=True),
    ),
    "a generation for each hold": Control(
        partial(replaced, _Lane, "lease", _one_generation),
        "P1",
        Focus(
            effectively_once=True,
            restored=True,
            rates={"receipt lost": 0.3, "cut before the receipt": 0.2},
        ),
        seeds=400,
    ),
    "the number beside the context": Control(
        partial(replaced, _Lane, "_is_meant", _by_context_alone),
        "P",
        Focus(
            effectively_once=False,
            reuses=True,
            rates={"receipt late": 0.2, "pause at a step": 0.02, "command late": 0.05},
        ),
        seeds=400,
    ),
    "waiting for the receipt of the label": Control(
        partial(replaced, Window, "add", _add_at_once),
        "P",
        Focus(
            effectively_once=False,
            reuses=True,
            rates={"receipt late": 0.3, "error receipt, permanent": 0.3},
        ),
        seeds=400,
    ),
    "copies that come late": Control(
        _late_copies_on,
        "P6",
        Focus(rates={"command late": 0.1}),
        seeds=400,
    ),
    "fencing token check": Control(
        partial(replaced, _Lane, "_holds", lambda lane, lease: True),
        "P",
        Focus(
            effectively_once=False,
            rates={"pause at a step": 0.02, "error receipt, permanent": 0.1},
            timed=("pause", "broker restart"),
        ),
        seeds=200,
    ),
    "a put that announces a lane that begins": Control(
        partial(replaced, _Lane, "_begin", lambda lane, reply, options, name: reply),
        "P2",
        CASES["a lane whose announcement Redis forgot"].focus,
        seeds=400,
    ),
    "due effects": Control(
        partial(replaced, LeasedLane, "due", _nothing),
        "P1",
        Focus(rates={"crash at a step": 0.02}),
    ),
    "deadline": Control(
        partial(replaced, LeasedLane, "expire", _nothing),
        "P2",
        Focus(timed=("broker restart", "caller dies")),
        seeds=200,
    ),
    "the mark of what may have been sent": Control(
        partial(replaced, LeasedLane, "read", _read_without_mark),
        "P3",
        Focus(rates={"receipt lost": 0.3, "receipt late": 0.2}),
        seeds=200,
    ),
    "no mark by a put where numbers count": Control(
        partial(replaced, LaneSource, "_wait_for_put", _wait_to_be_marked),
        "P1",
        Focus(effectively_once=True, restored=True, owners_survive=True),
        seeds=400,
    ),
    "a read that tells of a mark": Control(
        partial(replaced, LeasedLane, "_was_read", _forget_mark),
        "a false alarm",
        Focus(effectively_once=False, rates={"pause at a step": 0.02}),
        seeds=400,
    ),
    "the search for a message that breaks each connection": Control(
        partial(replaced, Suspicion, "broke", lambda *args, **options: None),
        "P2",
        Focus(rates={"message too large": 0.1, "message unreadable": 0.1}),
    ),
    "permanent effects": Control(
        partial(replaced, effects_module, "kind_of", lambda error, backend=None: Kind.PASSING),
        "P2",
        Focus(rates={"effects fail": 0.05}),
    ),
    "callbacks by one id": Control(
        lambda: replaced(effects_module, "callback_id", _Counting()),
        "P4",
        Focus(rates={"crash at a step": 0.02}),
    ),
}
