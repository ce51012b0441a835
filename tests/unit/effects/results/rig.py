"""What the tests of results share: apps, tasks and the decision about one result."""

from __future__ import annotations

from typing import Any

from celery import Celery

from celery_stargate import ProduceTask
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.tracer import run
from celery_stargate.lanes.record import Record
from celery_stargate.model.follow_up import Remaining, ResultRow
from tests.unit.helpers import make_app, receipt

#: Nothing is written to it: a batch keeps what it gets.
REDIS = "redis://redis.invalid:6379/0"
TASK = ProduceTask.default_name


def redis_app(**conf: Any) -> Celery:
    """Return an app with the Redis backend."""
    return make_app(**{"result_backend": REDIS, **conf})


def store(
    app: Celery, request: str | None = None, task: str = ProduceTask.default_name
) -> type[ResultRow] | Remaining:
    """Decide about one result; return the kind of the decision."""
    batch = ResultBatch(app.backend)
    record = Record("c", task=task, request=request)
    found = ResultRows(app, batch).decide(record, receipt().to_dict())
    # The row is the caller's: nothing stays in the batch.
    assert len(batch) == 0
    return ResultRow if isinstance(found, ResultRow) else found


def own(app: Celery, base: type = ProduceTask, body: Any = run, **options: Any) -> str:
    """Give an app a produce task of its own; return its name."""
    given: dict[str, Any] = {"bind": True, "base": base, "shared": False, **options}
    make: Any = app.task(name="shop.own", **given)
    make(body)
    return "shop.own"


#: Decisions.
PLAIN = ResultRow
IGNORED = Remaining.NOTHING
NOT_PLAIN = Remaining.FULL


class Clock:
    """The time, as a test wants it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
