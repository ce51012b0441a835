"""Which failures become dead letters, and what the settings may say about errors."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate.errors import ConfigurationError
from celery_stargate.model.dead_letters import DeadLetterBounds, DeadLetterRules, Policy
from celery_stargate.model.outcome import Failure
from celery_stargate.model.settings import Settings

TERMINATED = "org.apache.pulsar.client.api.PulsarClientException$TopicTerminatedException: over"


def failure(code: str, reason: str = "no") -> Failure:
    """A failure of a message."""
    return Failure(context="c", code=code, reason=reason)


def rules(**policies: str) -> DeadLetterRules:
    """Rules with policies."""
    return DeadLetterRules(policies={name: Policy(each) for name, each in policies.items()})


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (failure("deadline"), "ProduceTimeout deadline"),
        (failure("send-error:8", TERMINATED), "TopicTerminatedException send-error:8"),
        (failure("http-404", "HTTP 404: not found"), "ProduceError http-404"),
        (failure("OperationalError"), "OperationalError OperationalError"),
        (failure("a\nb"), "ProduceError a b"),
        (failure("revoked"), ""),
        (failure("expired"), ""),
    ],
)
def test_the_cause_is_class_and_code(found: Failure, cause: str) -> None:
    """What is revoked or expired is not kept."""
    assert rules().cause_of(found) == cause


def test_without_bounds_nothing_is_kept() -> None:
    """And the scripts get nothing."""
    off = DeadLetterRules(bounds=None)
    assert off.cause_of(failure("deadline")) == off.argument("t") == ""


@pytest.mark.parametrize(
    ("policies", "found", "policy"),
    [
        ({}, failure("send-error:8", TERMINATED), "dead"),
        ({"TopicTerminatedException": "pause"}, failure("send-error:8", TERMINATED), "pause"),
        ({"ProduceError": "retry"}, failure("send-error:8", TERMINATED), "retry"),
        ({"ProduceError": "retry", "http-404": "drop"}, failure("http-404"), "drop"),
        ({"ProduceTimeout": "drop"}, failure("deadline"), "drop"),
        ({"ProduceError": "dead"}, failure("revoked"), "drop"),
        ({"revoked": "dead"}, failure("revoked"), "dead"),
    ],
)
def test_the_policy_of_the_nearest_name(
    policies: dict[str, str], found: Failure, policy: str
) -> None:
    """Pulsar's exception before the code, and the code before what every failure is."""
    assert rules(**policies).policy_of(found) == policy


def test_the_lanes_of_a_topic_share_its_bounds() -> None:
    """Rounded up, so that each keeps something."""
    bounds = DeadLetterBounds(max_age=60, max_count=10, max_bytes=1000)
    assert bounds.of_lane(1) == "10 1000 60000"
    assert bounds.of_lane(3) == "4 334 60000"


def read(**settings: Any) -> Settings:
    """The settings of an app."""
    return Settings.read({f"stargate_{name}": value for name, value in settings.items()})


def test_the_settings() -> None:
    """On by default, with bounds of one's own, or off."""
    assert read().dead_letters == DeadLetterBounds()
    assert read(dead_letters=False).dead_letter_rules.bounds is None
    assert read(dead_letters={"max_count": 3}).dead_letters == DeadLetterBounds(max_count=3)
    topics = {"orders": {"topic": "persistent://a/b/orders", "lanes": 4}}
    found = read(topics=topics, dead_letters={"max_count": 8}).dead_letter_rules
    assert found.argument("persistent://a/b/orders").startswith("2 ")
    assert found.argument("persistent://a/b/others").startswith("8 ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dead_letters": 7}, "True, False or a mapping"),
        ({"dead_letters": {"max_ages": 1}}, "did you mean 'max_age'"),
        ({"dead_letters": {"max_count": 0}}, "max_count"),
        ({"dead_letter_policy": "drop"}, "a mapping of errors"),
        ({"dead_letter_policy": {"http-404": "drops"}}, "did you mean 'drop'"),
        ({"dead_letter_policy": {"TopicTerminatedExcption": "dead"}}, "TopicTerminatedException"),
        ({"dead_letter_policy": {"deadlines": "dead"}}, "did you mean 'deadline'"),
        ({"dead_letter_policy": {"deadline": "retry"}}, "not refused by Pulsar"),
    ],
)
def test_mistakes_in_the_settings(settings: dict[str, Any], words: str) -> None:
    """Each is told with what was meant, when the settings are read."""
    with pytest.raises(ConfigurationError, match=words):
        read(**settings)
