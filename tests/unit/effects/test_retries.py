"""``autoretry_for`` and its options: a message that failed is published by a new attempt."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from kombu.utils import json

from celery_stargate import InvalidMessage, ProduceError, Stargate
from celery_stargate.effects.run import Effects
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.revocations import Revocations
from celery_stargate.model.follow_up import FollowUp
from celery_stargate.worker.strategy import _LanePool
from tests.unit.effects.test_failing import messages
from tests.unit.helpers import TOPIC, NotedLanes, failure, make_app, receipt


@pytest.fixture(autouse=True)
def revoked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The ids that were revoked, in place of those in Redis."""
    ids: set[str] = set()
    monkeypatch.setattr(Revocations, "remembers", lambda _, task_id: task_id in ids)
    return ids


class Rig:
    """An app with a produce task that is retried, and lanes that take notes."""

    def __init__(self, **options: Any) -> None:
        self.app = make_app()
        self.stargate = Stargate(self.app)
        self.lanes = NotedLanes()
        self.stargate.runtime.__dict__["outbox"] = self.lanes
        given: dict[str, Any] = {
            "autoretry_for": (ProduceError,),
            "max_retries": 2,
            "retry_backoff": 3,
        }
        given = {**given, "retry_jitter": False, **options}
        self.task = self.stargate.task("shop.orders", topic=TOPIC, **given)
        self.effects = Effects(self.app, None)

    def call(self) -> Record:
        """Call the task; return what is recorded."""
        cry = self.app.signature("shop.cry")
        kwargs = {"on_error": cry, "delivery_timeout": 7}
        self.task.apply_async(({"payload": "x", "key": "k"},), kwargs)
        return self.lanes.puts[-1].record

    def fail(self, record: Record) -> list[tuple[dict[str, Any], Any]]:
        """Do the effects of a failure; return what is published."""
        settled = Settled(record, (failure(record.context),))
        assert self.effects.run([settled]) == [record.context]
        return messages(self.app)

    def take(self, headers: dict[str, Any], body: Any) -> Record:
        """Take the message of a retry, as a worker does; return what is recorded."""
        pool = _LanePool(self.app, SimpleNamespace(hostname="w@h"))
        request = {**headers, **body[2]}
        pool._record(headers["task"], headers["id"], request, body, None, None)  # noqa: SLF001
        return self.lanes.puts[-1].record


def test_a_message_that_failed_is_published_again() -> None:
    """Until the attempts are used up; then the task fails, and `on_error` is triggered once."""
    rig = Rig()
    first = record = rig.call()
    contexts = [record.context]
    for attempt in (1, 2):
        [(headers, body)] = rig.fail(record)
        assert rig.app.AsyncResult(first.context).state == "RETRY"
        assert (headers["task"], headers["id"]) == ("shop.orders", first.context)
        assert headers["retries"] == attempt
        assert headers["eta"] is not None
        assert body[0] == [{"payload": "x", "key": "k"}]
        assert body[1]["delivery_timeout"] == 7
        record = rig.take(headers, body)
        assert record.task == "shop.orders"
        assert rig.lanes.puts[-1].options["timeout"] == 7, "a deadline of its own"
        contexts.append(record.context)
    # A lane may still know the context of an earlier attempt.
    assert len(set(contexts)) == 3
    [(headers, body)] = rig.fail(record)
    assert headers["task"] == "shop.cry"
    assert body[0][0]["context"] == first.context
    result = rig.app.AsyncResult(first.context)
    assert result.state == "FAILURE"
    assert isinstance(result.result, ProduceError)


def test_a_later_attempt_that_succeeds() -> None:
    """Its result is the task's, under the task's id."""
    rig = Rig()
    first = rig.call()
    [(headers, body)] = rig.fail(first)
    record = rig.take(headers, body)
    assert record.follow_up is FollowUp.MORE
    rig.effects.run([Settled(record, (receipt(record.context),))])
    result = rig.app.AsyncResult(first.context)
    assert result.get(timeout=1) == receipt(first.context).to_dict()


def test_a_task_that_was_revoked_is_not_tried_again(revoked: set[str]) -> None:
    """The worker that gets its next attempt knows of the revocation by the task's id."""
    rig = Rig()
    record = rig.call()
    [(headers, body)] = rig.fail(record)
    revoked.add(record.context)
    rig.take(headers, body)
    assert len(rig.lanes.puts) == 1
    assert str(rig.app.AsyncResult(record.context).state) == "REVOKED"


@pytest.mark.parametrize("header", [None, "mine"])
def test_a_retry_has_no_headers_of_ours(header: str | None) -> None:
    """Only those of the user, as Celery's own retry has them."""
    rig = Rig()
    given: dict[str, Any] = {"headers": {"stargate_test": header}} if header else {}
    rig.task.apply_async(("x",), **given)
    [(headers, _)] = rig.fail(rig.lanes.puts[-1].record)
    assert {name for name in headers if name.startswith("stargate_")} == (
        {"stargate_test"} if header else set()
    )


def test_the_delay_of_a_retry() -> None:
    """It is that of the task, unless it has a growing one."""
    rig = Rig(retry_backoff=False, default_retry_delay=1000)
    [(headers, _)] = rig.fail(rig.call())
    left = datetime.fromisoformat(headers["eta"]) - datetime.now(UTC)
    assert 900 < left.total_seconds() <= 1000


def test_other_errors_are_not_retried() -> None:
    """What is not in `autoretry_for`, or is in `dont_autoretry_for`."""
    rig = Rig(dont_autoretry_for=(ProduceError,))
    record = rig.call()
    [(headers, _)] = rig.fail(record)
    assert headers["task"] == "shop.cry"
    assert rig.app.AsyncResult(record.context).state == "FAILURE"


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_a_stored_message_is_not_published_again() -> None:
    """Its link cannot be published: that is no failure of the message."""
    rig = Rig(autoretry_for=(Exception,))

    @rig.app.task(name="shop.done", shared=False)
    def done() -> None: ...

    rig.task.apply_async(("x",), link=done.s())
    record = rig.lanes.puts[-1].record
    rig.effects.run([Settled(record, (receipt(record.context),))])
    assert messages(rig.app) == []
    assert isinstance(rig.app.AsyncResult(record.context).result, TypeError)


def test_the_broker_is_away_when_a_retry_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context stays due; Celery alone would lose the retry."""
    rig = Rig()
    record = rig.call()
    kind: Any = type(rig.app)

    def away(*_args: Any, **_options: Any) -> None:
        raise OperationalError("the broker is away")

    settled = Settled(record, (failure(record.context),))
    with monkeypatch.context() as patched:
        patched.setattr(kind, "send_task", away)
        assert Effects(rig.app, None).run([settled]) == []
    [(headers, _)] = rig.fail(record)
    assert headers["retries"] == 1


def test_a_task_that_is_not_retried_keeps_no_arguments() -> None:
    """Its record holds the message once, in the frame."""
    rig = Rig(autoretry_for=())
    assert "stargate_call" not in json.loads(str(rig.call().request))


def test_a_retry_of_a_message_that_was_not_kept() -> None:
    """A hook that calls `retry` without arguments is told so."""
    with pytest.raises((InvalidMessage, TypeError)):
        Rig().task.apply_async((), {})
