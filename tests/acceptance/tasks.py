"""The tasks of the acceptance tests' Celery app."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import redis
from celery import Celery

from celery_stargate import Stargate

__all__ = ["BELIEVE", "CONF", "LOG_URL", "READY", "SIGNALS", "SPANS", "make_app"]

# Environment variables of the worker processes.
#: The settings of the app, as JSON.
CONF = "STARGATE_ACCEPTANCE_CONF"
#: The Redis into which the tasks write what they got.
LOG_URL = "STARGATE_ACCEPTANCE_LOG"
#: The list there into which the worker pushes its process id when it is ready.
READY = "STARGATE_ACCEPTANCE_READY"
#: The hash there in which signals are counted, `<task's name> <signal's name>`; unset: none is.
SIGNALS = "STARGATE_ACCEPTANCE_SIGNALS"
#: The list there into which the worker's processes export their spans; unset: nothing is traced.
SPANS = "STARGATE_ACCEPTANCE_SPANS"

#: If set, the worker does not ask whether the broker deduplicates: for controls.
BELIEVE = "STARGATE_ACCEPTANCE_BELIEVE"

#: How long a task that is held waits to be let go, in seconds; no test comes near it.
_HOLD = 60


def make_app(conf: dict[str, Any]) -> Celery:
    """Return an app with the tasks; worker and test each make theirs from the same settings.

    What a task got goes as JSON into the Redis list that its `key` argument names.
    """
    app = Celery("acceptance", set_as_current=False)
    app.conf.update(conf)
    stargate = Stargate(app)
    # Celery gives each app's tasks to all apps otherwise, and a test run makes several.
    task = partial(app.task, shared=False)

    # A produce task of one's own, bound to a name in `stargate_topics`, and one with its own lanes.
    stargate.task("acceptance.orders", topic="orders")
    stargate.task("acceptance.lanes", topic="lanes", lanes=4)

    def note(key: str, **what: Any) -> None:
        with redis.Redis.from_url(os.environ[LOG_URL]) as client:
            client.rpush(key, json.dumps(what, default=str))

    @task(bind=True, name="acceptance.record")
    def record(self: Any, argument: Any, key: str) -> Any:
        note(key, id=self.request.id, argument=argument)
        return argument

    @task(name="acceptance.errback")
    def errback(request: Any, error: Any, traceback: Any, key: str) -> None:
        note(key, id=request.id, type=type(error).__name__, text=str(error))

    @task(name="acceptance.build")
    def build(number: Any) -> Any:
        return {"payload": f"built-{number}", "key": str(number), "properties": {"n": str(number)}}

    @task(name="acceptance.pair")
    def pair() -> Any:
        return ("key", "payload")

    @task(name="acceptance.same")
    def same(value: Any) -> Any:
        """Return what came as JSON."""
        return value

    @task(name="acceptance.place")
    def place(receipt: Any) -> Any:
        """Return a text, which the next produce task of a chain can take as its message."""
        return f"after {receipt['context']}"

    @task(name="acceptance.count")
    def count(results: Any) -> Any:
        return [len(results), sorted({each["status"] for each in results})]

    @task(name="acceptance.text")
    def text(value: Any) -> str:
        return json.dumps(value)

    @task(name="acceptance.add")
    def add(a: int, b: int) -> int:
        return a + b

    @task(bind=True, name="acceptance.hold")
    def hold(self: Any, key: str) -> str:
        """Say that it runs, and keep its pool slot until it is let go."""
        note(f"{key}:running", id=self.request.id, pid=os.getpid())
        # redis-py 8 waits 5 s for an answer where nothing is said.
        with redis.Redis.from_url(os.environ[LOG_URL], socket_timeout=_HOLD + 5) as client:
            return "let go" if client.blpop([f"{key}:go"], _HOLD) else "timed out"

    @task(name="acceptance.pid")
    def pid() -> int:
        return os.getpid()

    @task(name="acceptance.publish")
    def publish(message: Any, topic: str) -> str:
        """Call `delay()` in a task, so in a process of the pool."""
        produce: Any = app.tasks["celery_stargate.produce"]
        return str(produce.delay(message, topic=topic).id)

    @task(name="acceptance.publish_and_wait")
    def publish_and_wait(message: Any, topic: str) -> Any:
        """Call `stargate.produce()` in a task, so in a process of the pool."""
        return stargate.produce(message, topic=topic, timeout=20).to_dict()

    app.finalize()
    return app
