"""The app of the example: `python shop.py order-1` records an order."""

import os
import sys

from celery import Celery
from celery_stargate import Stargate, produce_task

redis = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
app = Celery("shop", broker=redis, backend=redis)
app.conf.broker_connection_retry_on_startup = True
app.conf.stargate_url = os.environ.get("STARGATE_URL", "ws://localhost:8080")
app.conf.stargate_topic = "persistent://public/default/orders"
# The worker serves its metrics there; other processes have no such port.
app.conf.stargate_metrics_port = int(os.environ.get("STARGATE_METRICS_PORT", "0"))
app.conf.stargate_metrics_host = os.environ.get("STARGATE_METRICS_HOST", "127.0.0.1")
stargate = Stargate(app)


@app.task
def paid(receipt):
    print(f"Pulsar has the order: {receipt['message_id']}")


@app.task
def failed(failure):
    print(f"Pulsar does not have the order: {failure['reason']}")


if __name__ == "__main__":
    produce_task.delay(sys.argv[1], on_ack=paid.s(), on_error=failed.s())
