"""``memory.py``: topics in the process, by all ways to publish."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_stargate import (
    ConfigurationError,
    Message,
    ProduceError,
    ProduceTask,
    ProduceTimeout,
    Stargate,
)
from celery_stargate.calls.memory import Memory
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.message_id import MessageId
from tests.plugin_project import apps_restored
from tests.threads import still_alive

_TOPIC = "persistent://public/default/orders"


class Shop:
    """An app in memory, and what its callbacks saw."""

    def __init__(self) -> None:
        self.app = Celery("shop")
        self.app.conf.update(
            task_always_eager=True,
            task_eager_propagates=True,
            stargate_url="memory://",
            stargate_topic=_TOPIC,
        )
        self.stargate = Stargate(self.app)
        self.seen: list[tuple[str, Any]] = []
        self.ack = self._callback("ack")
        self.error = self._callback("error")

    def _callback(self, kind: str) -> Any:
        def call_back(outcome: Any) -> None:
            self.seen.append((kind, outcome))

        register: Any = self.app.task
        return register(name=f"shop.{kind}", shared=False)(call_back).s()

    @property
    def memory(self) -> Memory:
        """Where the messages are."""
        found = self.stargate.runtime.memory
        assert found is not None
        return found

    @property
    def task(self) -> Any:
        """The produce task."""
        return self.app.tasks[ProduceTask.default_name]


@pytest.fixture
def shop() -> Iterator[Shop]:
    """An app; afterwards it has left no thread."""
    before = threading.enumerate()
    with apps_restored():
        yield Shop()
    assert not still_alive(before)


def test_a_message(shop: Shop) -> None:
    """It is kept as it was given, and has a receipt that names it."""
    message = Message("lamp", key="order-1", properties={"type": "new"}, deliver_after=1.5)
    receipt = shop.stargate.produce(message, context="mine")
    [kept] = shop.memory.messages
    assert (kept.topic, kept.payload, kept.key) == (_TOPIC, b"lamp", "order-1")
    assert (kept.properties, kept.deliver_after_ms) == ({"type": "new"}, 1500)
    assert (kept.context, kept.message_id) == ("mine", receipt.message_id)
    assert receipt.message_id is not None
    place = MessageId.decode(receipt.message_id)
    assert (place.ledger, place.entry) == (receipt.ledger_id, receipt.entry_id)
    transient = shop.stargate.produce("x", topic="non-persistent://public/default/t")
    assert (receipt.status, transient.status) == ("stored", "transient")


def test_message_ids_are_pulsars() -> None:
    """What is written is read back."""
    for entry in (0, 127, 128, 300, 2**40):
        assert MessageId.decode(MessageId(1, entry).encode()) == MessageId(1, entry)


def test_a_call_is_checked_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its task runs in this process; one inside a callback is checked by itself."""
    contexts: list[str] = []
    plain = ProduceTask.checked

    def checked(self: Any, runtime: Any, given: Any, context: str, headers: Any = None) -> Any:
        contexts.append(context)
        return plain(self, runtime, given, context, headers)

    monkeypatch.setattr(ProduceTask, "checked", checked)
    again = shop.task.s({"payload": "again"}).set(immutable=True)
    results = [shop.task.delay("1", on_ack=again), shop.task.delay("2")]
    assert [each.payload for each in shop.memory.messages] == [b"1", b"again", b"2"]
    assert len(set(contexts)) == len(contexts) == 3
    assert {each.id for each in results} <= set(contexts)
    shop.task("3")
    assert len(contexts) == 4


def test_all_ways_to_publish(shop: Shop) -> None:
    """Each message is kept once, in order, under its own context."""

    async def main() -> list[Any]:
        return [
            await shop.stargate.aproduce("4"),
            *await shop.stargate.aproduce_many(["5", "6"]),
        ]

    receipts = [*shop.stargate.produce(["0", "1"]), *shop.stargate.produce_many(["2", "3"])]
    receipts += asyncio.run(main())
    contexts = [each.context for each in receipts]
    contexts += shop.stargate.produce_many(["7", "8"], on_ack=shop.ack)
    result = shop.task.delay("9", on_ack=shop.ack)
    contexts.append(result.id)
    assert result.get()["context"] == result.id
    assert [each.payload for each in shop.memory.messages] == [b"%d" % n for n in range(10)]
    assert [each.context for each in shop.memory.messages] == contexts
    assert [receipt["context"] for _, receipt in shop.seen] == contexts[-3:]


def test_failures(shop: Shop) -> None:
    """The next messages fail, and are not kept; with a lost receipt they are."""
    shop.memory.fail_next("send-error:8", "no", 2)
    shop.stargate.produce("a", on_error=shop.error)
    with pytest.raises(ProduceError, match="1 of 2 messages failed: no"):
        shop.stargate.produce(["b", "c"])
    shop.memory.fail_next("deadline", "")
    with pytest.raises(ProduceTimeout) as caught:
        shop.task.delay("d")
    assert caught.value.status == "unknown"
    [(kind, failure)] = shop.seen
    assert (kind, failure["code"], failure["status"]) == ("error", "send-error:8", "refused")
    assert [each.payload for each in shop.memory.messages] == [b"c", b"d"]


def test_held_receipts(shop: Shop) -> None:
    """Callbacks wait for the release; a caller that waits passes its deadline at once."""
    shop.memory.hold()
    shop.memory.hold()
    shop.stargate.produce("a", on_ack=shop.ack)
    result = shop.task.delay("b", on_ack=shop.ack)
    assert (result.state, shop.seen) == ("IGNORED", [])
    for call in (shop.stargate.produce, lambda given: shop.stargate.produce_many([given])):
        with pytest.raises(ProduceTimeout):
            call("c")
    shop.memory.release()
    shop.memory.release()
    assert [kind for kind, _ in shop.seen] == ["ack", "ack"]
    assert len(shop.memory.messages) == 4
    shop.stargate.produce("d", on_ack=shop.ack)
    assert len(shop.seen) == 3
    shop.memory.clear()
    assert not shop.memory.messages


def test_a_held_failure(shop: Shop) -> None:
    """Without a callback it is raised, also that of a task, which has no result."""
    for call in (shop.stargate.produce, shop.task.delay):
        shop.memory.hold()
        shop.memory.fail_next("send-error:8", "refused by the test")
        call("a", on_ack=shop.ack)
        with pytest.raises(ProduceError, match="refused by the test"):
            shop.memory.release()
        shop.memory.hold()
        shop.memory.fail_next("send-error:8", "refused by the test")
        call("a", on_error=shop.error)
        shop.memory.release()
    assert [kind for kind, _ in shop.seen] == ["error", "error"]


@pytest.mark.parametrize("broken", [1, 2])
def test_held_callbacks_that_raise(shop: Shop, broken: int) -> None:
    """The test gets what they raise, after all others have run."""

    def fail(receipt: Any) -> None:
        raise LookupError("the callback is broken")

    register: Any = shop.app.task
    failing = register(name="shop.fail", shared=False)(fail).s()
    shop.memory.hold()
    for _ in range(broken):
        shop.stargate.produce("a", on_ack=failing)
    shop.stargate.produce("b", on_ack=shop.ack)
    with pytest.raises(LookupError if broken == 1 else ExceptionGroup, match="callback"):
        shop.memory.release()
    assert [kind for kind, _ in shop.seen] == ["ack"]


def test_it_is_for_tests_only(shop: Shop) -> None:
    """Without eager mode nothing is published, and no worker starts: it asks for the endpoint."""
    shop.app.conf.task_always_eager = False
    for call in (shop.stargate.produce, shop.task.delay):
        with pytest.raises(ConfigurationError, match="it needs task_always_eager=True"):
            call("a")
    with pytest.raises(ConfigurationError, match="no worker can use it"):
        Endpoint.of(shop.stargate.settings)


def test_settings_are_read_again(shop: Shop) -> None:
    """After a reset, by which tests change them."""
    shop.stargate.produce("a")
    shop.app.conf.stargate_topic = "persistent://public/default/others"
    shop.stargate.runtime.reset()
    assert len(shop.memory.messages) == 0
    assert shop.stargate.produce("a").topic == "persistent://public/default/others"


def test_nothing_is_left_to_cancel(shop: Shop) -> None:
    """Each call has its outcome, also one whose receipt is held; no Redis is asked."""
    shop.app.conf.stargate_redis_url = "redis://redis.invalid:6379/0"
    shop.memory.hold()
    assert shop.stargate.cancel(shop.task.delay("lamp").id) is False


@pytest.mark.parametrize("name", ["lanes", "dead_letters"])
def test_no_redis_takes_part(shop: Shop, name: str) -> None:
    """Not even one that the app's settings name: a test must not change what it holds."""
    shop.app.conf.update(broker_url="redis://redis.invalid:6379/0")
    with pytest.raises(ConfigurationError, match=r"no lanes .* stargate_url is memory://"):
        getattr(shop.stargate, name)
