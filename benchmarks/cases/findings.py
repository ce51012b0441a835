"""What the cases found, and the words on it. No I/O."""

from __future__ import annotations

import msgspec

__all__ = ["Finding", "Findings", "render_findings"]


class Finding(msgspec.Struct, frozen=True):
    """One case."""

    #: The module that shows it, below ``benchmarks/cases``.
    file: str
    title: str
    #: What was measured, by its words.
    measured: dict[str, str]


class Findings(msgspec.Struct, frozen=True):
    """A whole run."""

    date: str
    versions: dict[str, str]
    findings: tuple[Finding, ...]


def render_findings(found: Findings) -> str:
    """Return a line for each."""
    lines = []
    for each in found.findings:
        figures = "; ".join(f"{words}: {value}" for words, value in each.measured.items())
        lines.append(f"- **{each.title}** (`python -m benchmarks.cases.{each.file}`). {figures}.")
    versions = ", ".join(f"{name} {value}" for name, value in found.versions.items())
    lines += ["", f"Measured {found.date[:10]} by `python -m benchmarks.cases`, with {versions}."]
    return "\n".join(lines) + "\n"
