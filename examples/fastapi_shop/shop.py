import os
import uuid

from celery import Celery
from celery_stargate import ProduceError, Receipt, Stargate
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

celery = Celery("shop")
celery.conf.update(
    broker_url=os.environ.get("REDIS_URL", "redis://localhost"),
    result_backend=os.environ.get("REDIS_URL", "redis://localhost"),
    stargate_url=os.environ.get("STARGATE_URL", "ws://localhost:8080"),
    stargate_topics={"orders": os.environ.get("ORDERS", "persistent://public/default/orders")},
)
stargate = Stargate(celery)

# When the server ends, messages in flight get their receipts, and the lanes are given back.
web = FastAPI(lifespan=stargate.lifespan)


class Order(BaseModel):
    item: str
    quantity: int = 1


@celery.task
def published(receipt):
    print(f"Pulsar has {receipt['context']} at {receipt['message_id']}")


def event(order):
    return {"json": order.model_dump(), "properties": {"type": "order-placed"}}


@web.post("/orders", status_code=201)
async def place_order(order: Order) -> Receipt:
    """Answer when Pulsar has the order."""
    try:
        return await stargate.aproduce(event(order), topic="orders", timeout=10)
    except ProduceError as error:
        raise HTTPException(502, error.failure) from error


@web.post("/orders/later", status_code=202)
async def place_order_later(order: Order) -> dict[str, str]:
    """Answer when the order is recorded in Redis; a worker runs `published` after the receipt."""
    number = f"order-{uuid.uuid4().hex[:8]}"
    context = await stargate.aproduce(
        event(order), topic="orders", context=number, on_ack=published.s()
    )
    return {"order": context}
