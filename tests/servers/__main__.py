"""Start the servers in the foreground for work by hand: `python -m tests.servers`.

Prints `export` lines once they are ready (also into a file with `--env-file`), then waits for
Ctrl-C or SIGTERM and stops them all.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from celery_stargate.support.stop_event import StopEvent
from tests.servers import pulsar, rabbitmq, redis


def main() -> int:
    """Run until told to stop; 1 when a demanded server cannot run here."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("--data", type=Path, help="where they write (a temporary folder)")
    parser.add_argument("--env-file", type=Path, help="write the export lines there too")
    parser.add_argument(
        "--only", action="append", choices=("pulsar", "redis", "rabbitmq"), help="start just this"
    )
    options = parser.parse_args()
    wanted = options.only or ["redis", "pulsar", "rabbitmq"]

    stop = StopEvent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    with ExitStack() as running:
        data = options.data or Path(
            running.enter_context(tempfile.TemporaryDirectory(prefix="stargate-servers-"))
        )
        lines: list[str] = []

        def add(**values: str) -> None:
            lines.extend(f"export {name}={value}" for name, value in values.items())

        for module in (redis, pulsar, rabbitmq):
            name = module.__name__.rpartition(".")[2]
            if name not in wanted:
                continue
            reason = module.missing_reason()
            if reason is not None:
                print(f"# {name}: {reason}", file=sys.stderr)
                if options.only:
                    return 1
                continue
            if name == "redis":
                server = running.enter_context(redis.RedisServer(data / "redis"))
                add(REDIS_URL=server.url, STARGATE_TEST_REDIS_URL=server.url)
            elif name == "pulsar":
                broker = running.enter_context(pulsar.PulsarServer(data / "pulsar"))
                add(
                    STARGATE_URL=broker.url,
                    STARGATE_TEST_PULSAR_URL=broker.url,
                    STARGATE_TEST_PULSAR_SERVICE_URL=broker.service_url,
                    STARGATE_TEST_PULSAR_HTTP_URL=broker.http_url,
                )
            else:
                rabbit = running.enter_context(rabbitmq.RabbitServer(data / "rabbitmq"))
                add(AMQP_URL=rabbit.url, STARGATE_TEST_AMQP_URL=rabbit.url)
        text = "\n".join(lines) + "\n"
        print(text, end="", flush=True)
        if options.env_file is not None:
            options.env_file.write_text(text)
        print(f"# data and logs: {data}; Ctrl-C stops them", flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
