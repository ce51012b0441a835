"""What a user gets wrong must be a type error: each ignore is used, or the check fails.

mypy and pyright read the same comment. mypy warns of one that is unused
(``warn_unused_ignores``), and so does pyright (``reportUnnecessaryTypeIgnoreComment``).
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.canvas import Signature

import celery_stargate
from celery_stargate import Acknowledger, Receipt, Stargate, produce_task

app = Celery("typing")
stargate = Stargate(app)
url = "ws://host:8080/ws/v2/producer/persistent/a/b/c"


def wrong_options_of_a_task() -> None:
    """Names and types of producer options and of Celery's."""
    stargate.task("shop.a", topik="orders")  # type: ignore[call-arg]
    stargate.task("shop.b", lane=4)  # type: ignore[call-arg]
    stargate.task("shop.c", lanes="four")  # type: ignore[arg-type]
    stargate.task("shop.d", delivery="exactly_once")  # type: ignore[arg-type]
    stargate.task("shop.e", ignore_results=True)  # type: ignore[call-arg]


def wrong_calls() -> None:
    """Names and types of arguments."""
    stargate.produce(5)  # type: ignore[call-overload]
    stargate.produce("text", topik="orders")  # type: ignore[call-overload]
    stargate.produce("text", on_ack=print)  # type: ignore[call-overload]
    stargate.produce("text", timeout="5")  # type: ignore[call-overload]
    stargate.produce("text", "orders")  # type: ignore[call-overload]
    stargate.produce_many([5])  # type: ignore[list-item]
    stargate.produce_many(["text"], context="c")  # type: ignore[call-overload]
    produce_task.delay("text", topik="orders")  # type: ignore[call-overload]
    produce_task.delay("a", "b")  # type: ignore[call-overload]
    celery_stargate.produce(url, "text", tokn="t")  # type: ignore[call-overload]


def wrong_results() -> None:
    """What comes back is not what is written."""
    on_ack: Signature[Any] = app.signature("shop.ship")
    receipt: Receipt = stargate.produce("text", on_ack=on_ack)  # type: ignore[assignment]
    context: str = stargate.produce("text")  # type: ignore[assignment]
    one: Receipt = stargate.produce(["text"])  # type: ignore[assignment]
    many: list[str] = stargate.produce_many(["text"])  # type: ignore[assignment]
    found: str = produce_task.delay("text").get()  # type: ignore[assignment]
    print(receipt, context, one, many, found)


def wrong_acknowledger(acknowledger: Acknowledger) -> None:
    """An outcome is a receipt or a failure."""
    acknowledger.ack("context")  # type: ignore[arg-type]
    acknowledger.produce("context", on_ack=print)  # type: ignore[arg-type]
