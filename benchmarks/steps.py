"""Where the time of one call goes: `python -m benchmarks.steps`. Within a minute.

`stargate.produce` is called again and again: each call begins when the one before it has its
receipt. The caller and the owner note when each step begins and ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from celery_stargate import Stargate

from .bounded import bounded, end_on_sigterm, tell
from .figures import spread
from .machine import describe_machine
from .pages import RESULTS, save
from .payload import PAYLOAD
from .rivals.one_at_a_time import WebSocketRoundTrip
from .site import BenchmarkError, Site
from .step_notes import WRITE_EVERY, Notes, read_notes
from .steps_figures import CALLED, STEPS, Steps, laps, render_steps, steps_of

_TIME = 180
_CALLS, _QUICK_CALLS = 600, 100
_ROUNDS, _QUICK_ROUNDS = 5, 1
#: Calls before each round.
_WARM_UP = 20
#: Seconds until the owner's notes must be written.
_WRITTEN = 10.0


def measure(*, rounds: int, calls: int, now: datetime) -> Steps:
    """Start what is needed, look, and end it all."""
    machine = describe_machine()
    notes = Notes()
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and a worker")
        site = running.enter_context(Site())
        path = site.folder / "steps"
        config = replace(site.config, steps=str(path))
        worker = site.worker("steps", "-P", "prefork", "-c", "2", config=config)
        bare = WebSocketRoundTrip()
        bare.setup(site)
        notes.of_caller()
        ours, trips, whole = [], [], []
        for number in range(rounds):
            trips.append(1e6 * bare.run(calls).p50)
            with worker.awake(), site.caller(config) as app:
                stargate = Stargate.of(app)
                for count in (_WARM_UP, calls):
                    notes.kept.clear()
                    for _ in range(count):
                        notes.note(CALLED)
                        stargate.produce(PAYLOAD)
                        notes.note(STEPS[-1][1])
                stargate.close()
                found = _found(notes, path, calls)
            ours.append(found)
            whole.append(median(sum(each) for each in found))
            tell(f"round {number + 1} of {rounds}")
    steps, trip = steps_of(ours), spread(trips)
    return Steps(
        now.isoformat(timespec="seconds"), machine, calls, rounds, steps, spread(whole), trip
    )


def _found(notes: Notes, path: Path, calls: int) -> list[tuple[float, ...]]:
    """Return the laps of the calls, as soon as the owner has written its notes.

    Raises:
        BenchmarkError: it has not within 10 s, or steps are missing.
    """
    end = time.monotonic() + _WRITTEN
    while True:
        found = laps([*notes.kept, *read_notes(path)])
        if len(found) >= calls:
            return found
        if time.monotonic() > end:
            raise BenchmarkError(f"of {calls} calls only {len(found)} have all their steps")
        time.sleep(WRITE_EVERY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and keep what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round; writes nothing")
    quick = parser.parse_args(arguments).quick
    found = measure(
        rounds=_QUICK_ROUNDS if quick else _ROUNDS,
        calls=_QUICK_CALLS if quick else _CALLS,
        now=datetime.now(UTC),
    )
    print(render_steps(found))
    if not quick:
        save("steps", found, RESULTS)
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
