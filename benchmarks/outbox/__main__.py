"""Measure the outbox: `python -m benchmarks.outbox`; the group `bench` brings its rival."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from django.db import connection

from benchmarks.bounded import bounded, end_on_sigterm, tell
from benchmarks.cases.redis_of_its_own import redis_url
from benchmarks.machine import describe_machine
from benchmarks.outbox.cost import measure_cost
from benchmarks.outbox.figures import Latency, OutboxFigures, render_outbox
from benchmarks.outbox.project import configure
from benchmarks.outbox.relays import measure_relays
from benchmarks.pages import RESULTS, save, write_pages
from tests.servers.postgres import PostgresServer
from tests.servers.pulsar import PulsarServer

#: Seconds for all of it.
_BOUND = 1200
_PACKAGES = ("Django", "psycopg", "celery", "django-celery-outbox")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outbox", description=__doc__)
    parser.add_argument("--output", type=Path, help="the folder that gets the JSON (results)")
    parser.add_argument("--write-docs", action="store_true", help="write them into the page")
    options = parser.parse_args(arguments)
    machine = describe_machine()
    with (
        bounded(_BOUND),
        PostgresServer(config={"fsync": "on"}) as postgres,
        redis_url() as url,
    ):
        stargate = configure(postgres.django, url)
        tell("the cost of outbox.produce")
        measure_cost()
        cost = measure_cost()
        rates = measure_relays(stargate.app)
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            server = str(cursor.fetchone()[0])
        connection.close()
        tell("from the commit to the receipt")
        latencies = _latencies()
    versions = {"PostgreSQL": server.partition(" ")[0], **_versions()}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    found = OutboxFigures(date, machine, versions, rates, cost, latencies)
    print(render_outbox(found))
    save("outbox", found, options.output or RESULTS)
    if options.write_docs:
        write_pages()
    return 0


def _latencies() -> list[Latency]:
    with ExitStack() as opened:
        url = os.environ.get("STARGATE_TEST_PULSAR_URL")
        if not url:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="stargate-bench-"))
            url = opened.enter_context(PulsarServer(Path(folder) / "pulsar", optimized=True)).url
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.outbox.latency", url],
            stdout=subprocess.PIPE,
            check=True,
            timeout=_BOUND,
        )
    return msgspec.json.decode(done.stdout, type=list[Latency])


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
