"""What a run of ``benchmarks.growth`` found, and the words on it. No I/O."""

from __future__ import annotations

import msgspec

from .figures import Group, Spread
from .table import render_groups_of, spread_text

__all__ = [
    "Growth",
    "Idle",
    "Level",
    "Size",
    "render_costs",
    "render_idle",
    "render_memory",
    "render_sizes",
    "render_window",
]


class Level(msgspec.Struct, frozen=True):
    """A lane that holds so many contexts."""

    pending: int
    #: Microseconds of Redis' own time in the scripts, for each message.
    put: Spread
    read: Spread
    settle: Spread
    finish: Spread
    #: Bytes of Redis for each context, and how many of these are its record and its frame.
    total_bytes: float
    record_bytes: float
    #: The most that a worker's main process held while it drained it, in MiB; None: it failed.
    worker_mib: float | None = None


class Idle(msgspec.Struct, frozen=True):
    """A worker that owns lanes in which nothing happens."""

    lanes: int
    #: Per cent of one core, in each of some seconds.
    percent: Spread
    #: Seconds of a lease.
    lease: float


class Size(msgspec.Struct, frozen=True):
    """Messages of one size, pending in a lane."""

    payload_bytes: int
    #: Bytes of a message's record and its frame, and bytes of Redis' memory for it.
    stored: float
    memory: float
    #: Bytes of Redis' memory for it in a bare log, with a byte of its context, and its deadline;
    #: 0: not measured.
    bare: float = 0.0


class Growth(msgspec.Struct, frozen=True):
    """A whole run."""

    date: str
    machine: dict[str, str]
    levels: tuple[Level, ...]
    idle: Idle | None
    #: Drains of one lane, each with so many messages in flight.
    window: Group | None
    left_out: dict[str, str]
    #: What Redis needs for messages of other sizes.
    sizes: tuple[Size, ...] = ()


def render_costs(found: Growth) -> str:
    """Return what a message costs Redis, by how many are pending."""
    if not found.levels:
        return _left_out(found)
    lines = [
        "| pending | put, µs | read, µs | settle, µs | finish, µs | bytes | beyond record |",
        "|---|---|---|---|---|---|---|",
    ]
    for level in found.levels:
        times = (level.put, level.read, level.settle, level.finish)
        beyond = level.total_bytes - level.record_bytes
        lines.append(
            f"| {level.pending:,} | {' | '.join(spread_text(each, _micros) for each in times)} "
            f"| {level.total_bytes:,.0f} | {beyond:,.0f} |"
        )
    first, last = found.levels[0], found.levels[-1]
    ratios = ", ".join(
        f"{name} {getattr(last, name).median / getattr(first, name).median:.2f}"
        for name in ("put", "read", "settle", "finish")
    )
    words = (
        f"Cost at {last.pending:,} pending divided by the cost at {first.pending:,} (the target is "
        f"at most 1.3): {ratios}."
    )
    lines += ["", words, "", _measured(found)]
    return "\n".join(lines) + "\n"


def render_memory(found: Growth) -> str:
    """Return what a worker holds, by the backlog that it drains."""
    lines = ["| pending at its start | its largest memory, MiB |", "|---|---|"]
    for level in found.levels:
        held = "not measured" if level.worker_mib is None else f"{level.worker_mib:.0f}"
        lines.append(f"| {level.pending:,} | {held} |")
    return "\n".join(lines) + "\n"


def render_sizes(found: Growth) -> str:
    """Return what Redis needs for a message, by the size of its payload."""
    if not found.sizes:
        return _left_out(found)
    lines = [
        "| payload, bytes | as stored | for each byte | memory of Redis | for each byte | bare |",
        "|---|---|---|---|---|---|",
    ]
    for each in found.sizes:
        size = each.payload_bytes
        lines.append(
            f"| {size:,} | {each.stored:,.0f} | {each.stored / size:.2f} "
            f"| {each.memory:,.0f} | {each.memory / size:.2f} | {_bare(each)} |"
        )
    return "\n".join(lines) + "\n"


def _bare(size: Size) -> str:
    return f"{size.bare:,.0f}" if size.bare else "not measured"


def render_idle(found: Growth) -> str:
    """Return what lanes cost in which nothing happens."""
    if found.idle is None:
        return _left_out(found)
    return (
        f"{found.idle.lanes:,} lanes on one worker, leases of {found.idle.lease:g} s: "
        f"{spread_text(found.idle.percent, lambda value: f'{value:.1f} %')} of one core "
        "(the target is under 2 %).\n"
    )


def render_window(found: Growth) -> str:
    """Return the drain's rate, by how many messages may be in flight."""
    return _left_out(found) if found.window is None else render_groups_of([found.window])


def _left_out(found: Growth) -> str:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())
    return f"Not measured: {reasons or 'it was left out'}.\n"


def _measured(found: Growth) -> str:
    machine = ", ".join(found.machine.values())
    words = f"Measured {found.date[:10]} by `python -m benchmarks.growth`. Machine: {machine}."
    if found.left_out:
        words += " " + _left_out(found).strip()
    return words


def _micros(value: float) -> str:
    return f"{value:.1f}"
