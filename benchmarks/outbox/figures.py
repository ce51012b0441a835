"""What was measured of the outbox, and the words on it. No I/O."""

from __future__ import annotations

import msgspec

__all__ = ["Cost", "Latency", "OutboxFigures", "Rate", "render_outbox"]


class Rate(msgspec.Struct, frozen=True):
    """One relay."""

    name: str
    rows: int
    #: By the clock, and by the CPU time of the relay's process.
    per_second: float
    per_cpu_second: float


class Cost(msgspec.Struct, frozen=True):
    """Medians, in microseconds."""

    produce: float
    create: float


class Latency(msgspec.Struct, frozen=True):
    """From the commit to the closed row, in milliseconds."""

    how: str
    rows: int
    rate: float
    median: float
    p99: float


class OutboxFigures(msgspec.Struct, frozen=True):
    """A whole run."""

    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    rates: list[Rate]
    cost: Cost
    latencies: list[Latency]


def render_outbox(found: OutboxFigures) -> str:
    """Return tables, and what they were measured on."""
    ours = found.rates[0]
    lines = [
        "| One relay process, PostgreSQL | Rows a second | Rows a CPU second | Ours is |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.per_second:,.0f} | {each.per_cpu_second:,.0f} | "
        + (f"{ours.per_second / each.per_second:.1f} times as fast |" if each != ours else "|")
        for each in found.rates
    ]
    lines += [
        "",
        "| From the commit to the closed row | Rows a second | Median | 99 % below |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.how} | {each.rate:.0f} | {each.median:.0f} ms | {each.p99:.0f} ms |"
        for each in found.latencies
    ]
    lines += [
        "",
        _cost(found.cost),
        "",
        _measured(found),
    ]
    return "\n".join(lines) + "\n"


def _measured(found: OutboxFigures) -> str:
    machine = ", ".join(found.machine.values())
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return (
        f"Measured {found.date[:10]} by `python -m benchmarks.outbox`: {machine}; {versions}. The "
        "machine had other work: compare what took turns in one table."
    )


def _cost(cost: Cost) -> str:
    return (
        f"`outbox.produce` takes {cost.produce:.0f} µs, `Model.objects.create` of the same row "
        f"{cost.create:.0f} µs: {cost.produce / cost.create:.2f} times as long."
    )
