"""Run the demo; the exit code is 1 when anything is lost or missing."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .processes import DemoError, Processes
from .report import Screen
from .servers import Place, choose_prefix, find_pulsar, find_redis, forget, start_workers

if TYPE_CHECKING:
    from .story import Figures


def main() -> int:
    """Start everything, run the story, end everything."""
    options = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    for stream in (sys.stdout, sys.stderr):
        # A terminal without a check mark shows a question mark.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    screen = Screen(stderr=options.json)
    screen.title(
        "celery_stargate: produce_task.delay(msg, on_ack=sig)",
        f"Publishes at least {options.messages:,} messages to Pulsar through Celery, kills a "
        "worker with",
        "kill -9 on the way, and counts what is lost. It takes less than a minute.",
    )
    try:
        with (
            tempfile.TemporaryDirectory(prefix="stargate-demo-") as folder,
            Processes(Path(folder)) as processes,
        ):
            redis = find_redis(processes, Path(folder), embedded=options.embedded_redis)
            pulsar = find_pulsar(processes)
            figures = _run(screen, processes, redis, pulsar, options.messages)
    except DemoError as error:
        screen.failed(str(error))
        return 1
    except KeyboardInterrupt:
        screen.failed("stopped; its processes have ended")
        return 130
    screen.summary(figures)
    if not figures.problems:
        screen.hint(
            "Next: a program of 20 lines (examples/plain). To run this on your own servers,"
        )
        screen.hint("set STARGATE_URL and REDIS_URL. What the words mean: docs/glossary.md.")
        screen.gap()
    if options.json:
        runs_on = {"redis": redis.what, "pulsar": pulsar.what, **_versions()}
        print(json.dumps({**figures.to_dict(), "runs_on": runs_on}, indent=2))
    return 1 if figures.problems else 0


def _run(
    screen: Screen, processes: Processes, redis: Place, pulsar: Place, messages: int
) -> Figures:
    screen.fact("Redis", redis.what)
    screen.fact("Pulsar", pulsar.what)
    prefix = choose_prefix()
    os.environ.update(DEMO_REDIS=redis.url, DEMO_PULSAR=pulsar.url, DEMO_PREFIX=prefix)
    # Imported here, because the app reads the environment, as it does in its workers.
    from .story import Story

    try:
        publisher, worker = start_workers(processes)
        screen.fact("Workers", "two: both send what delay() records in Redis; one also runs tasks")
        screen.fact("", "Python {python}, Celery {celery}, {cores} cores".format(**_versions()))
        screen.gap()
        return Story(screen, messages, publisher, worker).tell(pulsar.url)
    finally:
        processes.end("worker", "publisher")
        forget(redis.url, prefix)


def _versions() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "celery": version("celery"),
        "cores": os.cpu_count(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Publish to Pulsar through Celery, kill a worker, and count what is lost. "
        "STARGATE_URL and REDIS_URL name real servers; without them it starts its own.",
    )
    parser.add_argument("--messages", type=_many, default=3000, help="at least (3000)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--embedded-redis", action="store_true", help="even where a redis-server is found"
    )
    return parser


def _many(text: str) -> int:
    number = int(text)
    if number < 200:
        raise argparse.ArgumentTypeError("at least 200")
    return number


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
