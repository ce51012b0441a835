"""Run the comparison: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from .bounded import bounded, end_on_sigterm, tell
from .clocks import CpuClocks
from .figures import Report, make_groups
from .machine import count_cores, describe_machine, find_versions
from .pages import RESULTS, save, write_pages
from .payload import PAYLOAD
from .rivals import GROUPS, find_rivals
from .runner import Rival, reason_of, run_rounds
from .site import Site
from .table import render

#: Seconds for the rounds, beside the start of servers and workers.
_TIME, _QUICK_TIME = 900.0, 50.0
#: How many seconds more there are before what is not measured by then is given up.
_GRACE = 45


def main(arguments: list[str] | None = None, *, now: datetime | None = None) -> int:
    """Run, print the tables, and write what was asked for.

    Arguments:
        now: the date of the run.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each rival runs (5)")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, to see that all runs; within 2 min"
    )
    parser.add_argument("--only", help="only the rivals whose group is, or name begins, so")
    parser.add_argument("--output", type=Path, help="the folder that gets the JSON (results)")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the tables and plots into the pages"
    )
    options = parser.parse_args(arguments)
    partial = options.quick or options.only
    if partial and options.write_docs:
        parser.error("--write-docs needs a whole run")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    output = options.output or (None if partial else RESULTS)

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
        rounds=1 if options.quick else options.rounds,
        share=0.2 if options.quick else 1.0,
        seconds=_QUICK_TIME if options.quick else _TIME,
        left_out=left_out,
    )
    print(render(report, GROUPS))
    if output is not None:
        save("latest", report, output)
    if options.write_docs:
        write_pages()
    return 0 if report.groups else 1


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
        tell("starting servers")
        site = running.enter_context(Site())
        versions = find_versions(site.config.redis_url, site.http_url)
        tell("starting workers")
        ready = []
        with bounded(120):
            for rival in rivals:
                try:
                    rival.setup(site)
                except Exception as error:  # noqa: BLE001  # told, and the others go on
                    left_out[rival.title] = reason_of(error)
                    tell(f"{rival.name}: FAILED to start, no figures: {error}")
                else:
                    ready.append(rival)
                    running.callback(rival.teardown)
        with bounded(round(seconds) + _GRACE):
            samples = run_rounds(
                ready,
                rounds=rounds,
                share=share,
                seconds=seconds,
                clock=time.monotonic,
                tell=tell,
                left_out=left_out,
                run=CpuClocks(site).run,
            )
    return Report(
        date=now.isoformat(timespec="seconds"),
        rounds=max((len(each.seconds) for group in samples.values() for each in group), default=0),
        payload_bytes=len(PAYLOAD),
        machine=machine,
        versions=versions,
        groups=make_groups(samples, GROUPS),
        left_out=left_out,
        core_count=count_cores(),
    )


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
