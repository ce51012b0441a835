"""What a call in this process makes a worker's container do, on each broker."""

from __future__ import annotations

import pytest
from celery import chain
from celery.result import AsyncResult

from celery_stargate import Message, ProduceError, produce_task
from celery_stargate.testing.pytest_celery import PulsarTestContainer
from tests.pytest_celery.conftest import WAIT, Setup, eventually
from tests.pytest_celery.tasks import build, note


def test_the_result_is_the_receipt(
    celery_setup: Setup, default_pulsar_container: PulsarTestContainer, pulsar_topic: str
) -> None:
    """One message and a list: `.get()` returns their receipts, and the topic holds them in
    order."""
    first = produce_task.delay(("k", "one"), topic=pulsar_topic)
    rest = produce_task.delay(["two", "three"], topic=pulsar_topic)
    receipts = [first.get(timeout=WAIT), *rest.get(timeout=WAIT)]
    assert [each["status"] for each in receipts] == ["stored"] * 3
    assert receipts[0]["context"] == first.id
    assert default_pulsar_container.read(pulsar_topic, 3) == [
        Message(payload=b"one", key="k"),
        Message(payload=b"two"),
        Message(payload=b"three"),
    ]


def test_callbacks(celery_setup: Setup, pulsar_topic: str, key: str) -> None:
    """A stored message starts `on_ack` in the worker, a refused one `on_error`, each once, with
    the outcome; and the refused one's result raises."""
    refused_topic = "persistent://public/no-such-namespace/t"
    good, bad = f"{key}-good", f"{key}-bad"
    on_ack, on_error = note.s(good), note.s(bad)
    stored = produce_task.delay("a", topic=pulsar_topic, on_ack=on_ack, on_error=on_error)
    refused = produce_task.delay("b", topic=refused_topic, on_ack=on_ack, on_error=on_error)
    receipt = stored.get(timeout=WAIT)
    with pytest.raises(ProduceError):
        refused.get(timeout=WAIT)
    assert eventually(lambda: celery_setup.noted(good) and celery_setup.noted(bad))
    [acknowledged], [failed] = celery_setup.noted(good), celery_setup.noted(bad)
    assert acknowledged["argument"] == receipt
    assert failed["argument"]["context"] == refused.id
    assert failed["argument"]["code"] == "http-404"


def test_a_chain_goes_through_both_brokers(
    celery_setup: Setup, default_pulsar_container: PulsarTestContainer, pulsar_topic: str, key: str
) -> None:
    """A task by Celery's broker, then a message by Pulsar, then a task that gets its receipt."""
    result = chain(build.s(17), produce_task.s(topic=pulsar_topic), note.s(key)).delay()
    result.get(timeout=WAIT)
    [noted] = celery_setup.noted(key)
    assert isinstance(result.parent, AsyncResult)
    assert noted["argument"]["context"] == result.parent.id
    expected = Message(payload=b"one lamp", key="order-17")
    assert default_pulsar_container.read(pulsar_topic, 1) == [expected]


def test_a_countdown_goes_by_the_broker(
    celery_setup: Setup, default_pulsar_container: PulsarTestContainer, pulsar_topic: str
) -> None:
    """A produce task that waits comes to the worker as any task does, and is published then."""
    options = {"topic": pulsar_topic}
    result = produce_task.apply_async(args=("later",), kwargs=options, countdown=1)
    assert result.get(timeout=WAIT)["status"] == "stored"
    celery_setup.worker.assert_log_exists(f"celery_stargate.produce[{result.id}] received")
    assert default_pulsar_container.read(pulsar_topic, 1) == [Message(payload=b"later")]
