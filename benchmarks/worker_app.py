"""What a worker loads: ``celery -A benchmarks.worker_app worker``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.signals import worker_ready

from .app import CONFIG_VARIABLE, READY_VARIABLE, Config, make_app

app = make_app(Config.from_json(os.environ[CONFIG_VARIABLE]))
app.set_current()


@worker_ready.connect
def _tell(**_: Any) -> None:
    Path(os.environ[READY_VARIABLE]).touch()
