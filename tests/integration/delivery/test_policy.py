"""What a policy does with a message that Pulsar refuses, through a running owner."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate import Acknowledger, ProduceError, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.signals import message_dead_lettered
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for

REFUSED = "org.apache.pulsar.client.api.PulsarClientException$NotAllowedException: never"


def owner(stargate: Stargate, topic: str) -> str:
    """Who holds the lease of the topic's lane."""
    client: Any = stargate.runtime.connections.sync()
    return (client.get(Lane(topic).key(stargate.settings.prefix, "lease")) or b"").decode()


def letters(stargate: Stargate, topic: str) -> int:
    """How many dead letters the topic has."""
    client: Any = stargate.runtime.connections.sync()
    return int(client.zcard(Lane(topic).key(stargate.settings.prefix, "dead")))


@pytest.mark.parametrize(("policy", "kept"), [("dead", 1), ("drop", 0)])
def test_dead_and_drop(
    make_app: MakeApp, local: LocalPulsar, topic: str, policy: str, kept: int
) -> None:
    """The message fails; one that is kept is kept in the step that settles it, and told of."""
    told: list[Any] = []

    def receiver(detail: Any, **_: Any) -> None:
        told.append(detail)

    message_dead_lettered.connect(receiver, sender=topic)
    app = make_app(local.url, dead_letter_policy={"NotAllowedException": policy})
    local.faults.fail_sends(REFUSED, count=1)
    with Acknowledger(app):
        result = app.tasks["celery_stargate.produce"].delay("a", topic=topic)
        with pytest.raises(ProduceError):
            result.get(timeout=20)
        assert letters(Stargate.of(app), topic) == kept
    assert [(each.context, each.outcome.code) for each in told] == [
        (result.id, "send-error:8")
    ] * kept


def test_retry(make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
    """The message is sent again, as for an error that passes."""
    app = make_app(local.url, dead_letter_policy={"send-error:8": "retry"})
    local.faults.fail_sends(REFUSED, count=2)
    with Acknowledger(app):
        result = app.tasks["celery_stargate.produce"].delay("a", topic=topic)
        assert result.get(timeout=30)["status"] == "stored"
        assert letters(Stargate.of(app), topic) == 0


@pytest.mark.parametrize("delivery", ["at_least_once", "effectively_once"])
def test_pause(make_app: MakeApp, local: LocalPulsar, topic: str, delivery: str) -> None:
    """The lane stops before the message; resumed, all go in their order."""
    app = make_app(
        local.url,
        delivery=delivery,
        max_in_flight=1,
        dead_letter_policy={"NotAllowedException": "pause"},
    )
    stargate = Stargate.of(app)
    local.faults.fail_sends(REFUSED, count=1)
    with Acknowledger(app):
        produce = app.tasks["celery_stargate.produce"]
        results = [produce.delay(str(n), topic=topic) for n in range(5)]
        wait_for(lambda: owner(stargate, topic).startswith("paused by the policy"))
        assert letters(stargate, topic) == 0
        client: Any = stargate.runtime.connections.sync()
        client.delete(Lane(topic).key(stargate.settings.prefix, "lease"))
        assert [each.get(timeout=40)["status"] for each in results] == ["stored"] * 5
    assert [each.decode() for each in local.payloads(topic)] == ["0", "1", "2", "3", "4"]


def test_a_refused_topic_is_paused(make_app: MakeApp, local: LocalPulsar, topic: str) -> None:
    """A handshake that is refused for good means all messages of the lane."""
    app = make_app(local.url, dead_letter_policy={"http-403": "pause"})
    local.faults.refuse_handshakes(403, count=1)
    with Acknowledger(app):
        app.tasks["celery_stargate.produce"].delay("a", topic=topic)
        wait_for(lambda: owner(Stargate.of(app), topic).startswith("paused by the policy"))
        assert letters(Stargate.of(app), topic) == 0
