"""A relay that kills itself with -9 at a step: `python -m …dying_relay STEP ALIAS [wait]`.

With `wait` it goes on until it has rows to die of; else it ends where none is left for it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import django

from tests.django_project.celery import app


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(step: str, using: str, wait: str = "") -> None:
    django.setup()
    app.set_current()
    from celery_stargate.contrib.django.relay import Relay
    from celery_stargate.contrib.django.settings import OutboxSettings
    from celery_stargate.support.stop_event import StopEvent

    class Dying(Relay):
        def read(self) -> Any:
            if step == "leased":
                die()
            rows = super().read()
            if step == "read":
                die()
            return rows

        def put(self, entries: Any) -> Any:
            if step == "half-put":
                super().put(entries[: len(entries) // 2])
                die()
            recorded = super().put(entries)
            if step == "put":
                die()
            return recorded

        def mark(self, ids: Any) -> int:
            if step == "half-marked":
                ids = {lane: list(some)[: len(some) // 2] for lane, some in ids.items()}
            done = super().mark(ids)
            die()
            return done

    Dying(using, StopEvent(), OutboxSettings.read()).run(burst=not wait)


if __name__ == "__main__":
    main(*sys.argv[1:])
