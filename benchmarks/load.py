"""A steady load on the lane: ``python -m benchmarks.load RATE``, ended by SIGTERM.

With the name of a bare log after the rate, the load is on that log.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from redis import Redis

from celery_stargate import Stargate

from .app import CONFIG_VARIABLE, Config, make_app
from .bare_log import BareLog
from .payload import PAYLOAD
from .rivals.one_at_a_time import LOAD_PUT, put_load

#: Should nobody end it, in seconds.
_BOUND = 60.0


def main(rate: float, log: str = "") -> None:
    """Put so many messages a second, some at a time."""
    config = Config.from_json(os.environ[CONFIG_VARIABLE])
    put = _bare(config, log) if log else _lane(config)
    period = LOAD_PUT / rate
    put()
    print("begun", flush=True)
    moment = end = time.monotonic()
    end += _BOUND
    while moment < end:
        moment += period
        time.sleep(max(0.0, moment - time.monotonic()))
        put()


def _lane(config: Config) -> Callable[[], object]:
    stargate = Stargate.of(make_app(config))
    return lambda: put_load(stargate)


def _bare(config: Config, name: str) -> Callable[[], object]:
    log = BareLog(config, Redis.from_url(config.redis_url), name)
    return lambda: log.put([PAYLOAD] * LOAD_PUT, "")


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
