"""kombu over Redis makes a client for each message that it publishes.

``Channel.conn_or_acquire`` (kombu/transport/redis.py) makes a ``redis.Redis`` around the pool each
time; its constructor builds the table of reply callbacks anew. The command itself is one ``LPUSH``.
"""

from __future__ import annotations

from unittest.mock import patch

import redis
from kombu import Connection

from .findings import Finding
from .redis_of_its_own import redis_url
from .timing import micros_of

__all__ = ["measure"]


def measure(url: str) -> Finding:
    """Count the clients, and what they cost of a publish."""
    with Connection(url) as connection, connection.Producer(serializer="json") as producer:

        def publish() -> None:
            producer.publish({"a": 1}, routing_key="case")

        whole = micros_of(publish)
        pool = redis.ConnectionPool.from_url(url)
        client = micros_of(lambda: redis.Redis(connection_pool=pool))
        made = 0
        plain = redis.Redis.__init__

        def count(self: redis.Redis, *args: object, **options: object) -> None:
            nonlocal made
            made += 1
            plain(self, *args, **options)  # type: ignore[arg-type]

        with patch.object(redis.Redis, "__init__", count):
            for _ in range(100):
                publish()
        pool.disconnect()
    return Finding(
        "kombu_publish",
        "kombu makes a Redis client for each message it publishes",
        {
            "clients made for 100 messages": str(made),
            "a publish": f"{whole:.0f} µs of CPU",
            "of it to make one such client": f"{client:.0f} µs",
        },
    )


if __name__ == "__main__":
    with redis_url() as url:
        print(measure(url))
