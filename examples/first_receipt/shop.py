import sys

from celery import Celery
from celery_stargate import Stargate, produce_task

app = Celery("shop", broker="redis://localhost", backend="redis://localhost")
app.conf.stargate_url = "ws://localhost:8080"
app.conf.stargate_topic = "persistent://public/default/orders"
stargate = Stargate(app)


@app.task
def paid(receipt):
    print(f"Pulsar has the order: {receipt['message_id']}")


@app.task
def failed(failure):
    print(f"Pulsar does not have the order: {failure['reason']}")


if __name__ == "__main__":
    order = sys.argv[1]
    produce_task.delay(order, on_ack=paid.s(), on_error=failed.s())
    print(f"recorded {order}")
