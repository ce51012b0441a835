"""The owner of a bare log in Redis: ``python -m benchmarks.bare_owner``, ended by SIGTERM.

It does what no owner of a lane can leave out, with redis-py and websockets alone: wait for an
entry, note in Redis that it may be sent, send it, and settle it and tell the caller in one step.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from redis.asyncio import Redis

from .app import CONFIG_VARIABLE, Config
from .rivals.raw import connect, log_keys

#: How long one read blocks, in ms; below redis-py's own timeout.
_BLOCK_MS = 2000

_MARK = """
local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)[1]
redis.call('HSET', KEYS[2], 'sent', found[1])
return found
"""
_SETTLE = """
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[2], '*', 'outcome', ARGV[2])
"""


async def main() -> None:
    """Own the log until this process is ended."""
    config = Config.from_json(os.environ[CONFIG_VARIABLE])
    log, meta, inbox = log_keys(config)
    redis, blocking = Redis.from_url(config.redis_url), Redis.from_url(config.redis_url)
    mark, settle = redis.register_script(_MARK), redis.register_script(_SETTLE)
    last: Any = "0-0"
    async with connect(config, "bare-owner") as socket:
        print("begun", flush=True)
        while True:
            if not await blocking.xread({log: last}, count=1, block=_BLOCK_MS):
                continue
            last, (_, frame) = await mark(keys=[log, meta], args=[last])
            await socket.send(frame, text=True)
            receipt = await socket.recv(decode=False)
            await settle(keys=[log, inbox], args=[last, receipt])


if __name__ == "__main__":
    asyncio.run(main())
