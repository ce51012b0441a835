"""The Celery app of all rivals: the same for the callers and, in ``worker_app.py``, the workers."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import msgspec
from celery import Celery

from celery_stargate import Stargate

__all__ = [
    "CALLBACKS_QUEUE",
    "CONFIG_VARIABLE",
    "LANES",
    "READY_VARIABLE",
    "WINDOWS",
    "Config",
    "make_app",
    "make_plain_app",
]

#: Where a worker finds its configuration, as JSON.
CONFIG_VARIABLE = "STARGATE_BENCH_CONFIG"
#: The file that a worker makes when it is ready.
READY_VARIABLE = "STARGATE_BENCH_READY"
#: Where ``on_ack`` callbacks go; nobody runs them, so that publishing them is what is measured.
CALLBACKS_QUEUE = "callbacks"
#: Over how many lanes the topics ``lanes-…`` are spread.
LANES = (1, 2, 4)
#: How many messages may be in flight to the topics ``window-…``: Pulsar's own queue holds 1000, and
#: answers with errors when it is full.
WINDOWS = (1, 10, 100, 300, 1000)


@dataclass(frozen=True)
class Config:
    """Where the servers are, and what all keys and topics of this run begin with."""

    redis_url: str
    pulsar_url: str
    service_url: str
    prefix: str
    #: A paused worker must still have its lanes when its turn comes again.
    lease: float = 600.0
    #: Whether a worker counts for Prometheus, and which part of the traces it samples.
    metrics: bool = False
    traces: float | None = None
    #: The Redis that holds the lanes; None for ``redis_url``.
    lanes_url: str | None = None
    #: The file that gets the steps that a worker notes; None for none.
    steps: str | None = None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        return msgspec.json.decode(text, type=cls)

    def to_json(self) -> str:
        return msgspec.json.encode(asdict(self)).decode()

    def below(self, name: str) -> Config:
        """Return the configuration of a world of its own, which no worker looks into."""
        return replace(self, prefix=f"{self.prefix}{name}-")

    def topic(self, name: str) -> str:
        return f"persistent://public/default/{self.prefix}{name}"


def make_plain_app(config: Config) -> Celery:
    """Return an app on Celery's defaults, with the tasks that need nothing of ours."""
    app = Celery(
        "benchmarks", broker=config.redis_url, backend=config.redis_url, set_as_current=False
    )
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options={"global_keyprefix": config.prefix},
        result_backend_transport_options={"global_keyprefix": config.prefix},
    )

    @app.task(name="bench.noop", shared=False)
    def noop(payload: str) -> None:
        """Do nothing."""

    @app.task(name="bench.on_ack", shared=False, ignore_result=True)
    def on_ack(receipt: dict[str, Any]) -> None:
        """Stand for what goes on after the receipt."""

    return app


def make_app(config: Config) -> Celery:
    """Return an app with the tasks of all rivals, on Celery's defaults."""
    app = make_plain_app(config)
    app.conf.update(
        stargate_url=config.pulsar_url,
        stargate_redis_url=config.lanes_url or config.redis_url,
        stargate_topic=config.topic("lane"),
        stargate_topics=_topics(config),
        stargate_prefix=f"{config.prefix}stargate",
        stargate_lease=config.lease,
    )
    stargate = Stargate(app)
    stargate.task("bench.produce_silent", ignore_result=True, shared=False)

    native = _NativeProducer(config.service_url, config.topic("native"))

    @app.task(name="bench.native_send", shared=False)
    def native_send(payload: str) -> str:
        """Publish with pulsar-client, and wait for its receipt."""
        return str(native.send(payload.encode()))

    return app


def _topics(config: Config) -> dict[str, Any]:
    """Return the topics with options of their own, by their names."""
    topics: dict[str, Any] = {
        "batched": {"topic": config.topic("batched"), "batching_enabled": True},
        "many-lanes": {"topic": config.topic("many-lanes"), "lanes": 24},
    }
    for lanes in LANES:
        topics[f"lanes-{lanes}"] = {"topic": config.topic(f"lanes-{lanes}"), "lanes": lanes}
    for window in WINDOWS:
        name = f"window-{window}"
        topics[name] = {"topic": config.topic(name), "max_in_flight": window}
    return topics


class _NativeProducer:
    """A pulsar-client producer for each process: its threads do not survive a fork."""

    def __init__(self, service_url: str, topic: str) -> None:
        self._service_url = service_url
        self._topic = topic
        self._lock = threading.Lock()
        self._pid = 0
        self._producer: Any = None

    def send(self, payload: bytes) -> Any:
        if self._pid != os.getpid():
            with self._lock:
                self._make()
        return self._producer.send(payload)

    def _make(self) -> None:
        if self._pid == os.getpid():
            return
        import pulsar

        client = pulsar.Client(
            self._service_url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
        )
        self._producer = client.create_producer(self._topic)
        self._pid = os.getpid()
