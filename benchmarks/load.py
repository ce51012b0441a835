"""A steady load on the lane: ``python -m benchmarks.load RATE``, ended by SIGTERM."""

from __future__ import annotations

import os
import sys
import time

from .app import CONFIG_VARIABLE, Config, make_app
from .payload import PAYLOAD
from .rivals.one_at_a_time import LOAD_LIST

#: Should nobody end it, in seconds.
_BOUND = 60.0


def main(rate: float) -> None:
    """Put so many messages a second, in lists."""
    app = make_app(Config.from_json(os.environ[CONFIG_VARIABLE]))
    produce = app.tasks["bench.produce_silent"]
    period = LOAD_LIST / rate
    produce.delay([PAYLOAD] * LOAD_LIST)
    print("begun", flush=True)
    moment = end = time.monotonic()
    end += _BOUND
    while moment < end:
        moment += period
        time.sleep(max(0.0, moment - time.monotonic()))
        produce.delay([PAYLOAD] * LOAD_LIST)


if __name__ == "__main__":
    main(float(sys.argv[1]))
