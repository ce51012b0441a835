"""Redis' Lua hashes each byte of a long text, once for each time that a script gets it.

A script decides and writes in one step, which is what a put and a read of a lane need. Redis makes
a text of Lua of each argument and of each reply that a script gets, and Lua keeps each text once,
by its hash (``deps/lua/src/lstring.c`` in Redis' sources).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import Redis

from .findings import Finding
from .redis_of_its_own import redis_url

__all__ = ["measure"]

_SIZE, _CALLS = 100_000, 500
_KEY = "case:log"
_WRITE = "return redis.call('XADD', KEYS[1], 'MAXLEN', 4, '*', 'p', ARGV[1])"
_READ = "return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)"


def measure(url: str) -> Finding:
    """Compare commands with scripts that do nothing but call them."""
    client: Any = Redis.from_url(url)
    payload = b"x" * _SIZE
    write, read = client.register_script(_WRITE), client.register_script(_READ)

    def micros_of(command: str, call: Callable[[], Any]) -> float:
        call()
        client.config_resetstat()
        for _ in range(_CALLS):
            call()
        return float(client.info("commandstats")[f"cmdstat_{command}"]["usec_per_call"])

    def add() -> None:
        client.xadd(_KEY, {"p": payload}, maxlen=4, approximate=False)

    added = micros_of("xadd", add)
    added_by_script = micros_of("evalsha", lambda: write(keys=[_KEY], args=[payload]))
    found = micros_of("xrange", lambda: client.xrange(_KEY, count=1))
    found_by_script = micros_of("evalsha", lambda: read(keys=[_KEY]))
    client.close()
    return Finding(
        "redis_scripts",
        "Redis' Lua hashes each byte of a long text",
        {
            "`XADD` of 100 kB": f"{added:.0f} µs of Redis' CPU",
            "by a script that does nothing else": f"{added_by_script:.0f} µs",
            "`XRANGE` of one such entry": f"{found:.0f} µs",
            "by a script": f"{found_by_script:.0f} µs",
        },
    )


if __name__ == "__main__":
    with redis_url() as url:
        print(measure(url))
