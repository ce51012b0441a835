import os

from celery import Celery
from celery_stargate import Stargate, produce_task

app = Celery("shop", broker="redis://localhost", backend="redis://localhost")
app.conf.stargate_url = os.environ.get("STARGATE_URL", "ws://localhost:8080")
app.conf.stargate_topic = "persistent://public/default/orders"
stargate = Stargate(app)


@app.task
def paid(receipt):
    print(f"Pulsar has the order: {receipt['message_id']}")


if __name__ == "__main__":
    result = produce_task.delay(("order-17", "one lamp"), on_ack=paid.s())
    print(result.get(timeout=10))
