"""What the demo prints: in colour on a terminal, in plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from .story import Figures

_WIDTH = 34


class Screen:
    """Prints what the demo does.

    Args:
        stderr: print to stderr, and leave stdout to the figures.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._console = Console(stderr=stderr, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = 100

    def title(self, text: str, *more: str) -> None:
        """Print what the demo is."""
        self._console.print()
        self._console.print(Text(f"  {text}", style="bold"))
        for line in more:
            self._console.print(Text(f"  {line}"))
        self._console.print()

    def fact(self, name: str, text: str) -> None:
        """Print what it runs on."""
        self._console.print(Text(f"  {name:<10}", style="dim") + Text(text))

    def step(self, what: str, text: str) -> None:
        """Print a step and its result."""
        mark = Text("  ✓ ", style="green")
        self._console.print(mark + Text(f"{what:<{_WIDTH}}", style="cyan") + Text(text))

    def note(self, text: str) -> None:
        """Print what happens during a step."""
        self._console.print(Text("  ! ", style="yellow") + Text(text))

    def hint(self, text: str) -> None:
        """Print what to do next."""
        self._console.print(Text(f"  {text}", style="dim"))

    def gap(self) -> None:
        """Print an empty line."""
        self._console.print()

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar; yield the function that advances it."""
        bar = Progress(
            TextColumn("    {task.description:<10}", style="cyan"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        done = 0
        with bar:
            task = bar.add_task(what, total=total)

            def advance(steps: int) -> None:
                nonlocal done
                done += steps
                bar.update(task, completed=done, total=max(total, done))

            yield advance
        if not self._console.is_terminal:
            self._console.print(f"    {what}: {done} of {max(total, done)}")

    def summary(self, figures: Figures) -> None:
        """Print the table of figures and the verdict."""
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(width=26, style="cyan", no_wrap=True)
        table.add_column(width=9, justify="right", no_wrap=True)
        table.add_column(style="dim")
        for name, value, meaning in _rows(figures):
            style = "bold green" if name == "lost" and not figures.lost else ""
            table.add_row(f"  {name}", Text(value, style=style), meaning)
        self._console.print()
        self._console.print(table)
        self._console.print()
        if figures.problems:
            for problem in figures.problems:
                self._console.print(Text(f"  ✗ {problem}", style="bold red"))
        else:
            self._console.print(
                Text(f"  Nothing lost, in {figures.seconds:.0f} s.", style="bold green")
            )
        self._console.print()

    def failed(self, text: str) -> None:
        """Print why the demo cannot go on."""
        self._console.print(Text(f"  ✗ {text}", style="bold red"))


def _rows(f: Figures) -> list[tuple[str, str, str]]:
    p99, lease = f"{f.get_p99_ms:.1f} ms", f"{f.lease_seconds:g} s"
    again = f" ({f.callbacks_repeated} ran twice)" if f.callbacks_repeated else ""
    callbacks = f"of {f.callbacks_expected:,} on_ack{again}; {f.errors_told} on_error"
    recovered = f"of {f.pending_at_kill:,} messages that were not finished at the kill"
    duplicates = "sent again after the kill; none with 'effectively_once'"
    return [
        ("stored", f"{f.stored:,}", f"of {f.messages:,} messages, read back from the topic"),
        (
            "results",
            f"{f.released:,}",
            "receipts from get(), each of a message in the topic",
        ),
        ("callbacks", f"{f.callbacks:,}", callbacks),
        ("recovered after the kill", f"{f.recovered:,}", recovered),
        ("lost", f"{f.lost:,}", "accepted by delay(), and not in the topic"),
        ("duplicates", f"{f.duplicates:,}", duplicates),
        ("", "", ""),
        ("delay()", f"{f.put_per_second:,.0f} /s", "calls of one caller, recorded in Redis"),
        ("delay().get()", f"{f.get_median_ms:.1f} ms", f"median, one at a time; p99 {p99}"),
        ("take-over", f"{f.takeover_seconds:.1f} s", f"from the kill; a lease is {lease}"),
        ("drained", f"{f.drain_per_second:,.0f} /s", "calls that waited for the take-over"),
    ]
