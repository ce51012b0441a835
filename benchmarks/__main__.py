"""Run the comparison: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from .figures import Report, make_groups
from .machine import describe_machine, find_versions
from .payload import PAYLOAD
from .readme import replace_block
from .rivals import GROUPS, find_rivals
from .runner import Rival, run_rounds
from .site import BenchmarkError, Site
from .table import render

_LATEST = Path(__file__).parent / "results" / "latest.json"
_README = Path(__file__).parents[1] / "README.md"

#: Seconds for the rounds, beside the start of servers and workers.
_TIME, _QUICK_TIME = 180.0, 25.0
#: How many seconds more there are before the run is given up.
_GRACE = 45


def main(arguments: list[str] | None = None, *, now: datetime | None = None) -> int:
    """Run, print the tables, and write what was asked for.

    Arguments:
        now: the date of the run.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each rival runs (5)")
    parser.add_argument(
        "--quick", action="store_true", help="two short rounds, to see that all runs; within 60 s"
    )
    parser.add_argument("--only", help="only the rivals whose group is, or name begins, so")
    parser.add_argument("--output", type=Path, help=f"where the JSON goes ({_LATEST.name})")
    parser.add_argument(
        "--write-readme", action="store_true", help="write the tables into the README's block"
    )
    options = parser.parse_args(arguments)
    partial = options.quick or options.only
    if partial and options.write_readme:
        parser.error("--write-readme needs a whole run")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    output = options.output or (None if partial else _LATEST)

    rivals, left_out = find_rivals()
    if options.only:
        rivals = [
            each
            for each in rivals
            if each.group == options.only or each.name.startswith(options.only)
        ]
        if not rivals:
            parser.error(f"--only {options.only}: no rival's group is, or name begins, so")
    report = measure(
        rivals,
        now or datetime.now(UTC),
        rounds=2 if options.quick else options.rounds,
        share=0.2 if options.quick else 1.0,
        seconds=_QUICK_TIME if options.quick else _TIME,
        left_out=left_out,
    )
    text = render(report)
    print(text)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if options.write_readme:
        _README.write_text(replace_block(_README.read_text(), text))
    return 0


def measure(
    rivals: Sequence[Rival],
    now: datetime,
    *,
    rounds: int,
    share: float,
    seconds: float,
    left_out: dict[str, str],
) -> Report:
    """Start what is needed, run the rounds, and end it all."""
    machine = describe_machine()
    with ExitStack() as running:
        _tell("starting servers")
        site = running.enter_context(Site())
        signal.alarm(round(seconds) + _GRACE)
        running.callback(signal.alarm, 0)
        _tell("starting workers")
        for rival in rivals:
            rival.setup(site)
            running.callback(rival.teardown)
        samples = run_rounds(
            rivals, rounds=rounds, share=share, seconds=seconds, clock=time.monotonic, tell=_tell
        )
        versions = find_versions(site.config.redis_url, site.http_url)
    return Report(
        date=now.isoformat(timespec="seconds"),
        rounds=len(next(iter(samples.values()))[0].seconds),
        payload_bytes=len(PAYLOAD),
        machine=machine,
        versions=versions,
        groups=make_groups(samples, GROUPS),
        left_out=left_out,
    )


def _end(number: int, frame: object) -> None:
    """Leave by the way on which everything that was started is ended."""
    if number == signal.SIGALRM:
        raise BenchmarkError("it took too long")
    raise SystemExit(128 + number)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _end)
    sys.exit(main())
