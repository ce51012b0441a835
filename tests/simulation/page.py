"""Measure the simulator, and write docs/simulation.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from coverage import Coverage

from tests.simulation.cases import CASES
from tests.simulation.command import Tally, run_seeds
from tests.simulation.controls import CONTROLS

__all__ = ["write"]

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "simulation.md"

#: How many seeds are run for the rate and the counts, and for the coverage.
_SEEDS, _COVERED = 3_000, 600
#: The modules whose logic is simulated.
_MODULES = (
    *("pulsar/window.py", "pulsar/session.py", "pulsar/sequence.py"),
    *(f"delivery/{name}.py" for name in ("effects_queue", "in_flight", "keeper", "lease", "owner")),
    *(f"delivery/{name}.py" for name in ("retry", "sender", "settler", "source", "states")),
    *("delivery/supervisor.py", "delivery/watcher.py", "delivery/renewals.py"),
    *("lanes/leased.py", "support/backoff.py", "support/cancel.py", "support/changes.py"),
)

_HEAD = """\
# The simulator

`tests/simulation` runs the package's own logic (the modules of the table below, as they are) over a
simulated network, Redis, Pulsar, clock and processes. One seed is one run, the same each time:

```console
python -m tests.simulation --seed 17            # replay one, with its trace
python -m tests.simulation --seeds 0-19999 --jobs 2
python -m tests.simulation --million --jobs 2
```

Nothing sleeps: where nothing is ready, the clock jumps to the next timer. Each seed draws how many
workers, callers, lanes and calls there are, the settings, how slow everything is, and some of the
faults below, each with a rate of its own. When the calls are made, or the time for faults is over,
all is healed, and everything must be settled and told in bounded time. Then the promises P1 to P6
are checked: by a ledger that callers, effects and the simulated Redis write, and by what the topics
hold. The checks are in `tests/simulation/checker.py`.
"""

_MODEL = """\
## What is modelled

- **Redis**: what each script means (`redis_model.py`, which is compared with a real Redis call by
  call), leases and deadlines by its own clock, blocking reads, commands and replies that are lost,
  commands that come after the client gave them up, redis-py's repeats, refusals (read-only, out of
  memory), a server that is away, a clock that jumps, and one that goes back to an older state.
- **Pulsar**: producers by name and their numbers, deduplication, names that stay taken while a dead
  session is open, refused and hanging handshakes, frames and receipts in order on their way, cuts,
  silence, restarts, and error receipts: for one message with those behind it stored, with and
  without a number of its own, and for all behind it.
- **Processes**: they are killed and paused at any step, leave cleanly, and come back. What a killed
  process would have done is not done, not even its `finally`.
- **Callers**: they put as `lanes/caller.py` does, with its repeats and tokens.

## What is not

- `websockets`, TCP and TLS, Celery's tracer, result backends and brokers, threads and forks: the
  effects only take notes, one piece of work at a time. `tests/integration` and `tests/acceptance`
  have the real ones.
- Redis Cluster, and the memory of a full Redis.
- A list over several lanes.
- Messages dropped by Pulsar after their receipt, and numbers that it forgets.

## What nobody could tell apart

- *Effectively once*, an error receipt of one message while those behind it are stored: they have
  the numbers before theirs, and the refused message's number is taken. An owner that hears of it
  begins a new generation. One that does not (it dies, it is fenced, its connection breaks before)
  leaves a message that looks as if it were stored. So a seed has such errors, or what keeps an
  owner from hearing of them, and not both.
- Where the connection breaks between an error receipt and the replies to what is in flight behind
  it, what had no outcome may be stored twice: nothing is lost.
- A message whose outcome is *unknown* may come late, and behind others: it may be held up in an
  owner that is paused, or on its way.
- A reply that cannot be read may have been an error: nothing is lost then, and what had no outcome
  in that topic may stand there twice.
- A put that Redis gets after its caller has given it up *and* made another call is a new one, once
  its context is finished and where it left no tombstone. In the simulator a put that is late comes
  before its repeat.
- Messages that Redis forgot by going back to an older state are not looked at; those that came
  afterwards are. An owner that lives on sees that Redis went back. A new one does not: a new
  message that it sends, whose connection breaks before the receipt, may be taken for one that Redis
  forgot.

"""


def _measure() -> tuple[Tally, float]:
    total, began = Tally(), time.process_time()
    for tally in run_seeds(range(_SEEDS)):
        total.add(tally)
    return total, time.process_time() - began


def _coverage(folder: Path) -> dict[str, Any]:
    data, report = folder / "data", folder / "report.json"
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={data}"]
    command += ["-m", "tests.simulation", "--seeds", f"0-{_COVERED - 1}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    coverage = Coverage(data_file=str(data), config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    modules = [str(ROOT / "celery_stargate" / each) for each in _MODULES]
    coverage.json_report(morfs=modules, outfile=str(report))
    found: dict[str, Any] = json.loads(report.read_text("utf-8"))["files"]
    return found


def _rows(files: dict[str, Any]) -> list[str]:
    rows = ["| Module | Branches | Not taken (from line -> to line) |", "|---|---|---|"]
    for name, found in sorted(files.items()):
        summary = found["summary"]
        branches = "no branches"
        if summary["num_branches"]:
            share = 100 * summary["covered_branches"] / summary["num_branches"]
            branches = f"{share:.0f} % of {summary['num_branches']}"
        missing = ", ".join(f"{a} -> {b}" for a, b in found["missing_branches"])
        rows.append(f"| {name} | {branches} | {missing} |")
    return rows


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _rate(tally: Tally, took: float) -> str:
    return (
        f"{tally.seeds} seeds with {tally.messages} messages and {sum(tally.struck.values())} "
        f"faults, {tally.virtual_seconds / 3600:.1f} virtual hours, in {took:.0f} s of one core: "
        f"**{tally.seeds / took:.0f} seeds a second**, none failed. CI runs 20,000."
    )


def write() -> int:
    """Measure, and write the page; 1 where a seed fails."""
    tally, took = _measure()
    for seed, violations in tally.failed:
        print(f"seed {seed}: {violations[0]}")
    if tally.failed:
        return 1
    with tempfile.TemporaryDirectory() as folder:
        files = _coverage(Path(folder))
    lines = [
        _HEAD,
        "## Measured",
        "",
        f"`python -m tests.simulation --write-docs` writes this page ({_machine()}).",
        "",
        _rate(tally, took),
        "",
        "| Fault | Times |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(tally.struck.items())),
        "",
        f"Branches that {_COVERED} seeds take:",
        "",
        *_rows(files),
        "",
        "## Controls",
        "",
        "With each of these switched off, the checker finds something within a few seeds: "
        + ", ".join(CONTROLS)
        + ".",
        "",
        "## What it found",
        "",
        *(f"- *{name}.* {case.why}" for name, case in CASES.items()),
        "",
        _MODEL.rstrip(),
        "",
    ]
    PAGE.write_text("\n".join(lines), "utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {tally.seeds / took:.0f} seeds a second")
    return 0
