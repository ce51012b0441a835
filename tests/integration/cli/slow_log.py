"""How long each step of a command holds Redis.

``STARGATE_TEST_SLOW_LOG=1`` asserts it of each single step, by Redis' slow log. Without it, it is
the mean of each kind of step: on a busy machine a single one may have waited for a processor. So
Redis comes before all other processes meanwhile, where the user may let it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

__all__ = ["never_blocked"]

#: Whether the long form runs.
_LONG = os.environ.get("STARGATE_TEST_SLOW_LOG") == "1"
#: No step may take Redis longer, in microseconds.
_BLOCKED = 5_000


@contextmanager
def _before_others(pid: int) -> Iterator[None]:
    """Let no other process take the processor from one."""
    normal = os.sched_param(0)
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(pid, os.SCHED_OTHER, normal)


@contextmanager
def never_blocked(client: redis.Redis) -> Iterator[dict[str, float]]:
    """Assert that nothing in the block held Redis; yield the means of commands, when it ended."""
    means: dict[str, float] = {}
    untyped: Any = client
    untyped.config_set("slowlog-log-slower-than", _BLOCKED)
    untyped.config_resetstat()
    untyped.slowlog_reset()
    with _before_others(untyped.info("server")["process_id"]):
        yield means
    slow = [(each["duration"], each["command"][:80]) for each in untyped.slowlog_get(100)]
    for name, each in untyped.info("commandstats").items():
        means[name.removeprefix("cmdstat_")] = each["usec_per_call"]
    assert {name: mean for name, mean in means.items() if mean > _BLOCKED} == {}
    if _LONG:
        assert slow == []
