"""Record `make demo` as a picture that moves: ``python -m tools.record_demo`` writes docs/demo.svg.

The demo runs for real, on a Redis and a LocalPulsar of its own. Each line appears in the picture
when it appeared on the screen; pauses are cut to a second. A viewer that does not animate, or a
reader who wants no motion, sees the last picture.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

__all__ = ["render"]

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "demo.svg"
#: Seconds: the longest pause that is shown, and the first line's.
_PAUSE, _BEGIN = 1.0, 0.8
#: Pixels of a character and of a line at the font's size.
_WIDE, _HIGH, _SIZE, _EDGE = 7.8, 19, 13, 16
_INK, _PAPER, _DIM = "#d8dee9", "#1e222a", "#8a93a5"
_MARKS = {"✓": "#8fc98f", "!": "#e5c07b", "$": "#7aa2f7"}


def _coloured(line: str) -> str:
    stripped = line.lstrip()
    mark = stripped[:1]
    if mark in _MARKS and stripped[1:2] == " ":
        at = line.index(mark)
        return f'{line[:at]}<tspan fill="{_MARKS[mark]}">{mark}</tspan>{escape(line[at + 1 :])}'
    if stripped.startswith(("Nothing lost", "celery_stargate:")):
        return f'<tspan font-weight="bold">{escape(line)}</tspan>'
    if stripped.startswith(("Redis ", "Pulsar ", "Workers ", "Python ")):
        return f'<tspan fill="{_DIM}">{escape(line)}</tspan>'
    return escape(line)


def render(lines: Sequence[tuple[float, str]]) -> str:
    """Return the picture of a terminal.

    Arguments:
        lines: the second at which each line appeared, and its text.
    """
    width = round(max(len(text) for _, text in lines) * _WIDE) + 2 * _EDGE
    height = len(lines) * _HIGH + 2 * _EDGE + 8
    words = "A recording of make demo: messages are published, a worker is killed, nothing is lost"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = f"{_SIZE}px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{words}">',
        "<style>",
        f"text {{ font: {font}; fill: {_INK}; white-space: pre; }}",
        "@keyframes appear { from { opacity: 0 } to { opacity: 1 } }",
        "g { animation: appear 0.15s backwards; }",
        "@media (prefers-reduced-motion: reduce) { g { animation: none; } }",
        "</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{_PAPER}"/>',
    ]
    shown, before = _BEGIN, lines[0][0]
    for number, (second, text) in enumerate(lines):
        shown += min(_PAUSE, max(0.0, second - before))
        before = second
        if not text.strip():
            continue
        y = _EDGE + _SIZE + number * _HIGH
        parts.append(
            f'<g style="animation-delay:{shown:.2f}s"><text x="{_EDGE}" y="{y}" '
            f'xml:space="preserve">{_coloured(text)}</text></g>'
        )
    parts.append("</svg>\n")
    return "\n".join(parts)


def _cut(lines: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the lines without empty ones at the ends, and at most one empty line in a row."""
    kept: list[tuple[float, str]] = []
    for second, text in lines:
        if text.strip() or (kept and kept[-1][1].strip()):
            kept.append((second, text.rstrip()))
    while kept and not kept[-1][1]:
        kept.pop()
    return kept


def main() -> int:
    """Run the demo and write the picture; 1 if the demo failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.record_demo", description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    messages = parser.parse_args().messages
    command = [sys.executable, "-u", "-m", "examples.demo", "--messages", str(messages)]
    demo = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    began = time.monotonic()
    lines = [(0.0, "  $ make demo"), (0.0, "")]
    for line in demo.stdout:
        lines.append((time.monotonic() - began, line.rstrip("\n")))
        print(line, end="")
    if demo.wait():
        return 1
    PICTURE.write_text(render(_cut(lines)), "utf-8")
    print(f"{PICTURE.relative_to(ROOT)} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
