"""Run a command beside one real Redis, Pulsar and RabbitMQ: `python -m tools.with_servers CMD …`.

They are started once, handed over by the `STARGATE_TEST_…` variables, and ended whatever happens.
One that such a variable names already is used as it is. One that this machine cannot run is left
out, and its tests skip; where `CI` is set, that is an error.

Redis is handed over as `STARGATE_SHARED_REDIS_URL`, for programs that only look at it: tests empty
it and fill it up, so that each of their processes starts one of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.servers import PulsarServer, RabbitServer, RedisServer, ServerError
from tests.servers import pulsar as pulsar_module
from tests.servers import rabbitmq as rabbitmq_module
from tests.servers import redis as redis_module

#: How long a command that was asked to end may take, before it is killed.
_END_TIMEOUT = 30.0


def _start_redis(data: Path, running: ExitStack) -> dict[str, str]:
    server = running.enter_context(RedisServer(data))
    return {"STARGATE_SHARED_REDIS_URL": server.url}


def _start_pulsar(data: Path, running: ExitStack) -> dict[str, str]:
    server = PulsarServer(data)
    server.start()
    # Nobody needs its data any more, and a clean stop takes seconds.
    running.callback(server.kill)
    return {
        "STARGATE_TEST_PULSAR_URL": server.url,
        "STARGATE_TEST_PULSAR_SERVICE_URL": server.service_url,
        "STARGATE_TEST_PULSAR_HTTP_URL": server.http_url,
    }


def _start_rabbitmq(data: Path, running: ExitStack) -> dict[str, str]:
    server = running.enter_context(RabbitServer(data))
    return {"STARGATE_TEST_AMQP_URL": server.url}


_SERVERS = (
    ("Redis", "STARGATE_TEST_REDIS_URL", redis_module.missing_reason, _start_redis),
    ("Pulsar", "STARGATE_TEST_PULSAR_URL", pulsar_module.missing_reason, _start_pulsar),
    ("RabbitMQ", "STARGATE_TEST_AMQP_URL", rabbitmq_module.missing_reason, _start_rabbitmq),
)


def start_servers(data: Path, running: ExitStack) -> dict[str, str]:
    """Start what this machine can run; return the variables that say where.

    Raises:
        ServerError: one did not start, or `CI` is set and one is missing.
    """
    found: dict[str, str] = {}
    for name, variable, missing_reason, start in _SERVERS:
        if os.environ.get(variable):
            print(f"{name}: as {variable} says", flush=True)
            continue
        reason = missing_reason()
        if reason is not None:
            if os.environ.get("CI"):
                raise ServerError(f"{name} is missing, and CI is set: {reason}")
            print(f"{name}: NOT AVAILABLE, its tests are skipped: {reason}", flush=True)
            continue
        began = time.monotonic()
        found |= start(data / name.lower(), running)
        print(f"{name}: ready in {time.monotonic() - began:.1f} s", flush=True)
    return found


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end; return its exit status. It ends when this process is told to."""
    child = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_END_TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main(command: list[str]) -> int:
    """Start the servers, run the command, end the servers."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    with ExitStack() as running:
        # What a dying server still writes must not break the clean-up.
        data = running.enter_context(
            tempfile.TemporaryDirectory(prefix="stargate-servers-", ignore_cleanup_errors=True)
        )
        try:
            environment = start_servers(Path(data), running)
        except ServerError as error:
            print(error, file=sys.stderr)
            return 1
        return run(command, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
