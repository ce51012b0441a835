"""Where the time of one message goes, and the words on it. No I/O."""

from __future__ import annotations

import msgspec

from .figures import Spread
from .table import spread_text

__all__ = ["Part", "Profile", "Thread", "render_profile"]


class Part(msgspec.Struct, frozen=True):
    """A module's share of a thread's time."""

    name: str
    #: Of one message.
    micros: float


class Thread(msgspec.Struct, frozen=True):
    """A thread, or a server's process, while it works on messages."""

    name: str
    title: str
    #: Microseconds of CPU for each message.
    micros: Spread
    #: What they are spent in, the most first; none for what is not ours to look into.
    parts: tuple[Part, ...] = ()


class Profile(msgspec.Struct, frozen=True):
    """A whole run."""

    date: str
    machine: dict[str, str]
    messages: int
    threads: tuple[Thread, ...]

    def micros(self, name: str) -> float:
        """Return a thread's CPU for each message.

        Raises:
            KeyError: there is no such thread.
        """
        for thread in self.threads:
            if thread.name == name:
                return thread.micros.median
        raise KeyError(name)


def render_profile(found: Profile) -> str:
    """Return the table."""
    lines = ["| | µs of CPU per message | spent in |", "|---|---|---|"]
    for thread in found.threads:
        parts = ", ".join(f"{part.name} {part.micros:.0f}" for part in thread.parts)
        lines.append(f"| {thread.title} | {spread_text(thread.micros, _micros)} | {parts} |")
    machine = ", ".join(found.machine.values())
    words = (
        f"Measured {found.date[:10]} by `python -m benchmarks.profile`: {found.messages:,} "
        "messages a round. A thread's CPU time is that of its own clock. Samples of its stack, one "
        f"each millisecond, divide that time among the modules. Machine: {machine}."
    )
    lines += ["", words]
    return "\n".join(lines) + "\n"


def _micros(value: float) -> str:
    return f"{value:.0f}"
