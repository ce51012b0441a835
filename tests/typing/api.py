"""What a user writes must pass mypy --strict, and have these types."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from celery import Celery, chain

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
    produce_task.delay("hello").get(timeout=10)
    produce_task.delay(("key", b"payload"), on_ack=orders.s(), on_error=orders.s())
    produce_task.apply_async((message,), countdown=5)
    chain(orders.s(), produce_task.s()).delay()


def publish_and_wait() -> dict[str, Any]:
    """Publish from any process."""
    message = Message(
        payload=b"",
        key="k",
        properties={"a": "b"},
        event_time=datetime.now(UTC),
        deliver_after=timedelta(seconds=5),
    )
    stargate.produce([message, "text"], topic="orders", timeout=timedelta(seconds=30))
    celery_stargate.produce("ws://host:8080/ws/v2/producer/persistent/a/b/c", "text", token="t")
    receipt: Receipt = stargate.produce(message)
    assert_type(receipt.context, str)
    assert_type(receipt.message_id, str | None)
    assert_type(receipt.ledger_id, int | None)
    return receipt.to_dict()


async def publish_without_blocking() -> Receipt:
    """Publish from an event loop."""
    receipt: Receipt = await stargate.aproduce("text", on_ack=None)
    return receipt


def acknowledge() -> None:
    """Settle a context by hand."""
    with Acknowledger(app) as acknowledger:
        assert_type(acknowledger.produce("context"), Future[Any])
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
