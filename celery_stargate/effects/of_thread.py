"""What one thread needs to do effects; Celery's backends belong to a thread each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_stargate.effects.results.at_once import AtOnce
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.tracer import OutcomeTracer

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["OfThread"]


class OfThread:
    """Made in the thread, with the thread's own backend.

    Arguments:
        app: the Celery app.
        hostname: the worker's name, for results and events; None outside a worker.
    """

    def __init__(self, app: Celery, hostname: str | None) -> None:
        self.batch = ResultBatch(app.backend)
        self.rows = ResultRows(app, self.batch)
        self.at_once = AtOnce(self.rows)
        self.tracer = OutcomeTracer(app, hostname, self.batch)
