"""``lanes/passing.py``: which error of several tries says why a call failed."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate.lanes.passing import telling

REFUSED = LostConnection("refused")


def of_a_cluster(cause: Exception) -> Exception:
    """What redis-py raises where the last node of a Cluster did not answer."""
    error = RedisClusterException(f"no node can be reached: {cause}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("late", [NoAnswer("in time"), of_a_cluster(NoAnswer("in time"))])
def test_a_try_that_ended_with_the_bound_tells_nothing(late: Exception) -> None:
    """If one before it got a reason."""
    assert telling(late, REFUSED) is REFUSED
    assert telling(late, None) is late


@pytest.mark.parametrize("reason", [LostConnection("reset"), of_a_cluster(REFUSED)])
def test_the_last_reason_counts(reason: Exception) -> None:
    """It is what is so now."""
    assert telling(reason, REFUSED) is reason
