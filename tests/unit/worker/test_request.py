"""A produce task that waits in the worker: it shows no payload, and ends as revoked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import signals
from celery.worker import state

from celery_stargate import StoreUnavailable
from tests.unit.helpers import SECRETS, sent_by_broker
from tests.unit.worker.test_strategy import Rig


@pytest.fixture
def waiting() -> Any:
    """The request of a call by name, which waits for its ETA; Celery shows its arguments."""
    rig, received = Rig(), []

    def receiver(request: Any, **_: Any) -> None:
        received.append(request)

    signals.task_received.connect(receiver)
    rig.receive(
        message=SECRETS[0], on_error=dict(rig.app.signature("sorry")), options={"countdown": 60}
    )
    signals.task_received.disconnect(receiver)
    yield rig, received[0]
    state.reset_state()


def test_no_payload_is_shown(waiting: Any) -> None:
    """Neither by `inspect scheduled`, nor in events."""
    _, request = waiting
    for safe in (True, False):
        assert SECRETS[0] not in json.dumps(request.info(safe=safe), default=repr)
    assert (request.argsrepr, request.kwargsrepr) == ("(<a message>,)", "{}")


def test_terminated_while_it_waits(waiting: Any) -> None:
    """No process is killed; the message is acked, and `on_error` is told."""
    rig, request = waiting
    pool: Any = object()
    request.terminate(pool, signal="KILL")
    assert rig.app.AsyncResult(request.id).state == "REVOKED"
    rig.ack.assert_called_once()
    [told], _, _ = sent_by_broker(rig.app)
    assert told["code"] == "revoked"
    assert request.revoked()
    assert rig.lanes.puts == []


def test_expired_in_the_broker() -> None:
    """`on_error` is told of that, too."""
    rig = Rig()
    rig.receive(message="a", on_error=dict(rig.app.signature("sorry")), options={"expires": -5})
    [told], _, _ = sent_by_broker(rig.app)
    assert told["code"] == "expired"


def test_a_bad_on_error(caplog: pytest.LogCaptureFixture) -> None:
    """Is logged; the consumer goes on."""
    Rig().receive(message="a", on_error=5, options={"expires": -5})
    assert "its on_error is not told" in caplog.text


def test_revoked_while_redis_is_away() -> None:
    """It is not put again."""
    rig = Rig()
    rig.lanes.error = StoreUnavailable("Redis is away")
    task_id = rig.receive(message="a")
    [(_, again, args)] = [call.args for call in rig.timer.call_after.call_args_list]
    rig.lanes.error = None
    state.revoked.add(task_id)
    again(*args)
    state.reset_state()
    assert rig.lanes.puts == []
    rig.ack.assert_called_once()
