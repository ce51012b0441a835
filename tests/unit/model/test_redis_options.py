"""What the settings of Redis may say, and the prefix that follows from Celery's."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from celery_stargate import ConfigurationError
from celery_stargate.model.redis_options import tls_version
from celery_stargate.model.settings import Settings


def read(**conf: Any) -> Settings:
    """Read a configuration."""
    return Settings.read(conf)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"master_nme": "m"}, "no option 'master_nme'; did you mean 'master_name'?"),
        ({"ssl_ca_cert": "/ca"}, "no option 'ssl_ca_cert'; did you mean 'ssl_ca_certs'?"),
        ({5: "x"}, "no option 5"),
        ({"master_name": 5}, "stargate_redis_options['master_name'] must be str, not int"),
        ({"sentinel_kwargs": "x"}, "['sentinel_kwargs'] must be a mapping, not str"),
        ({"socket_timeout": 0}, "['socket_timeout'] must be seconds above 0"),
        ({"socket_timeout": float("inf")}, "at most 1000000000, not float"),
        ({"min_other_sentinels": True}, "['min_other_sentinels'] must be int, not bool"),
        ({"min_other_sentinels": -1}, "['min_other_sentinels'] must be 0 or more, not int"),
        ({"db": -1}, "['db'] must be 0 or more"),
        ({"protocol": 9}, "['protocol'] must be one of 2, 3"),
        ({"ssl_cert_reqs": "nope"}, "['ssl_cert_reqs'] must be one of none, optional, required"),
        (
            {"ssl_min_version": "TLS1.2"},
            "must be TLSv1_2, TLSv1_3, or an ssl.TLSVersion, not 'TLS1",
        ),
        ({"ssl_min_version": 3}, "must be TLSv1_2, TLSv1_3, or an ssl.TLSVersion, not int"),
        ({"ssl": False, "ssl_ca_certs": "/ca"}, "has ssl=False, and ssl_ca_certs means TLS"),
        ({"client_name": "a b"}, "['client_name'] must be text without blanks, not 'a b'"),
        (
            {"sentinel_kwargs": {"ssl_ca_cert": "x"}},
            "['sentinel_kwargs'] has no option 'ssl_ca_cert'; did you mean 'ssl_ca_certs'?",
        ),
        ({"sentinel_kwargs": {"socket_timeout": -1}}, "['socket_timeout'] must be seconds above 0"),
        ("master_name=m", "stargate_redis_options must be a mapping, not str"),
    ],
)
def test_options_that_are_wrong(options: Any, words: str) -> None:
    """Are refused, with the nearest name."""
    with pytest.raises(ConfigurationError) as caught:
        read(stargate_redis_options=options)
    assert words in str(caught.value)


def test_tls_that_is_off_and_on() -> None:
    """Nobody can tell which of them is meant."""
    with pytest.raises(ConfigurationError, match="ssl=False, and rediss:// in stargate_redis_url"):
        read(stargate_redis_url="rediss://h", stargate_redis_options={"ssl": False})
    assert read(stargate_redis_url="redis://h", stargate_redis_options={"ssl": False}).redis_url


@pytest.mark.parametrize("given", ["TLSv1_3", "772", 772, ssl.TLSVersion.TLSv1_3])
def test_versions_of_tls(given: Any) -> None:
    """Their names are what people write, and `ssl` takes itself only."""
    assert tls_version(given) is ssl.TLSVersion.TLSv1_3
    assert read(stargate_redis_options={"ssl_min_version": given}).redis_options


def test_options_that_are_right() -> None:
    """Are kept, and not shown."""
    options = {"master_name": "m", "socket_timeout": 1.5, "password": "hunter2"}
    settings = read(stargate_redis_options=options)
    assert settings.redis_options == options
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    ["sentinel://a:1;sentinel://b:2", "redis+sentinel://a,b/0", "redis-sentinel://:p@a:1/0"],
)
def test_a_sentinel_url_needs_the_name_of_a_master(url: str) -> None:
    """From the options or from itself, when the settings are read."""
    with pytest.raises(ConfigurationError, match="names sentinels, and nothing names the master"):
        read(stargate_redis_url=url)
    assert read(stargate_redis_url=url, stargate_redis_options={"master_name": "m"}).redis_url
    assert read(stargate_redis_url=f"{url}?master_name=m").redis_url


@pytest.mark.parametrize("scheme", ["rediscluster", "redisclusters"])
def test_a_cluster_has_buckets(scheme: str) -> None:
    """So many as the setting says; a single server has none."""
    url = f"{scheme}://:hunter2@a:1,b:2"
    assert read(stargate_redis_url=url).keyspace == "stargate{16}"
    assert read(stargate_redis_url=url, stargate_redis_buckets=3).keyspace == "stargate{3}"
    assert read(stargate_redis_url="redis://a", stargate_redis_buckets=3).keyspace == "stargate"


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("rediscluster://a:1,b:2/1", {}, "which has database 0 only"),
        ("rediscluster://a:1?db=1", {}, "which has database 0 only"),
        ("rediscluster://a:1", {"db": 1}, "which has database 0 only"),
        ("rediscluster://a:1", {"master_name": "m"}, "which does not take master_name"),
        ("rediscluster://a:1?ssl_ca_path=/x", {}, "which does not take ssl_ca_path"),
    ],
)
def test_what_a_cluster_does_not_have(url: str, options: Any, words: str) -> None:
    """Is refused when the settings are read."""
    with pytest.raises(ConfigurationError, match=words):
        read(stargate_redis_url=url, stargate_redis_options=options)


def test_database_0_of_a_cluster() -> None:
    """May be written."""
    for url in ("rediscluster://a:1,b:2/", "rediscluster://a:1,b:2/0", "rediscluster://u:p@a?db=0"):
        assert read(stargate_redis_url=url).redis_url == url


def test_a_misspelled_scheme() -> None:
    """The nearest is named."""
    with pytest.raises(ConfigurationError, match="did you mean 'redis'"):
        read(stargate_redis_url="redsis://a")


@pytest.mark.parametrize(
    ("conf", "prefix"),
    [
        ({}, "stargate"),
        ({"broker_transport_options": {"global_keyprefix": "A:"}}, "A:stargate"),
        (
            {
                "broker_transport_options": {"global_keyprefix": "A:"},
                "result_backend_transport_options": {"global_keyprefix": "B:"},
            },
            "B:stargate",
        ),
        ({"result_backend_transport_options": {"global_keyprefix": "{x}:"}}, "x:stargate"),
        (
            {
                "result_backend_transport_options": {"global_keyprefix": "B:"},
                "stargate_prefix": "own",
            },
            "own",
        ),
        ({"broker_transport_options": None}, "stargate"),
    ],
)
def test_two_systems_apart_by_celerys_prefix_have_lanes_of_their_own(
    conf: dict[str, Any], prefix: str
) -> None:
    """The default prefix is behind Celery's; one that is set is taken as it is."""
    assert read(**conf).prefix == prefix


def test_a_url_that_cannot_be_read() -> None:
    """Is named without its text, which may hold a password."""
    with pytest.raises(ConfigurationError, match="has a host that cannot be one") as caught:
        read(stargate_redis_url="redis://:hunter2@[h")
    assert "hunter2" not in str(caught.value)
