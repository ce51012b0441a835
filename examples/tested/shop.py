from celery import Celery
from celery_stargate import Stargate, produce_task

app = Celery("shop", broker="redis://localhost", backend="redis://localhost")
app.conf.stargate_url = "ws://localhost:8080"
app.conf.stargate_topics = {"orders": "persistent://public/default/orders"}
stargate = Stargate(app)
orders = {}


@app.task
def published(receipt, number):
    orders[number] = "published"


@app.task
def failed(failure, number):
    orders[number] = failure["status"]


def place_order(number, item):
    orders[number] = "new"
    return produce_task.delay(
        {"json": {"item": item}, "key": f"order-{number}"},
        topic="orders",
        on_ack=published.s(number),
        on_error=failed.s(number),
    )
