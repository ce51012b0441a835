"""Plans: what one seed does, before anything happens."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from tests.simulation.faults import GROUPS, TIMED

__all__ = ["Focus", "Plan"]

#: How likely each fault is at an occasion, where a seed has it.
_RATES: Mapping[str, tuple[float, float]] = {
    "redis": (0.005, 0.05),
    "step": (0.001, 0.01),
    "open": (0.1, 0.5),
    "frame": (0.01, 0.1),
    "poison": (0.005, 0.05),
    "receipt": (0.01, 0.1),
    "close": (0.1, 0.6),
    "effects": (0.02, 0.2),
    "effects thread": (0.02, 0.2),
    "not persistent": (0.1, 0.5),
}
#: The errors of one message alone: those behind it are stored.
_SINGLE = (
    *("error receipt, transient", "error receipt, permanent", "error receipt, no context"),
    "message unreadable",
)
#: What may keep an owner from hearing of such an error, or from acting on it.
_DEAFENING = (
    *("crash at a step", "pause at a step", "crash", "pause", "Redis away", "clock jump"),
    *("command lost", "reply lost", "command late", "command refused"),
    *("cut mid-frame", "cut before the receipt", "link goes silent", "broker restart", "links cut"),
    *("receipt lost", "receipt garbled", "receipt late", "receipt overtaken"),
)


#: What may come long after it was decided.
_SLOW = ("command late", "pause", "pause at a step", "Redis away", "clock jump")


@dataclass(frozen=True, slots=True, kw_only=True)
class Focus:
    """What all seeds of a case have in common; everything else is drawn as usual."""

    #: None where it is drawn.
    effectively_once: bool | None = None
    persistent: bool = True
    #: The faults that may strike at an occasion, and no others.
    rates: Mapping[str, float] = field(default_factory=dict)
    #: Those that strike at a moment, three times each.
    timed: tuple[str, ...] = ()
    #: Whether Redis goes back to an older state, and the workers live on.
    restored: bool = False
    owners_survive: bool = False
    #: Whether callers use contexts again.
    reuses: bool = False


@dataclass(slots=True)
class Plan:
    """One seed's world, its work and its faults. Durations are seconds."""

    seed: int
    effectively_once: bool
    deduplicates: bool
    workers: int
    callers: int
    calls: int
    topics: int
    persistent: bool
    settings: Settings
    #: The scale of what takes time on its way.
    latency: float
    #: After which a silent session is dropped, and a dead connection is found out.
    idle: float
    ping: float
    #: When all faults are healed.
    heal_at: float
    rates: dict[str, float] = field(default_factory=dict)
    #: When each timed fault strikes.
    moments: list[tuple[float, str]] = field(default_factory=list)
    #: How long the callers take for all calls.
    work_for: float = 10.0
    #: After which an empty lane leaves the list of lanes.
    retire_after: float = 3600.0
    #: What callers leave for workers who do not know the topic, as JSON.
    options_left: str = ""
    #: When Redis' data is copied, and when it goes back to the copy; None where it never does.
    restored: tuple[float, float] | None = None
    #: Whether the workers live on while Redis goes back to its copy.
    owners_survive: bool = False
    #: Whether callers use contexts again whose calls have ended.
    reuses: bool = False

    @property
    def reads_large(self) -> bool:
        """Whether all messages count as large ones, which are read without Lua."""
        return self.seed % 2 == 1

    @classmethod
    def draw(cls, seed: int, focus: Focus | None = None) -> Plan:
        """Draw the plan of a seed, of all kinds or of one."""
        rng = random.Random(seed)
        effectively_once = rng.random() < 0.5
        if focus is not None and focus.effectively_once is not None:
            effectively_once = focus.effectively_once
        lanes = rng.choice((1, 1, 2))
        by_partition = effectively_once and lanes > 1 and rng.random() < 0.5
        options = ProducerOptions(
            delivery="effectively_once" if effectively_once else "at_least_once",
            max_in_flight=rng.choice((1, 2, 5, 1000)),
            max_in_flight_bytes=rng.choice((100, 1 << 20)),
            lanes=1 if by_partition else lanes,
            partitions=lanes if by_partition else None,
        )
        settings = Settings(
            url="ws://pulsar.invalid:8080",
            prefix="s",
            options=options,
            lease=rng.choice((3.0, 6.0, 10.0)),
            drain_timeout=rng.choice((0.2, 3.0)),
            idle_timeout=rng.choice((1.0, 5.0, 60.0)),
            receipt_timeout=rng.choice((2.0, 6.0)),
            open_timeout=3.0,
        )
        plan = cls(
            seed=seed,
            effectively_once=effectively_once,
            deduplicates=effectively_once or rng.random() < 0.5,
            workers=rng.choice((1, 2, 2, 3)),
            callers=rng.choice((1, 2)),
            calls=rng.randint(5, 20),
            topics=rng.choice((1, 1, 2)),
            persistent=effectively_once or rng.random() < 0.9,
            settings=settings,
            latency=rng.choice((0.001, 0.02, 0.1)),
            idle=rng.choice((8.0, 20.0)),
            ping=rng.choice((2.0, 5.0)),
            heal_at=rng.uniform(8.0, 25.0),
            work_for=rng.uniform(1.0, 15.0),
            options_left=rng.choice(("", "", '{"max_in_flight": 3}', '{"no such": 1}', "{")),
        )
        if focus is not None:
            plan._follow(focus, rng)
            return plan
        kind = rng.random()
        if kind < 0.03:
            # A lull in the middle, in which lanes are retired.
            plan.retire_after, plan.work_for, plan.heal_at = 12.0, 40.0, 45.0
        elif kind < 0.06:
            plan._restore(rng)
            plan.owners_survive = rng.random() < 0.5
            if rng.random() < 0.5:
                # What is put afterwards may be sent again, too.
                plan.rates = {"receipt lost": 0.2, "cut before the receipt": 0.1}
            return plan
        plan._draw_faults(rng)
        # A second receipt for one message could be that of the next one with its label.
        plan.reuses = rng.random() < 0.3 and "receipt twice" not in plan.rates
        return plan

    def _follow(self, focus: Focus, rng: random.Random) -> None:
        self.persistent = focus.persistent
        self.rates = dict(focus.rates)
        self.moments = sorted(
            (rng.uniform(0.0, self.heal_at), name) for name in focus.timed for _ in range(3)
        )
        self.owners_survive = focus.owners_survive
        self.reuses = focus.reuses
        if self.effectively_once and any(name in self.rates for name in _SINGLE):
            self._wait_when_leaving()
        if focus.restored:
            self._restore(rng)

    def _restore(self, rng: random.Random) -> None:
        begin = rng.uniform(0.0, self.work_for / 2)
        self.restored = begin, begin + rng.uniform(0.1, self.work_for / 2)

    def _draw_faults(self, rng: random.Random) -> None:
        # Some kinds, not all: where everything fails at once, nothing ever gets far.
        share = rng.choice((0.0, 0.1, 0.25, 0.4))
        for group, names in GROUPS.items():
            low, high = _RATES[group]
            for name in names:
                if rng.random() < share:
                    self.rates[name] = low * (high / low) ** rng.random()
        for name in TIMED:
            if rng.random() < share:
                count = rng.randint(1, 3)
                self.moments += [(rng.uniform(0.0, self.heal_at), name) for _ in range(count)]
        if self.effectively_once:
            self._exclude(rng)
        if self.retire_after < self.work_for:
            # The real hour is longer than any of these.
            self._drop(_SLOW)
        self.moments.sort()

    def _wait_when_leaving(self) -> None:
        """An owner that leaves waits until it has heard of all in flight, and told Redis."""
        self.settings = replace(self.settings, drain_timeout=60.0)

    def _exclude(self, rng: random.Random) -> None:
        """Drop faults that cannot be told apart together; docs/simulation.md explains them."""
        out: tuple[str, ...] = _SINGLE
        if rng.random() < 0.3:
            out = _DEAFENING
            self._wait_when_leaving()
        self._drop(out)

    def _drop(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.rates.pop(name, None)
        self.moments = [each for each in self.moments if each[1] not in names]
