"""``celery_stargate.produce`` by a producer's URL: where it connects, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import celery_stargate
from celery_stargate import ConfigurationError
from celery_stargate.testing import LocalPulsar

PATH = "/ws/v2/producer/persistent/public/default/orders"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalPulsar]:
    """A Pulsar in memory."""
    with LocalPulsar() as started:
        yield started


def refused(url: str, **given: Any) -> str:
    """Return why a URL is refused; nothing is connected."""
    with pytest.raises(ConfigurationError) as caught:
        celery_stargate.produce(url, "x", timeout=5, **given)
    return str(caught.value)


def test_only_a_host_that_is_allowed_is_connected(local: LocalPulsar) -> None:
    """With its port or without; whoever makes the URL does not choose the host."""
    url = local.url + PATH
    host, port = local.url.removeprefix("ws://").split(":")
    for allowed in ([host], [f"{host}:{port}"], {"other.example", host.upper()}):
        assert celery_stargate.produce(url, "x", allowed_hosts=allowed).status == "stored"
    assert f"'{host}:{port}', which is not in allowed_hosts" in refused(
        url, allowed_hosts=["other.example", f"{host}:1"]
    )
    assert "is not in allowed_hosts" in refused(url, allowed_hosts=[])


@pytest.mark.parametrize(
    ("service", "where"),
    [
        ("ws://pulsar.example", "pulsar.example:80"),
        ("wss://pulsar.example", "pulsar.example:443"),
        ("ws://[::1]:8080", "[::1]:8080"),
        ("wss://pulsar.example@evil.example", "evil.example:443"),
    ],
)
def test_the_host_of_a_url(service: str, where: str) -> None:
    """Is that to which it would connect, with the port of its scheme."""
    try:
        text = refused(service + PATH, allowed_hosts=["good.example"])
    except celery_stargate.ProduceError:  # pragma: no cover
        pytest.fail("it connected")
    assert where in text or "user" in text


def test_a_text_as_the_allowed_hosts(local: LocalPulsar) -> None:
    """Is refused: each letter of it would be a host."""
    assert "must be a list of hosts" in refused(local.url + PATH, allowed_hosts="localhost")


@pytest.mark.parametrize("query", ["?token=s3cr3t", "?producerName=a&token="])
def test_a_token_in_the_url_without_tls(query: str) -> None:
    """Is refused as one in the setting is: it would be read on its way."""
    text = refused(f"ws://pulsar.example:8080{PATH}{query}")
    assert "TLS" in text or "wss" in text
    assert "s3cr3t" not in text


def test_a_token_that_cannot_be_had(local: LocalPulsar) -> None:
    """Is an error of the caller, and names no token."""

    def token() -> str:
        raise KeyError("no secret here")

    assert "token" in refused(local.url + PATH, token=token)
