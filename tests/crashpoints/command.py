"""The command line: `python -m tests.crashpoints`."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crashpoints.report import read_results, write
from tests.crashpoints.steps import ACTIONS, STEPS, points
from tests.crashpoints.trial import DELIVERIES, Theatre

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crashpoints",
        description="Crash before and after each step of a message's way, on real processes.",
    )
    parser.add_argument("--list", action="store_true", help="print the steps, and run none")
    parser.add_argument("--step", action="append", default=[], help="only this; again for more")
    parser.add_argument("--action", action="append", default=[], choices=ACTIONS)
    parser.add_argument("--seconds", type=float, help="stop after so long; points by chance")
    parser.add_argument("--seed", type=int, default=1, help="of what is by chance")
    parser.add_argument("--runs", type=int, default=1, help="of each point, with other seeds")
    parser.add_argument("--messages", type=int, default=60, help="in each run")
    parser.add_argument("--pulsar", choices=("local", "real"), default="local")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each run")
    parser.add_argument("--folder", type=Path, help="where ledgers and logs are kept")
    parser.add_argument(
        "--report", type=Path, metavar="PAGE", help="write all results of --folder into a page"
    )
    given = parser.parse_args(arguments)
    if given.list:
        for step in STEPS:
            print(f"{step.name:<10} {step.does:<62} {step.target}")
        return 0
    unknown = set(given.step) - {step.name for step in STEPS}
    if unknown:
        parser.error(f"there is no step {', '.join(unknown)}; see --list")
    chosen = [
        each
        for each in points()
        if each.step.name in (given.step or [each.step.name])
        and each.action in (given.action or ACTIONS)
    ]
    folder = given.folder or Path("build") / "crashpoints" / time.strftime("%Y%m%d-%H%M%S")
    ends = None if given.seconds is None else time.monotonic() + given.seconds
    runs = bad = 0
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    with Theatre(folder.resolve() / given.pulsar, real=given.pulsar == "real") as theatre:
        for seed in range(given.seed, given.seed + given.runs):
            draw = random.Random(seed)
            if ends is not None:
                draw.shuffle(chosen)
            for point in chosen:
                if ends is not None and time.monotonic() > ends:
                    break
                result = theatre.run(
                    point, draw.choice(DELIVERIES), nth=draw.randint(1, 3), messages=given.messages
                )
                runs, bad = runs + 1, bad + (not result.good)
                line = json.dumps({"pulsar": given.pulsar, "seed": seed, **result.to_dict()})
                with results.open("a") as file:
                    file.write(line + "\n")
                print(line if given.json else result, flush=True)
    if given.report and results.exists():
        write(given.report, read_results(results))
    if not given.json:
        print(f"{runs} runs, {bad} not good; ledgers: {folder}")
    return int(bad > 0)
