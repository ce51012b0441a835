"""gunicorn's configuration: its workers say when they are ready."""

from __future__ import annotations

from typing import Any

__all__ = ["READY", "post_worker_init"]

#: What a worker logs when it is ready.
READY = "the worker is ready"


def post_worker_init(worker: Any) -> None:
    """Say so; gunicorn calls this."""
    worker.log.info(READY)
