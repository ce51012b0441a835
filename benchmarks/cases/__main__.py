"""Run all cases: `python -m benchmarks.cases`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.bounded import bounded, end_on_sigterm
from benchmarks.pages import RESULTS, save, write_pages

from . import celery_results, celery_tracer, kombu_publish, redis_scripts, redis_sizes
from .findings import Findings, render_findings
from .redis_of_its_own import redis_url

_CASES = (kombu_publish, celery_results, celery_tracer, redis_scripts, redis_sizes)
_PACKAGES = ("celery", "kombu", "redis")
#: Seconds for all of it.
_BOUND = 90


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cases", description=__doc__)
    parser.add_argument("--output", type=Path, help="the folder that gets the JSON (results)")
    parser.add_argument("--write-docs", action="store_true", help="write them into the page")
    options = parser.parse_args(arguments)
    with bounded(_BOUND), redis_url() as url:
        found = tuple(each.measure(url) for each in _CASES)
    versions = {"redis-py" if each == "redis" else each: version(each) for each in _PACKAGES}
    findings = Findings(datetime.now(UTC).isoformat(timespec="seconds"), versions, found)
    print(render_findings(findings))
    save("cases", findings, options.output or RESULTS)
    if options.write_docs:
        write_pages()
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
