"""A message that breaks each connection gets its failure; the others are delayed by seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from celery_stargate import Acknowledger, ProduceError, Stargate
from celery_stargate.calls.inbox import Ticket
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.support.log import package_logger as logger
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import read_back
from tests.servers import pulsar as pulsar_module
from tests.servers.fixtures import require
from tests.servers.pulsar import PulsarServer

#: How many connections one poison may break. A break costs a tenth of a second, and more if several
#: follow one another without a receipt: others are delayed by far less than five seconds.
BREAKS = 4
LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def small_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarServer]:
    """A real broker that takes frames of 64 KiB at most."""
    require(pulsar_module.missing_reason())
    server = PulsarServer(
        tmp_path_factory.mktemp("small-frames"), extra={"webSocketMaxTextFrameSize": str(LIMIT)}
    )
    server.start()
    try:
        yield server
    finally:
        server.kill()


def check(app: Celery, count: int, places: list[int], *statuses: str) -> None:
    """Publish so many messages, too large ones at some places; each gets its outcome in time."""
    task = app.tasks["celery_stargate.produce"]
    payloads = [str(number) for number in range(count)]
    for place in places:
        payloads[place] = "x" * (LIMIT + 1)
    results = [task.delay(payload) for payload in payloads]
    with Acknowledger(app):
        for place, result in enumerate(results):
            if place in places:
                with pytest.raises(ProduceError) as caught:
                    result.get(timeout=30)
                assert caught.value.failure["code"] == "frame-too-large"
                # The real broker's socket may be gone before its close frame was read.
                assert caught.value.status in statuses
                assert "stargate_max_frame_size" in str(caught.value)
            else:
                assert result.get(timeout=30)["status"] in ("stored", "deduplicated")


@pytest.mark.parametrize("delivery", ["at_least_once", "effectively_once"])
def test_a_frame_that_is_too_large(
    make_app: MakeApp, topic: str, delivery: str, breaks: Callable[[], int]
) -> None:
    """In the middle of a thousand; the order of the others, and the numbers, stay right."""
    with LocalPulsar(max_frame=LIMIT) as local:
        check(make_app(local.url, delivery=delivery), 1000, [500], "refused")
        stored = [each.decode() for each in local.payloads(topic)]
    assert breaks() <= BREAKS
    others = [str(number) for number in range(1000) if number != 500]
    assert list(dict.fromkeys(stored)) == others
    if delivery == "effectively_once":
        assert stored == others


@pytest.mark.parametrize("delivery", ["at_least_once", "effectively_once"])
def test_a_frame_that_is_too_large_for_the_real_broker(
    make_app: MakeApp,
    small_broker: PulsarServer,
    topic: str,
    delivery: str,
    breaks: Callable[[], int],
) -> None:
    """Two of them, with messages between, before and behind."""
    check(make_app(small_broker.url, delivery=delivery), 600, [100, 400], "refused", "unknown")
    assert breaks() <= 2 * BREAKS
    stored = [each.decode() for each in read_back(small_broker.url, topic, 598)]
    others = [str(number) for number in range(600) if number not in (100, 400)]
    assert list(dict.fromkeys(stored)) == others
    if delivery == "effectively_once":
        assert stored == others


def put(app: Celery, topic: str, context: str, frame: bytes, label: str) -> Ticket:
    """Put a message of any form, as no caller of this version would, and wait for its outcome."""
    runtime = Stargate.of(app).runtime
    ticket = runtime.inbox.expect()
    record = Record(context, inbox=ticket.address)
    runtime.outbox.put(Lane(topic), record, [(label, frame)], timeout=3600)
    return ticket


def failure_of(ticket: Ticket) -> dict[str, Any]:
    """Return what a waiting call is told."""
    error = ticket.future.exception(30)
    assert isinstance(error, ProduceError)
    return error.failure


@pytest.fixture
def breaks(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many connections broke. Time would depend on the machine."""
    caplog.set_level("WARNING", logger.name)
    words = ("the connection broke", "without a context")
    return lambda: sum(
        each.levelname == "WARNING" and any(word in each.getMessage() for word in words)
        for each in caplog.records
    )


@pytest.mark.parametrize("delivery", ["at_least_once", "effectively_once"])
def test_a_context_whose_receipt_is_too_large(
    make_app: MakeApp, topic: str, delivery: str, breaks: Callable[[], int]
) -> None:
    """It is stored, and nobody can know: its outcome is unknown, the others have receipts."""
    context = "x" * 70_000
    frame = b'{"payload":"cG9pc29u","context":"%s"}' % context.encode()
    with LocalPulsar() as local:
        app = make_app(local.url, delivery=delivery)
        task = app.tasks["celery_stargate.produce"]
        before = [task.delay(str(number)) for number in range(50)]
        poison = put(app, topic, context, frame, "")
        results = before + [task.delay(str(number)) for number in range(50, 100)]
        with Acknowledger(app):
            for result in results:
                assert result.get(timeout=30)["status"] in ("stored", "deduplicated")
            failure = failure_of(poison)
        assert (failure["code"], failure["status"]) == ("reply-too-large", "unknown")
        assert "use a shorter one" in failure["reason"]
        assert breaks() <= BREAKS
        assert b"poison" in local.payloads(topic)


@pytest.mark.parametrize("delivery", ["at_least_once", "effectively_once"])
def test_a_frame_that_pulsar_cannot_read(
    make_app: MakeApp, topic: str, delivery: str, breaks: Callable[[], int]
) -> None:
    """Its error names no context."""
    with LocalPulsar() as local:
        app = make_app(local.url, delivery=delivery)
        task = app.tasks["celery_stargate.produce"]
        before = [task.delay(str(number)) for number in range(50)]
        poison = put(app, topic, "poison", b"no JSON", "poison")
        results = before + [task.delay(str(number)) for number in range(50, 100)]
        with Acknowledger(app):
            for result in results:
                assert result.get(timeout=30)["status"] in ("stored", "deduplicated")
            assert failure_of(poison)["code"] == "unreadable"
        assert breaks() <= BREAKS
        stored = [each.decode() for each in local.payloads(topic)]
        assert list(dict.fromkeys(stored)) == [str(number) for number in range(100)]


def test_a_broker_that_is_killed_again_and_again_fails_nothing(
    make_app: MakeApp, topic: str
) -> None:
    """Connections that break while messages go on are no message's doing."""
    with LocalPulsar() as local:
        app = make_app(local.url)
        task = app.tasks["celery_stargate.produce"]
        results = [task.delay(str(number)) for number in range(400)]
        local.faults.close_after_receipts(20)
        with Acknowledger(app):
            ends = time.monotonic() + 30
            for place, result in enumerate(results):
                assert result.get(timeout=max(1.0, ends - time.monotonic()))["status"] == "stored"
                if place % 20 == 0:
                    local.faults.close_after_receipts(10)
