"""Publish a payment under an id: python publish.py ID AMOUNT. Running it twice is a duplicate."""

import os
import sys

from celery import Celery
from celery_stargate import Stargate

app = Celery("publisher")
app.conf.update(
    stargate_url=os.environ.get("STARGATE_URL", "ws://localhost:8080"),
    stargate_redis_url=os.environ.get("REDIS_URL", "redis://localhost"),
)
stargate = Stargate(app)

if __name__ == "__main__":
    payment, amount = sys.argv[1], int(sys.argv[2])
    # The id is of the payment, and not of this attempt to publish it.
    message = {"json": {"amount": amount}, "key": payment, "properties": {"id": payment}}
    print(stargate.produce(message, topic=os.environ.get("TOPIC", "payments"), timeout=10))
