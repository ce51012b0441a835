"""What a worker loads: ``celery -A benchmarks.worker_app worker``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.signals import worker_ready

from .app import CONFIG_VARIABLE, READY_VARIABLE, Config, make_app

config = Config.from_json(os.environ[CONFIG_VARIABLE])
app = make_app(config)
app.set_current()

if config.metrics:
    from celery_stargate.instrumentation.counting import instrument

    instrument()
if config.traces is not None:
    from .tracing import trace

    trace(config.traces)

if config.steps is not None:
    from .step_notes import Notes

    Notes(Path(config.steps)).of_owner()


@worker_ready.connect
def _tell(**_: Any) -> None:
    Path(os.environ[READY_VARIABLE]).touch()
