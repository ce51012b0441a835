"""Nobody owns lanes: the caller's log says so once, and so does a wait that is over."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeout

from celery_stargate import StoreUnavailable, produce_task
from celery_stargate.calls.ownership import NOBODY, OwnerNotice
from celery_stargate.worker.strategy import _LanePool
from tests.unit.helpers import make_stargate
from tests.unit.worker.test_strategy import Rig


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """And again when an owner was there meanwhile; it is looked for once a minute at most."""
    workers, looks, now = [0], [0], [0.0]

    def count() -> int:
        looks[0] += 1
        return workers[0]

    notice = OwnerNotice(count, lambda: now[0])
    for minute in range(3):
        now[0] = 61.0 * minute
        notice.look()
        notice.look()
    assert looks == [3]
    assert warnings_of(caplog) == [NOBODY]
    for workers[0] in (1, 0):
        now[0] += 61
        notice.look()
    assert warnings_of(caplog) == [NOBODY, NOBODY]


def test_redis_may_be_away() -> None:
    """Then nothing is said of owners."""

    def count() -> int:
        raise StoreUnavailable("Redis is away")

    assert not OwnerNotice(count).nobody_owns()


@pytest.mark.parametrize("workers", [0, 1])
def test_by_a_call(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    """And by the timeout of its result."""
    _, lanes, task = make_stargate()
    vars(lanes).update(survey=lambda: (workers, []))
    result = task.delay("a")
    task.delay("b")
    assert warnings_of(caplog) == ([] if workers else [NOBODY])
    for each in (result, task.AsyncResult(result.id)):
        with pytest.raises(CeleryTimeout) as caught:
            each.get(timeout=0.01)
        assert (NOBODY in str(caught.value)) is (workers == 0)


def test_by_a_worker_that_passes_it_on(caplog: pytest.LogCaptureFixture) -> None:
    """Such as one that is started with `--without-stargate`."""
    rig = Rig()
    vars(rig.lanes).update(survey=lambda: (0, []))
    rig.receive(message="a")
    assert NOBODY in warnings_of(caplog)


def test_by_a_worker_without_stargate(caplog: pytest.LogCaptureFixture) -> None:
    """A produce task that comes by its name fails there; the log says why."""
    app = Celery("bare", set_as_current=False, broker="memory://", backend="cache+memory://")
    assert produce_task.name in app.tasks
    consumer: Any = type("Consumer", (), {"hostname": "unit@here"})
    pool: Any = _LanePool(app, consumer)
    body = '[["a"], {}, {}]'
    pool._record(  # noqa: SLF001
        produce_task.name, "the-id", {"id": "the-id"}, body, "application/json", "utf-8"
    )
    assert "because of this worker: the Celery app 'bare' has no Stargate" in caplog.text
    assert app.AsyncResult("the-id").state == "FAILURE"
