"""A steady load on the lane: ``python -m benchmarks.load RATE``, ended by SIGTERM."""

from __future__ import annotations

import os
import sys
import time

from celery_stargate import Stargate

from .app import CONFIG_VARIABLE, Config, make_app
from .rivals.one_at_a_time import LOAD_PUT, put_load

#: Should nobody end it, in seconds.
_BOUND = 60.0


def main(rate: float) -> None:
    """Put so many messages a second, some at a time."""
    stargate = Stargate.of(make_app(Config.from_json(os.environ[CONFIG_VARIABLE])))
    period = LOAD_PUT / rate
    put_load(stargate)
    print("begun", flush=True)
    moment = end = time.monotonic()
    end += _BOUND
    while moment < end:
        moment += period
        time.sleep(max(0.0, moment - time.monotonic()))
        put_load(stargate)


if __name__ == "__main__":
    main(float(sys.argv[1]))
