"""The Pulsar component by itself."""

from __future__ import annotations

import urllib.error

import pytest

from celery_stargate import Message, produce
from celery_stargate.testing.pytest_celery import PulsarTestContainer


@pytest.fixture
def producer_url(default_pulsar_container: PulsarTestContainer, pulsar_topic: str) -> str:
    path = pulsar_topic.replace("://", "/")
    return f"{default_pulsar_container.host_url}/ws/v2/producer/{path}"


def test_what_is_published_can_be_read(
    default_pulsar_container: PulsarTestContainer, producer_url: str, pulsar_topic: str
) -> None:
    """`stored` counts, and `read` returns payload, key and properties from the first message on."""
    full = Message(payload="one", key="k", properties={"p": "v"})
    receipts = produce(producer_url, [full, "two"])
    assert [receipt.status for receipt in receipts] == ["stored", "stored"]
    assert default_pulsar_container.stored(pulsar_topic) == 2
    assert default_pulsar_container.read(pulsar_topic, 2) == [
        Message(payload=b"one", key="k", properties={"p": "v"}),
        Message(payload=b"two"),
    ]


def test_reading_ends_where_nothing_comes(
    default_pulsar_container: PulsarTestContainer, producer_url: str, pulsar_topic: str
) -> None:
    """A message too few is an error that says how many came."""
    produce(producer_url, "one")
    with pytest.raises(TimeoutError, match="1 of 2 messages"):
        default_pulsar_container.read(pulsar_topic, 2, timeout=0.5)


def test_a_short_name_of_a_topic_is_an_error(default_pulsar_container: PulsarTestContainer) -> None:
    with pytest.raises(ValueError, match="persistent://TENANT/NAMESPACE/TOPIC"):
        default_pulsar_container.stored("orders")


def test_the_environment_sets_the_broker(default_pulsar_container: PulsarTestContainer) -> None:
    """Variables become settings, so deduplication is on."""
    settings = default_pulsar_container.admin("GET", "brokers/configuration/runtime")
    assert settings["brokerDeduplicationEnabled"] == "true"
    assert settings["brokerDeleteInactiveTopicsEnabled"] == "false"


def test_the_admin_api_refuses(default_pulsar_container: PulsarTestContainer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        default_pulsar_container.admin("GET", "namespaces/public/no-such-namespace")


def test_the_cluster_names_both_addresses(
    default_pulsar_container: PulsarTestContainer, pulsar_cluster_config: dict[str, list[str]]
) -> None:
    """One URL for the containers' network, and one for this process."""
    assert pulsar_cluster_config == {
        "urls": [f"ws://{default_pulsar_container.hostname}:8080"],
        "host_urls": [default_pulsar_container.host_url],
    }
