"""One call that waits: what it raises where no outcome can be had."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celery_stargate import ConfigurationError, ProduceTimeout, Stargate
from celery_stargate.calls.loop_calls import LoopCalls
from tests.unit.helpers import make_app, make_stargate


def test_nobody_can_tell_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an event loop the call ends as unknown, too: it was recorded."""
    stargate, lanes, _ = make_stargate()

    async def give_up(self: LoopCalls, *given: Any) -> bool:
        """Redis is away until the grace period is over."""
        return False

    monkeypatch.setattr(LoopCalls, "wait", give_up)
    with pytest.raises(ProduceTimeout) as caught:
        asyncio.run(asyncio.wait_for(stargate.aproduce("x", timeout=5), 20))
    assert caught.value.status == "unknown"
    assert len(lanes.puts) == 1


def test_effectively_once_needs_a_redis() -> None:
    """A direct call of a task without one says so, before anything is sent."""
    app = make_app(
        broker_url="memory://", stargate_redis_url=None, stargate_delivery="effectively_once"
    )
    stargate = Stargate(app)
    task = app.tasks["celery_stargate.produce"]
    with pytest.raises(ConfigurationError, match="needs a Redis for its lanes"):
        task("x")
    stargate.close()
