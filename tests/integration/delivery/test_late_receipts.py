"""A receipt that comes after its message's deadline: the message is stored, and no dead letter."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate import Acknowledger, ProduceError, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for


@pytest.mark.parametrize("known", [True, False], ids=["the owner settled it", "a caller did"])
def test_it_takes_the_dead_letter_away(
    make_app: MakeApp, local: LocalPulsar, topic: str, known: bool
) -> None:
    """Whether the owner still waits for it or not; one that has no receipt stays."""
    app = make_app(local.url, delivery_timeout=1.0 if known else 60.0)
    stargate, lane = Stargate.of(app), Lane(topic)
    local.faults.hold_receipts()
    with Acknowledger(app):
        produce = app.tasks["celery_stargate.produce"]
        if known:
            with pytest.raises(ProduceError, match="unknown"):
                produce.delay("a", topic=topic).get(timeout=20)
        else:
            result = produce.delay("a", topic=topic)
            wait_for(lambda: local.payloads(topic))
            client: Any = stargate.runtime.connections.sync()
            client.zadd(lane.key(stargate.settings.prefix, "deadlines"), {result.id: 0})
            stargate.lanes.finish(lane, stargate.lanes.expire(lane, result.id))
        wait_for(lambda: stargate.dead_letters.totals().count == 1)
        assert [each.status for each in stargate.dead_letters.find()] == ["unknown"]
        local.faults.release_receipts()
        wait_for(lambda: stargate.dead_letters.totals().count == 0)
    assert local.payloads(topic) == [b"a"]
