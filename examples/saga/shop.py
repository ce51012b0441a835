import os
import sys

from celery import Celery, chain
from celery_stargate import Stargate, produce_task

app = Celery("shop")
app.conf.update(
    broker_url=os.environ.get("REDIS_URL", "redis://localhost"),
    result_backend=os.environ.get("REDIS_URL", "redis://localhost"),
    stargate_url=os.environ.get("STARGATE_URL", "ws://localhost:8080"),
    stargate_topics={
        "stock": os.environ.get("STOCK", "persistent://public/default/stock"),
        "payments": os.environ.get("PAYMENTS", "persistent://public/default/payments"),
    },
)
stargate = Stargate(app)


@app.task
def reserve(order):
    print(f"order {order}: stock reserved")
    return {"json": {"order": order, "reserved": 1}, "key": f"order-{order}"}


@app.task
def charge(order):
    print(f"order {order}: card charged")
    return {"json": {"order": order, "charged": 20}, "key": f"order-{order}"}


@app.task
def complete(order):
    print(f"order {order}: complete")
    return "complete"


@app.task
def undo(request, error, traceback, order):
    """Undo the steps of an order; each undo must be harmless where its step was not taken."""
    print(f"order {order}: undone, because {error}")


def buy(order):
    """Each step runs only when Pulsar has the message of the step before it."""
    return chain(
        reserve.s(order),
        produce_task.s(topic="stock"),
        charge.si(order),
        produce_task.s(topic="payments"),
        complete.si(order),
    ).on_error(undo.s(order))


if __name__ == "__main__":
    print(buy(int(sys.argv[1])).delay().get(timeout=30))
