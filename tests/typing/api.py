"""What a user writes must pass mypy --strict and pyright, and have these types."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from celery import Celery, chain, chord, group
from celery.canvas import Signature

import celery_stargate
from celery_stargate import (
    Acknowledger,
    ConfigurationError,
    ContextInUse,
    Failure,
    InvalidMessage,
    LaneFull,
    Message,
    ProduceError,
    ProduceTask,
    ProduceTimeout,
    Receipt,
    Stargate,
    StargateError,
    StoreUnavailable,
    produce_task,
)

app = Celery("typing")
stargate = Stargate(app)
later = Stargate()
later.init_app(app)
assert_type(Stargate.of(app), Stargate)


def publish(message: Message) -> None:
    """Call a produce task in each way."""
    assert_type(produce_task, ProduceTask)
    orders = stargate.task("shop.orders", topic="orders", lanes=4, ignore_result=True)
    assert_type(orders, ProduceTask)
    stargate.task("shop.again", autoretry_for=(ProduceError,), max_retries=3, retry_backoff=True)
    assert_type(produce_task.delay("hello").get(timeout=10), dict[str, Any])
    assert_type(produce_task.delay(message, topic="t").get(), dict[str, Any])
    assert_type(produce_task.delay(["a", message]).get(), list[dict[str, Any]])
    assert_type(produce_task.delay("hello").id, str)
    produce_task.delay(("key", b"payload"), on_ack=orders.s(), on_error=orders.s())
    produce_task.delay({"payload": "x", "key": "k"}, delivery_timeout=timedelta(hours=1))
    produce_task.apply_async((message,), countdown=5)
    chain(orders.s(), produce_task.s()).delay()


def publish_and_wait() -> dict[str, Any]:
    """Publish from any process: the arguments decide what comes back."""
    assert_type(Message("text", key="k"), Message)
    assert_type(Message.json({"id": 1}, key="k", deliver_after=5), Message)
    message = Message(
        payload=b"",
        key="k",
        properties={"a": "b"},
        event_time=datetime.now(UTC),
        deliver_after=timedelta(seconds=5),
    )
    receipt = stargate.produce(message)
    assert_type(receipt, Receipt)
    assert_type(receipt.context, str)
    assert_type(receipt.message_id, str | None)
    assert_type(receipt.ledger_id, int | None)
    assert_type(stargate.produce(("k", b"p"), context="c"), Receipt)
    assert_type(
        stargate.produce([message, "text"], topic="orders", timeout=timedelta(seconds=30)),
        list[Receipt],
    )
    assert_type(dict(receipt), dict[str, Any])
    return receipt.to_dict()


def publish_with_callbacks(given: Signature[Any] | None) -> None:
    """With a callback the context comes back at once."""
    on_ack: Signature[Any] = app.signature("shop.ship")
    assert_type(stargate.produce("text", on_ack=on_ack), str)
    assert_type(stargate.produce(["text"], on_error=group([on_ack])), str)
    assert_type(stargate.produce("text", on_ack=on_ack, on_error=chord([on_ack], on_ack)), str)
    assert_type(stargate.produce("text", on_ack={"task": "shop.ship"}), str)
    # Who does not know whether there is one must look.
    assert_type(stargate.produce("text", on_ack=given), Receipt | str)


def publish_many(messages: Iterator[Message]) -> None:
    """Of each message a receipt, or its context."""
    on_ack: Signature[Any] = app.signature("shop.ship")
    assert_type(stargate.produce_many(["a", b"b"]), list[Receipt])
    assert_type(stargate.produce_many(messages, topic="orders", timeout=5), list[Receipt])
    assert_type(stargate.produce_many(messages, on_ack=on_ack), list[str])
    assert_type(stargate.produce_many(messages, on_error=on_ack), list[str])


def publish_directly(url: str) -> None:
    """Without an app."""
    assert_type(celery_stargate.produce(url, "text", token="t"), Receipt)
    assert_type(celery_stargate.produce(url, ["text"], timeout=5), list[Receipt])


async def publish_without_blocking() -> Receipt:
    """Publish from an event loop."""
    on_ack: Signature[Any] = app.signature("shop.ship")
    assert_type(await stargate.aproduce(["text"]), list[Receipt])
    assert_type(await stargate.aproduce("text", on_ack=on_ack), str)
    assert_type(await stargate.aproduce_many(["text"]), list[Receipt])
    assert_type(await stargate.aproduce_many(["text"], on_error=on_ack), list[str])
    receipt = await stargate.aproduce("text", on_ack=None)
    assert_type(receipt, Receipt)
    return receipt


def acknowledge() -> None:
    """Settle a context by hand."""
    with Acknowledger(app) as acknowledger:
        assert_type(acknowledger.produce("context"), Future[Receipt])
        assert_type(acknowledger.ack(Receipt(context="context", value=1)), bool)
        assert_type(acknowledger.ack(Failure(context="context", reason="no")), bool)


def catch() -> None:
    """Tell the errors apart."""
    try:
        stargate.produce("text")
    except InvalidMessage as error:
        assert_type(error.problem, str)
        assert_type(error.index, int | None)
    except LaneFull as error:
        assert_type((error.lane, error.backlog, error.limit), tuple[str, int, int])
    except ContextInUse as error:
        assert_type(error.context, str)
    except ProduceTimeout as error:
        assert_type(error.status, str)
    except ProduceError as error:
        assert_type(error.reason, str)
        assert_type(error.context, str | None)
        assert_type(error.failure, dict[str, Any])
    except (ConfigurationError, StoreUnavailable) as error:
        assert_type(str(error), str)
    except StargateError:
        raise
