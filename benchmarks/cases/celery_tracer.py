"""Celery's tracer costs many times what a plain call does, with no backend and no broker at all."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.trace import build_tracer

from .findings import Finding
from .timing import micros_of

__all__ = ["measure"]


def measure(url: str = "") -> Finding:
    """Trace a task that does nothing, whose result nobody keeps."""
    app = Celery("case", broker="memory://", set_as_current=False)

    @app.task(name="case.noop", shared=False, ignore_result=True)
    def noop() -> None:
        """Do nothing."""

    task: Any = noop
    tracer: Any = build_tracer("case.noop", task, app.loader, "host", app=app)
    request = {"id": "id", "is_eager": False, "delivery_info": {}}
    traced = micros_of(lambda: tracer("id", (), {}, dict(request)), 2000)
    called = micros_of(task.run, 2000)
    return Finding(
        "celery_tracer",
        "Celery's tracer, of a task that does nothing and keeps no result",
        {"traced": f"{traced:.1f} µs of CPU", "called": f"{called:.1f} µs"},
    )


if __name__ == "__main__":
    print(measure())
