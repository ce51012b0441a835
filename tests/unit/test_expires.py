"""`expires` of a produce task, on every way that Celery takes it: read as Celery's worker does."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, group, signals
from celery.exceptions import TaskRevokedError

from celery_stargate import Failure, ProduceTask
from celery_stargate.effects.run import Effects
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.durations import until
from tests.unit.helpers import NotedLanes, make_stargate, sent_by_broker

ZONES = ("UTC", "Asia/Tokyo", "America/New_York")


def naive(seconds: float) -> datetime:
    """Return a time without a zone: Celery's worker takes it for UTC."""
    return datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("form", ["naive", "naive text", "aware", "aware text", "Z", "seconds"])
def test_the_time_that_is_left(zone: str, form: str) -> None:
    """Is the same in every form, wherever the app is."""
    _, lanes, task = make_stargate(timezone=zone)
    moment = datetime.now(UTC) + timedelta(seconds=100)
    expires: Any = {
        "naive": naive(100),
        "naive text": naive(100).isoformat(),
        "aware": moment.astimezone(),
        "aware text": moment.isoformat(),
        "Z": f"{naive(100).isoformat()}Z",
        "seconds": 100,
    }[form]
    assert 60 < until(expires, task.app) <= 100
    task.apply_async(("a",), expires=expires)
    assert 60 < lanes.puts[0].options["timeout"] <= 100


PAST: dict[str, Any] = {
    "zero": 0,
    "negative": -5,
    "naive": naive(-60),
    "naive text": naive(-60).isoformat(),
    "aware": datetime.now(UTC) - timedelta(1),
}


def assert_expired(task: ProduceTask, lanes: NotedLanes, task_id: str) -> None:
    """Nothing was recorded or sent, and the task ended as Celery ends an expired one."""
    assert lanes.puts == []
    assert sent_by_broker(task.app) is None
    result: Any = task.app.AsyncResult(task_id)
    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=1)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expires", PAST.values(), ids=PAST)
def test_what_has_expired_is_not_recorded(expires: Any, zone: str) -> None:
    """It is revoked, and the receivers of `task_revoked` are told why."""
    _, lanes, task = make_stargate(timezone=zone)
    told: list[bool] = []

    def note(expired: bool, **_: Any) -> None:
        told.append(expired)

    signals.task_revoked.connect(note)
    try:
        result = task.apply_async(("a",), expires=expires)
    finally:
        signals.task_revoked.disconnect(note)
    assert_expired(task, lanes, result.id)
    assert told == [True]


def test_on_error_is_told() -> None:
    """As of any message that was not sent."""
    stargate, lanes, task = make_stargate()
    task.apply_async(("a",), {"on_error": stargate.app.signature("shop.sorry")}, expires=-1)
    [told], _, _ = sent_by_broker(stargate.app)
    assert (told["code"], told["status"]) == ("expired", "refused")
    assert lanes.puts == []


def test_an_option_of_the_task() -> None:
    """Counts, unless the call has its own."""
    stargate, lanes, _ = make_stargate()
    late = stargate.task("shop.late", expires=-1)
    assert_expired(late, lanes, late.delay("a").id)
    late.apply_async(("a",), expires=50)
    late.apply_async(("a",), expires=None)
    timeouts = [put.options["timeout"] for put in lanes.puts]
    assert timeouts[0] <= 50
    assert timeouts[1] == 86400


@pytest.mark.parametrize("way", ["signature", "group", "chain"])
def test_a_signature(way: str) -> None:
    """Carries it into a canvas."""
    stargate, lanes, task = make_stargate()
    signature: Any = task.s("a").set(expires=-1)
    made: Any
    if way == "signature":
        task_id = signature.apply_async().id
    elif way == "group":
        made = group([signature], app=stargate.app).apply_async()
        task_id = made.children[0].id
    else:
        made = chain(signature, task.s(), app=stargate.app).apply_async()
        task_id = made.parent.id
    assert_expired(task, lanes, task_id)


@pytest.mark.parametrize("ignored", [True, False])
def test_an_ignored_result_stays_ignored(ignored: bool) -> None:
    """Unless `store_errors_even_if_ignored`."""
    stargate, _, _ = make_stargate()
    for store, state in ((False, "PENDING"), (True, "REVOKED")):
        made = stargate.task(
            f"shop.{store}", ignore_result=ignored, store_errors_even_if_ignored=store
        )
        result = made.apply_async(("a",), expires=-1)
        assert stargate.app.AsyncResult(result.id).state == (state if ignored else "REVOKED")


@pytest.mark.parametrize(
    ("failure", "expires", "state"),
    [
        (deadline_failure("c", "t", sent=False), -1, "REVOKED"),
        (deadline_failure("c", "t", sent=False), 60, "FAILURE"),
        (deadline_failure("c", "t", sent=True), -1, "FAILURE"),
        (Failure(context="c", code="http-404"), -1, "FAILURE"),
    ],
    ids=["expired", "its delivery_timeout", "perhaps stored", "refused"],
)
def test_expired_in_the_lane(failure: Failure, expires: float, state: str) -> None:
    """Only what was never sent, and whose `expires` is over."""
    stargate, _, task = make_stargate()
    task_id = uuid.uuid4().hex
    moment = datetime.now(UTC) + timedelta(seconds=expires)
    request = f'{{"id": "{task_id}", "expires": "{moment.isoformat()}"}}'
    given = Failure(context=task_id, status=failure.status, code=failure.code)
    Effects(stargate.app, None).fail(task.name, request, given)
    assert stargate.app.AsyncResult(task_id).state == state
