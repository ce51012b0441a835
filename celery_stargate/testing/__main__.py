"""Run a `LocalPulsar` in the foreground: `python -m celery_stargate.testing --port 8080`."""

from __future__ import annotations

import argparse
import signal
import sys

from celery_stargate.support.stop_event import StopEvent
from celery_stargate.testing.local_pulsar.server import LocalPulsar


def main() -> int:
    """Run until Ctrl-C or SIGTERM; 1 when the port cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m celery_stargate.testing",
        description="A stand-in for Pulsar's WebSocket API, for tests and demos. Not a broker: "
        "everything is in memory.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0: a free one (8080)")
    options = parser.parse_args()
    stop = StopEvent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    pulsar = LocalPulsar(host=options.host, port=options.port)
    try:
        pulsar.start()
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    print(pulsar.url, flush=True)
    stop.wait()
    pulsar.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
