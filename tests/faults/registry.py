"""The table of fault kinds. One is a generator function: it strikes, yields, and mends."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.checker import Promise

if TYPE_CHECKING:
    from tests.faults.trial import Trial

__all__ = ["AT_LEAST_ONCE", "BOTH", "KINDS", "ONCE", "Kind", "Setup", "fault"]

AT_LEAST_ONCE, ONCE = "at_least_once", "effectively_once"
BOTH = (AT_LEAST_ONCE, ONCE)


@dataclass(frozen=True)
class Setup:
    """What a kind needs around it.

    Args:
        conf: more settings of the app.
        redis: more directives of the Redis that holds the lanes.
        appendonly: whether that Redis keeps an append-only file.
        broker: which Pulsar: `plain`, `tokens`, `tls`, or `no-deduplication`.
        env: more environment of the workers.
        pool: of the workers.
        while_called: strike while calls are being made.
        worker_args: more arguments of the workers.
        lanes, workers: how many there are.
        disk: the size of the disk under the lanes' Redis, such as `128m`; None: the machine's own.
        clock: whether the workers' clock can jump.
        at: when it strikes, as shares of its part of the calls: at random between these.
        sizes: bytes of the payloads, in turn; at least those of the id.
        old_workers, old_callers: how many of them begin with the last release of the package.
        outlasts: messages may wait for SIZE seconds, so that their deadline is later by that.
    """

    conf: Mapping[str, Any] = field(default_factory=dict)
    redis: Mapping[str, str] = field(default_factory=dict)
    appendonly: bool = True
    broker: str = "plain"
    env: Mapping[str, str] = field(default_factory=dict)
    pool: str = "solo"
    while_called: bool = False
    worker_args: tuple[str, ...] = ()
    lanes: int = 4
    workers: int = 2
    disk: str | None = None
    clock: bool = False
    at: tuple[float, float] = (0.5, 0.95)
    sizes: tuple[int, ...] = (0,)
    old_workers: int = 0
    old_callers: int = 0
    outlasts: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: on the command line and in the report.
        does: one sentence: what happens.
        strike: begins the fault when entered, and mends what it broke when left.
        promise: what must hold afterwards.
        lasts: for how many seconds it lasts.
        strikes: how often it strikes in one run of 5,000 messages.
        repeats: whether it may strike more often than that.
        size: how much of it there is, where its sentence speaks of SIZE.
        deliveries: which `stargate_delivery` it runs with; the run's seed chooses.
        setup: what it needs.
        control: the sets of which at least one must not be empty, because a protection is off.
        missing: why this machine cannot run it; None: it can.
    """

    name: str
    does: str
    strike: Callable[[Trial, random.Random], AbstractContextManager[None]]
    promise: Promise = field(default_factory=Promise)
    lasts: float = 1.0
    strikes: int = 3
    repeats: bool = True
    size: int = 0
    deliveries: tuple[str, ...] = BOTH
    setup: Setup = field(default_factory=Setup)
    control: tuple[str, ...] = ()
    missing: Callable[[], str | None] = lambda: None

    def delivery(self, seed: int) -> str:
        """Which delivery a seed runs with."""
        return self.deliveries[seed % len(self.deliveries)]


#: By name, in the order of the report.
KINDS: dict[str, Kind] = {}


def fault(
    name: str, does: str, **options: Any
) -> Callable[[Callable[[Trial, random.Random], Iterator[None]]], Kind]:
    """Put a generator function into the table: what comes before its `yield` strikes.

    Args:
        name, does, options: the attributes of :class:`Kind`.
    """

    def add(function: Callable[[Trial, random.Random], Iterator[None]]) -> Kind:
        if name in KINDS:
            raise ValueError(f"there are two kinds called {name}")
        KINDS[name] = Kind(name, does, contextmanager(function), **options)
        return KINDS[name]

    return add
