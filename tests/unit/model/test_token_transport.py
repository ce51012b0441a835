"""Where a token may go: over TLS anywhere, and without it to this machine only."""

from __future__ import annotations

import pytest

from celery_stargate import ConfigurationError
from celery_stargate.model.settings import Settings
from celery_stargate.model.token_transport import is_loopback, require_safe_transport


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1"])
def test_hosts_that_are_this_machine(host: str) -> None:
    assert is_loopback(host)


def test_an_address_of_ipv4_in_ipv6() -> None:
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:10.0.0.1")


@pytest.mark.parametrize("host", [None, "", "pulsar", "localhost.example", "127.1", "10.0.0.1"])
def test_hosts_that_may_be_another(host: str | None) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("url", ["wss://pulsar:8443", "ws://localhost:8080", "ws://[::1]:8080"])
def test_where_a_token_may_go(url: str) -> None:
    require_safe_transport(url)
    assert Settings.read({"stargate_url": url, "stargate_token": "t"}).url == url


def test_where_a_token_may_not_go() -> None:
    """The text names the settings that allow it, and not the token."""
    conf = {"stargate_url": "ws://pulsar:8080", "stargate_token": "s3cr3t"}
    with pytest.raises(ConfigurationError, match="stargate_allow_token_without_tls") as caught:
        Settings.read(conf)
    assert "would go to pulsar without TLS" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert Settings.read({**conf, "stargate_allow_token_without_tls": True}).url
