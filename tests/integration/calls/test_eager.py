"""``eager.py``: `task_always_eager`, with Pulsar and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, group

from celery_stargate import ProduceError, ProduceTask, Stargate
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.threads import still_alive


class Rig:
    """An eager app without a Redis or a broker, and what its callbacks saw."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.stargate = Stargate.of(app)
        self.seen: list[tuple[str, Any, threading.Thread]] = []
        register: Any = app

        def on_ack(receipt: Any) -> None:
            self.seen.append(("ack", receipt, threading.current_thread()))

        def on_error(failure: Any) -> None:
            self.seen.append(("error", failure, threading.current_thread()))

        def broken(receipt: Any) -> None:
            raise LookupError("the callback is broken")

        self.ack = register.task(name="shop.ack", shared=False)(on_ack).s()
        self.error = register.task(name="shop.error", shared=False)(on_error).s()
        self.broken = register.task(name="shop.broken", shared=False)(broken).s()

    @property
    def task(self) -> ProduceTask:
        """The app's produce task."""
        found = self.app.tasks[ProduceTask.default_name]
        assert isinstance(found, ProduceTask)
        return found


@pytest.fixture
def rig(make_app: MakeApp, local: LocalPulsar, refusing_port: int) -> Iterator[Rig]:
    """A rig; afterwards it has left no thread of ours."""
    before = threading.enumerate()
    yield Rig(eager(make_app, local.url, refusing_port))
    assert not still_alive(before, "stargate")


def eager(make_app: MakeApp, url: str, refusing_port: int, **conf: Any) -> Celery:
    """Return an eager app; Redis and broker refuse it."""
    nowhere = f"redis://127.0.0.1:{refusing_port}/0"
    return make_app(
        url,
        conf={
            "task_always_eager": True,
            "task_eager_propagates": True,
            "broker_url": nowhere,
            "result_backend": "cache+memory://",
            "result_backend_transport_options": {},
            "stargate_redis_url": nowhere,
            **conf,
        },
    )


def test_produce(rig: Rig, topic: str) -> None:
    """The receipt, or the receipts."""
    receipt = rig.stargate.produce("a")
    assert (receipt.status, receipt.topic) == ("stored", topic)
    assert len(rig.stargate.produce(["b", ("k", "c")])) == 2


def test_callbacks_run_in_the_callers_thread(rig: Rig) -> None:
    """Before the call returns its context."""
    context = rig.stargate.produce("a", on_ack=rig.ack, context="mine")
    [(kind, receipt, thread)] = rig.seen
    assert (context, kind, receipt["context"]) == ("mine", "ack", "mine")
    assert thread is threading.current_thread()


def test_aproduce(rig: Rig) -> None:
    """In the loop's own thread."""

    async def main() -> tuple[Any, str]:
        assert (await rig.stargate.aproduce("a")).status == "stored"
        # A call that blocks is allowed in a loop, as any is.
        return rig.stargate.produce("b"), await rig.stargate.aproduce("c", on_ack=rig.ack)

    receipt, context = asyncio.run(main())
    assert receipt.status == "stored"
    [(_, seen, thread)] = rig.seen
    assert seen["context"] == context
    assert thread is threading.current_thread()


def test_produce_many(rig: Rig, local: LocalPulsar) -> None:
    """Over one connection, each with its receipt or its callback."""
    receipts = rig.stargate.produce_many(str(number) for number in range(50))
    assert len({receipt.message_id for receipt in receipts}) == 50
    assert local.counters.handshakes == 1
    contexts = rig.stargate.produce_many(["a", ("k", "b")], on_ack=rig.ack)
    assert [receipt["context"] for _, receipt, _ in rig.seen] == contexts
    assert len(asyncio.run(rig.stargate.aproduce_many(["a", "b"]))) == 2
    asyncio.run(rig.stargate.aproduce_many(["a", "b"], on_ack=rig.ack))
    assert {thread for _, _, thread in rig.seen} == {threading.current_thread()}


def test_a_group_as_callback(rig: Rig) -> None:
    """Each of it runs."""
    rig.stargate.produce("a", on_ack=group([rig.ack, rig.ack], app=rig.app))
    assert [kind for kind, _, _ in rig.seen] == ["ack", "ack"]


def test_tasks(rig: Rig, topic: str) -> None:
    """Their result is eager, and callbacks and links have run."""
    result = rig.task.delay("a", on_ack=rig.ack)
    assert result.get()["topic"] == topic
    rig.task.apply_async(("b",), link=rig.ack, countdown=60)
    rig.stargate.task("shop.orders", topic=topic).delay(["a", "b"], on_ack=rig.ack)
    assert [kind for kind, _, _ in rig.seen] == ["ack"] * 3
    assert {thread for _, _, thread in rig.seen} == {threading.current_thread()}


def test_effectively_once_needs_no_lane(make_app: MakeApp, local: LocalPulsar) -> None:
    """A test publishes all the same."""
    app = make_app(local.url, delivery="effectively_once", conf={"task_always_eager": True})
    assert Stargate.of(app).produce("a").status == "stored"
    assert app.tasks[ProduceTask.default_name].delay("a").get()["status"] == "stored"


@pytest.mark.parametrize("propagates", [True, False])
def test_a_callback_that_raises(
    make_app: MakeApp, local: LocalPulsar, refusing_port: int, propagates: bool
) -> None:
    """Raises out of the call exactly where `task_eager_propagates` says so."""
    rig = Rig(eager(make_app, local.url, refusing_port, task_eager_propagates=propagates))
    calls: list[Any] = [
        lambda: rig.stargate.produce("a", on_ack=rig.broken),
        lambda: asyncio.run(rig.stargate.aproduce("a", on_ack=rig.broken)),
        lambda: rig.stargate.produce_many(["a"], on_ack=rig.broken),
        lambda: rig.task.delay("a", on_ack=rig.broken),
    ]
    for call in calls:
        if propagates:
            with pytest.raises(LookupError, match="the callback is broken"):
                call()
        else:
            call()


def test_without_pulsar(make_app: MakeApp, refusing_port: int) -> None:
    """The message fails at once, and `on_error` is told."""
    rig = Rig(eager(make_app, f"ws://127.0.0.1:{refusing_port}", refusing_port))
    begin = time.monotonic()
    with pytest.raises(ProduceError) as caught:
        rig.stargate.produce("a")
    assert (caught.value.status, caught.value.failure["code"]) == ("refused", "no-connection")
    with pytest.raises(ProduceError):
        rig.stargate.produce("a", on_ack=rig.ack)
    with pytest.raises(ProduceError):
        rig.task.delay("a", on_error=rig.error)
    rig.stargate.produce("a", on_error=rig.error)
    rig.stargate.produce_many(["a", "b"], on_error=rig.error)
    assert [kind for kind, _, _ in rig.seen] == ["error"] * 4
    assert time.monotonic() - begin < 10


def test_a_lost_failure_is_logged(
    make_app: MakeApp, refusing_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing is raised and nobody is told."""
    url = f"ws://127.0.0.1:{refusing_port}"
    rig = Rig(eager(make_app, url, refusing_port, task_eager_propagates=False))
    rig.stargate.produce("a", on_ack=rig.ack, context="mine")
    assert "context=mine" in caplog.text
    assert rig.seen == []


@pytest.mark.parametrize("stored", [True, False])
def test_an_eager_result_is_stored(
    make_app: MakeApp, local: LocalPulsar, refusing_port: int, stored: bool
) -> None:
    """If `task_store_eager_result` says so."""
    rig = Rig(eager(make_app, local.url, refusing_port, task_store_eager_result=stored))
    result = rig.task.delay("a")
    # Celery's own reading warns where eager results are not stored.
    backend: Any = rig.app.backend
    key = backend.get_key_for_task(result.id)
    assert (backend.get(key) is not None) is stored
