"""What goes wrong, and when: one generator of random numbers for one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

__all__ = ["GROUPS", "TIMED", "Faults"]

#: The faults that may strike at an occasion, by the occasion.
GROUPS: Mapping[str, tuple[str, ...]] = {
    # One command to Redis.
    "redis": ("command lost", "reply lost", "command late", "command refused"),
    # Before a command, after it was done, at a frame, between two effects.
    "step": ("crash at a step", "pause at a step"),
    # One handshake with Pulsar.
    "open": ("handshake refused", "handshake broken", "handshake hangs"),
    # One frame that reaches Pulsar.
    "frame": (
        "cut mid-frame",
        "cut before the receipt",
        "link goes silent",
        "errors from there on",
        "error receipt, transient",
        "error receipt, permanent",
        "error receipt, no context",
    ),
    # One message, whenever it is sent.
    "poison": ("message too large", "message unreadable", "message breaks its connection"),
    # One receipt on its way.
    "receipt": (
        "receipt lost",
        "receipt twice",
        "receipt garbled",
        "receipt of nobody",
        "receipt late",
        "receipt overtaken",
    ),
    # A socket that its process or Pulsar lets go of.
    "close": ("half-open",),
    # One message to a non-persistent topic.
    "not persistent": ("message dropped",),
    # The effects of one context.
    "effects": ("effects fail",),
    # One round in the thread of a stage of the effects.
    "effects thread": ("effects hang",),
}

#: The faults that strike at a moment.
TIMED: tuple[str, ...] = (
    "crash",
    "pause",
    "stop",
    "caller dies",
    "Redis away",
    "clock jump",
    "broker restart",
    "links cut",
    "topic forbidden",
    "revoked",
)


class Faults:
    """Draws faults by their rates, and counts what struck.

    Arguments:
        random: the seed's generator.
        rates: how likely each fault is, at each of its occasions.
    """

    def __init__(self, random: random.Random, rates: Mapping[str, float]) -> None:
        self.random = random
        self.struck: Counter[str] = Counter()
        #: Whether any may strike at a step: there are many.
        self.at_steps = any(rates.get(name) for name in GROUPS["step"])
        self._draw = random.random
        self._groups = {
            group: [(name, rates[name]) for name in names if rates.get(name)]
            for group, names in GROUPS.items()
        }

    def pick(self, group: str) -> str | None:
        """Return the fault that strikes now, if one does."""
        names = self._groups[group]
        if not names:
            return None
        drawn = self._draw()
        for name, rate in names:
            drawn -= rate
            if drawn < 0:
                self.struck[name] += 1
                return name
        return None

    def heal(self) -> None:
        """Let nothing strike any more."""
        self.at_steps = False
        for names in self._groups.values():
            names.clear()
