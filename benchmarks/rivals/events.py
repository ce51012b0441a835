"""Hear the task events of all workers of a run, as Flower does, and count the successes."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

from benchmarks.site import Site

__all__ = ["EventCount"]


class EventCount:
    """Counts ``task-succeeded`` in a thread of its own.

    Arguments:
        site: its Redis is the broker.
    """

    def __init__(self, site: Site) -> None:
        self._successes = 0
        self._pubsub: Any = site.redis.pubsub()
        self._pubsub.psubscribe(f"*{site.config.prefix}*celeryev*")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def successes(self) -> int:
        """Return how many came until now."""
        return self._successes

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(5)
        self._pubsub.close()

    def _work(self) -> None:
        while not self._ended.is_set():
            message = self._pubsub.get_message(timeout=0.5)
            if message is not None and message["type"] == "pmessage":
                body = base64.b64decode(json.loads(message["data"])["body"])
                self._successes += body.count(b'"task-succeeded"')
