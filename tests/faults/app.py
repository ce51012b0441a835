"""The app of the fault runs' workers: that of the acceptance tests, with a clock and tokens.

`python -m celery -A tests.faults.app worker`; environment variables say what it has.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.faults.environment import CLOCK_JUMPS, SECRET, TOKENS, Clock

__all__ = ["app"]


def _use_clock(path: Path) -> None:
    clock, real = Clock(path), time.time
    vars(time)["time"] = lambda: real() + clock.offset


# Before other modules take `time.time` for themselves.
if os.environ.get(CLOCK_JUMPS):
    _use_clock(Path(os.environ[CLOCK_JUMPS]))

from tests.acceptance.app import app  # noqa: E402  # as above

if os.environ.get(TOKENS):
    from tests.servers.credentials import make_token

    app.conf.stargate_token = lambda: make_token(SECRET, "admin", float(os.environ[TOKENS]))
