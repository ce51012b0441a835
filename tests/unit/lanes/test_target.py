"""``target.py``: where a URL leads."""

from __future__ import annotations

import pytest

from celery_stargate.lanes.target import parse_target


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("redis://h?ssl=true", "tls"),
        ("redis://h?ssl=false", "tcp"),
        ("rediscluster://h?ssl=no", "tcp"),
        ("sentinel://h?ssl=true", "tls"),
        ("sentinel://h?ssl=0", "tcp"),
        ("sentinel://h1:1/2;sentinel://h2?ssl_ca_certs=/ca.pem&master_name=m", "tls"),
        ("sentinel://h1,h2:2/2?master_name=m&ssl_min_version=TLSv1_3", "tls"),
        ("sentinel://h1;h2/2?master_name=m", "tcp"),
    ],
)
def test_tls_that_a_url_asks_for(url: str, transport: str) -> None:
    """Or does not; a password must not go over the network as it is."""
    found = parse_target(url)
    assert found.transport == transport
    if "master_name" in url:
        assert found.master_name == "m"
        assert found.parameters["db"] == 2
        assert len(found.sentinels) == 2


@pytest.mark.parametrize("url", ["sentinel://:1", "sentinel://h1,;h2", "rediscluster://h1,:2"])
def test_a_server_without_a_host(url: str) -> None:
    """Is no server."""
    with pytest.raises(ValueError, match="without a host"):
        parse_target(url)


def test_a_socket_has_no_host() -> None:
    """What belongs to TCP is left out; Celery and kombu name the database otherwise."""
    found = parse_target("redis+socket:///run/redis.sock?virtual_host=3&socket_keepalive=true")
    assert found.transport == "unix"
    assert found.parameters == {"path": "/run/redis.sock", "db": 3}


def test_a_provider_takes_the_place_of_a_password() -> None:
    """It is named by the path of its class."""
    url = "redis://user:hunter2@h?credential_provider=redis.credentials.UsernamePasswordCredentialProvider"
    found = parse_target(url).parameters
    assert type(found["credential_provider"]).__name__ == "UsernamePasswordCredentialProvider"
    assert not {"username", "password"} & found.keys()
