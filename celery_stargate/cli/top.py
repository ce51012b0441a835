"""``top``: the lanes as they are now, again and again."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from celery_stargate.cli.command import (
    Deployment,
    StargateCommand,
    json_option,
    pass_deployment,
    topic_option,
)
from celery_stargate.cli.durations import DURATION, format_age, format_duration
from celery_stargate.cli.output import Output, clip, printable
from celery_stargate.cli.questions import short_owner
from celery_stargate.operations.inspect import LaneInspector, totals
from celery_stargate.operations.views import LaneView, StatusView, TopView

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["Frame", "look", "render", "top"]

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
#: From the top, erasing what was there line by line, so that nothing flickers.
_HOME, _ERASE_LINE, _ERASE_REST = "\x1b[H", "\x1b[K", "\x1b[J"
#: Beside the lane's name; title and width of each column.
_COLUMNS = (
    ("BACKLOG", 9),
    ("UNSENT", 9),
    ("SENT", 7),
    ("SETTLED", 7),
    ("OLDEST", 9),
    ("IN/S", 8),
    ("OUT/S", 8),
)
#: In a narrow terminal these are left out.
_DISPENSABLE = ("SETTLED", "UNSENT")
_LANE_WIDTH, _OWNER_WIDTH = 20, 16
#: From this width on the owner has a column.
_WIDE = 110


@dataclass(frozen=True)
class Frame:
    """What one look found."""

    at: float
    lanes: Sequence[LaneView]
    status: StatusView

    @property
    def fullest_first(self) -> list[LaneView]:
        """The lanes, those with the largest backlog first."""
        return sorted(self.lanes, key=lambda lane: (-lane.backlog, lane.lane))


def look(inspector: LaneInspector, topic: str | None, at: float) -> Frame:
    """Look at the lanes.

    Arguments:
        at: the time, in seconds, by a clock that only goes forward.
    """
    lanes, workers = inspector.lanes_and_workers(topic)
    return Frame(at, lanes, totals(lanes, workers))


def render(now: Frame, before: Frame | None, width: int, height: int, output: Output) -> list[str]:
    """Return the lines of one screen, none longer than ``width``, no more than ``height``.

    Arguments:
        now: what is shown.
        before: the look before it, for rates; None for the first.
        width, height: of the terminal, in characters.
        output: knows whether colours are wanted.
    """
    status = now.status
    rates = _rates(now, before)
    into = sum(each[0] for each in rates.values())
    out = sum(each[1] for each in rates.values())
    oldest = format_age(status.oldest_age_seconds, exact=status.oldest_age_exact)
    lines = [
        _line(
            f"stargate top   workers {status.workers}   lanes {status.lanes}"
            f"   no owner {status.lanes_without_owner}   paused {status.lanes_paused}",
            "q quits",
            width,
        ),
        clip(
            f"backlog {status.backlog}   oldest {oldest}   in {into:.0f}/s   out {out:.0f}/s"
            f"   next deadline {format_duration(status.next_deadline_seconds)}",
            width,
        ),
        "",
    ]
    columns = [column for column in _COLUMNS if width >= _WIDE or column[0] not in _DISPENSABLE]
    owners = width >= _WIDE
    taken = sum(size + 1 for _, size in columns) + (_OWNER_WIDTH + 1 if owners else 0)
    name = max(_LANE_WIDTH, width - taken)
    head = "LANE".ljust(name)
    if owners:
        head += f" {'OWNER':<{_OWNER_WIDTH}}"
    head += "".join(f" {title:>{size}}" for title, size in columns)
    lines.append(output.style(head[:width], "cyan"))
    ordered = now.fullest_first
    room = max(1, height - len(lines) - 1)
    for lane in ordered[:room]:
        cells = _cells(lane, rates.get(lane.lane, (0.0, 0.0)))
        row = clip(printable(lane.lane), name).ljust(name)
        if owners:
            row += f" {clip(short_owner(lane.owner), _OWNER_WIDTH):<{_OWNER_WIDTH}}"
        row += "".join(f" {cells[title]:>{size}}" for title, size in columns)
        colour = "red" if lane.needs_owner else "yellow" if lane.paused else None
        lines.append(output.style(row[:width], colour))
    if len(ordered) > room:
        lines.append(f"… and {len(ordered) - room} more lanes")
    return lines


def _cells(lane: LaneView, rates: tuple[float, float]) -> Mapping[str, str]:
    return {
        "BACKLOG": str(lane.backlog),
        "UNSENT": str(lane.unsent),
        "SENT": str(lane.sent),
        "SETTLED": str(lane.settled),
        "OLDEST": format_age(lane.oldest_age_seconds, exact=lane.oldest_age_exact),
        "IN/S": f"{rates[0]:.0f}",
        "OUT/S": f"{rates[1]:.0f}",
    }


def _rates(now: Frame, before: Frame | None) -> dict[str, tuple[float, float]]:
    """Return how many messages a second came into each lane, and were done."""
    if before is None:
        return {}
    span = max(now.at - before.at, 1e-3)
    known = {lane.lane: lane for lane in before.lanes}
    rates = {}
    for lane in now.lanes:
        # A lane that is new, or was retired meanwhile, began at 0.
        old = known.get(lane.lane)
        recorded = old.recorded_total if old else 0
        done = old.done_total if old else 0
        rates[lane.lane] = (
            max(0, lane.recorded_total - recorded) / span,
            max(0, lane.done_total - done) / span,
        )
    return rates


def _line(left: str, right: str, width: int) -> str:
    if len(left) + len(right) + 1 > width:
        return clip(left, width)
    return left + right.rjust(width - len(left))


@click.command("top", cls=StargateCommand)
@topic_option
@click.option(
    "--interval", type=DURATION, default="1s", show_default=True, help="How often to look."
)
@click.option("--once", is_flag=True, help="Show one screen and end.")
@json_option
@pass_deployment
def top(
    deployment: Deployment, topic: str | None, interval: float, once: bool, as_json: bool
) -> None:
    """Watch the lanes: backlog, oldest message, owner and rates, the fullest first.

    It ends on q. Where standard output is no terminal it shows one screen and ends. With --json it
    looks once.

    \b
    Examples:
      celery -A shop stargate top
      celery -A shop stargate top --topic orders --interval 5s
      celery -A shop stargate top --once --json | jq '.lanes[:10]'
    """
    output = deployment.output(as_json=as_json)
    inspector, name = deployment.lanes, deployment.topic(topic)
    if as_json:
        frame = look(inspector, name, time.monotonic())
        output.object(TopView(status=frame.status, lanes=frame.fullest_first))
        return
    if once or not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        size = get_terminal_size((80, 1000))
        frame = look(inspector, name, time.monotonic())
        for line in render(frame, None, size.columns, max(size.lines, 1000), output):
            click.echo(line)
        return
    before = None
    with _screen(sys.stdin, sys.stdout):
        while True:
            now = look(inspector, name, time.monotonic())
            size = get_terminal_size()
            lines = render(now, before, size.columns, size.lines, output)
            text = "\r\n".join(f"{line}{_ERASE_LINE}" for line in lines)
            sys.stdout.write(f"{_HOME}{text}{_ERASE_REST}")
            sys.stdout.flush()
            before = now
            if _pressed_q(sys.stdin, max(0.1, interval)):
                return


@contextmanager
def _screen(keys: TextIO, screen: TextIO) -> Iterator[None]:
    """Take the terminal for a block: a screen of its own, keys without Enter."""
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    screen.write(_ENTER)
    try:
        yield
    finally:
        screen.write(_LEAVE)
        screen.flush()
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _pressed_q(keys: TextIO, seconds: float) -> bool:
    """Wait for a key; whether it was q, or there will be no more."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([keys], [], [], left)
        if ready and keys.read(1) in ("q", "Q", ""):
            return True
    return False
