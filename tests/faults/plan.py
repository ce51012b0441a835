"""What a run is to be, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.checker import Promise, Sets
from tests.faults.registry import ONCE, Kind

__all__ = ["Plan", "Result", "promise_of"]

#: The messages of a run of the usual length, in which a kind strikes as often as it says.
_USUAL = 5000
#: What a line about a run says, where it is not 0.
_TOLD = (
    *("lost", "unexpected", "duplicated", "recovered", "out_of_order", "refused", "unknown"),
    *("refused_found", "open", "late", "late_waits", "both_outcomes", "callbacks_missing"),
    *("callbacks_other_id", "callbacks_repeated", "deduplicated"),
)


@dataclass(frozen=True)
class Plan:
    """What a run is to be.

    Args:
        kind: what strikes.
        seed: of what is random.
        messages: how many calls are made.
        in_flight: how many messages are to be in flight when it strikes.
        size: in place of the kind's own.
        strikes: how often it strikes, in place of the kind's own number, where it may differ.
    """

    kind: Kind
    seed: int = 1
    messages: int = _USUAL
    in_flight: int = 500
    size: int | None = None
    strikes: int | None = None

    @property
    def delivery(self) -> str:
        """With which `stargate_delivery`."""
        return self.kind.delivery(self.seed)

    @property
    def strike_count(self) -> int:
        """How often it strikes: more often in a longer run."""
        if not self.kind.repeats:
            return self.kind.strikes
        return self.strikes or self.kind.strikes * max(1, self.messages // _USUAL)


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    plan: Plan
    sets: Sets
    broken: tuple[str, ...]
    ledger: Path
    seconds: float
    #: Where processes and servers wrote, if the run was not good.
    logs: Path | None = None

    @property
    def good(self) -> bool:
        """Whether every promise held; of a control, whether its fault was found."""
        wanted = self.plan.kind.control
        if not wanted:
            return not self.broken
        return any(self.sets.counts()[name] for name in wanted)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {
            "kind": self.plan.kind.name,
            "seed": self.plan.seed,
            "delivery": self.plan.delivery,
            "messages": self.plan.messages,
            "good": self.good,
            "broken": list(self.broken),
            "seconds": round(self.seconds, 1),
            "ledger": str(self.ledger),
            "logs": None if self.logs is None else str(self.logs),
            **self.sets.counts(),
        }

    def __str__(self) -> str:
        counts = self.sets.counts()
        told = ", ".join(f"{name} {counts[name]}" for name in _TOLD if counts[name])
        how = "ok" if self.good else "BROKEN"
        line = (
            f"{how} {self.plan.kind.name} seed {self.plan.seed} ({self.plan.delivery}): "
            f"{counts['accepted']} accepted, {counts['found']} found, in flight "
            f"{counts['strikes']}, longest wait {counts['longest_wait']} s of {counts['waits']}; "
            f"{told or 'nothing else'}; {self.seconds:.0f} s"
        )
        return "\n".join([line, *(f"    {each}" for each in self.broken)])


def promise_of(plan: Plan, sets: Sets) -> Promise:
    """Return the promise of a plan's kind, with the bound on copies if it has none of its own."""
    promise = plan.kind.promise
    if promise.duplicates is not None:
        return promise
    if plan.delivery == ONCE:
        return replace(promise, duplicates=0)
    if promise.any_copies:
        return promise
    return replace(promise, duplicates=sum(sets.strikes))
