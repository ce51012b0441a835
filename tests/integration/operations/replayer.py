"""A process that replays all dead letters of a prefix, for tests that kill it.

``python -m tests.integration.operations.replayer REDIS_URL PREFIX TOPIC``; it prints a line at its
first step.
"""

from __future__ import annotations

import sys

from celery import Celery

from celery_stargate import Stargate


def main(url: str, prefix: str, topic: str) -> None:
    """Replay, one letter after another as far as steps allow."""
    app = Celery("replayer", broker=url, backend=url, set_as_current=False)
    app.conf.update(stargate_url="ws://127.0.0.1:1", stargate_prefix=prefix, stargate_topic=topic)
    letters = Stargate(app).dead_letters
    for number, _ in enumerate(letters.replay(list(letters.letters()))):
        if number == 0:
            print("began", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
