"""The client for threads: what it tells when the bound is over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as NoAnswer
from redis.sentinel import MasterNotFoundError

from celery_stargate.lanes.passing import Epoch
from celery_stargate.lanes.sync_client import _persist
from celery_stargate.lanes.sync_cluster import ClusterClient
from celery_stargate.support.bound import bounded


class Tries:
    """Fails with one error, and then without an answer."""

    def __init__(self, first: Exception) -> None:
        self.errors = [first]

    def __call__(self, *_: object) -> Any:
        raise self.errors.pop() if self.errors else NoAnswer("Redis did not answer in time")


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (
            MasterNotFoundError("No master found for 'another'"),
            "No master found.*check master_name",
        ),
        (ReadOnlyError("You can't write against a read only replica."), "READONLY"),
        (LostConnection("Connection refused"), "Connection refused"),
        (NoAnswer("Redis did not answer in time"), "did not answer in time"),
    ],
)
def test_the_reason_of_an_earlier_try_is_told(first: Exception, words: str) -> None:
    """The last try ends with the bound, without an answer; one before it said why."""
    pool = SimpleNamespace(connection_kwargs={"epoch": Epoch()})
    with bounded(0.2), pytest.raises((LostConnection, NoAnswer), match=words):
        _persist(Tries(first), pool, waits_for_master=True)


def test_the_reason_of_an_earlier_try_is_told_of_a_cluster() -> None:
    """As of one server."""
    client = ClusterClient([("127.0.0.1", 1)], SimpleNamespace)
    client._made = SimpleNamespace()  # noqa: SLF001
    with bounded(0.2), pytest.raises(LostConnection, match=r"Connection refused; this shard"):
        client.insist(Tries(LostConnection("Connection refused")))
