"""Publish each line of a file, in order: python load.py FILE [TOPIC]."""

import os
import sys
import time
from itertools import islice
from pathlib import Path

from celery import Celery
from celery_stargate import ProduceError, Stargate

CHUNK = 5000

app = Celery("loader")
app.conf.update(
    stargate_url=os.environ.get("STARGATE_URL", "ws://localhost:8080"),
    stargate_redis_url=os.environ.get("REDIS_URL", "redis://localhost"),
)
stargate = Stargate(app)


def chunks(lines, size):
    """Yield lists of lines, so that a file of any size fits into memory."""
    while chunk := list(islice(lines, size)):
        yield chunk


def load(path, topic):
    """Publish all lines; return how many were stored, and the lines that were not."""
    total, done, stored, failed = path.stat().st_size, 0, 0, []
    began = time.monotonic()
    with path.open(encoding="utf-8") as file:
        for chunk in chunks(file, CHUNK):
            lines = [line.rstrip("\n") for line in chunk]
            try:
                # Each line has its own receipt; this returns when all of them are there.
                stored += len(stargate.produce_many(lines, topic=topic, timeout=60))
            except ProduceError as error:
                for line, outcome in zip(lines, error.failure["outcomes"], strict=True):
                    if "message_id" in outcome:
                        stored += 1
                    else:
                        failed.append((line, outcome))
            done += sum(len(line.encode()) for line in chunk)
            speed = stored / (time.monotonic() - began)
            print(
                f"\r{done / total:4.0%}  {stored:,} stored, {len(failed):,} failed, {speed:,.0f}/s",
                end="",
                file=sys.stderr,
            )
    print(file=sys.stderr)
    return stored, failed


if __name__ == "__main__":
    topic = sys.argv[2] if len(sys.argv) > 2 else "persistent://public/default/lines"
    stored, failed = load(Path(sys.argv[1]), topic)
    for line, outcome in failed:
        print(f"{outcome['status']}: {outcome['reason']}: {line}")
    print(f"{stored} stored, {len(failed)} failed")
    sys.exit(1 if failed else 0)
