import os

from celery import Celery
from celery_stargate import ProduceError, Stargate

app = Celery("script")
app.conf.update(
    stargate_url=os.environ.get("STARGATE_URL", "ws://localhost:8080"),
    stargate_redis_url=os.environ.get("REDIS_URL", "redis://localhost"),
    stargate_topic=os.environ.get("TOPIC", "persistent://public/default/reports"),
)
stargate = Stargate(app)

try:
    receipt = stargate.produce({"json": {"report": "nightly", "rows": 1200}}, timeout=10)
except ProduceError as error:
    raise SystemExit(f"Pulsar does not have the report: {error.reason}") from None
print(receipt)

for receipt in stargate.produce_many(["line 1", "line 2", "line 3"], timeout=10):
    print(receipt)
