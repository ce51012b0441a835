"""``effects/results/write.py``: the rows of a batch, written in one round trip."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import OutOfMemoryError, ResponseError

from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.model.follow_up import ResultRow
from tests.unit.helpers import make_app


class Redis:
    """Stand where the backend's client does.

    Arguments:
        replies: to each command of the next pipeline.
    """

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.commands: list[tuple[Any, ...]] = []

    def pipeline(self, transaction: bool) -> Any:
        """A pipeline."""
        return self

    def execute_command(self, *command: Any) -> None:
        """Note it."""
        self.commands.append(command)

    def execute(self, raise_on_error: bool) -> list[Any]:
        """Answer."""
        assert not raise_on_error
        return self.replies

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def batch_over(redis: Redis) -> ResultBatch:
    """Return a batch of two rows; the second one never expires."""
    app = make_app(result_backend="redis://redis.invalid:6379/0")
    batch = ResultBatch(app.backend)
    given: Any = SimpleNamespace(client=redis, ensure=lambda call, args: call(*args))
    vars(batch)["backend"] = given
    batch.keep(ResultRow("one", "1", 60))
    batch.keep(ResultRow("two", "2", 0))
    return batch


def test_each_row_is_stored_and_published() -> None:
    """And none twice."""
    redis = Redis(True, 0, True, 0)
    batch = batch_over(redis)
    assert batch.flush() == {}
    assert redis.commands == [
        ("SET", "one", "1", "EX", 60),
        ("PUBLISH", "one", "1"),
        ("SET", "two", "2"),
        ("PUBLISH", "two", "2"),
    ]
    assert batch.flush() == {}
    assert len(redis.commands) == 4


def test_a_row_that_redis_refuses() -> None:
    """Is told by its place; the other is stored."""
    refused = ResponseError("NOPERM")
    batch = batch_over(Redis(True, 0, refused, refused))
    assert batch.flush() == {1: refused}
    assert len(batch) == 0


def test_redis_refuses_all_rows() -> None:
    """As while it has no memory left: they are kept, and the error is raised."""
    full = OutOfMemoryError("OOM")
    batch = batch_over(Redis(full, full, full, full))
    with pytest.raises(OutOfMemoryError):
        batch.flush()
    assert len(batch) == 2


def test_a_connection_that_breaks_in_between() -> None:
    """Is raised: it is not known which rows are stored, and to store one twice is harmless."""
    lost = LostConnection("reset")
    batch = batch_over(Redis(True, 0, lost, lost))
    with pytest.raises(LostConnection):
        batch.flush()
    assert len(batch) == 2
