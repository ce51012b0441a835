"""What ``stargate_redis_url`` may say behind its scheme: redis-py ignores what is wrong there."""

from __future__ import annotations

import ssl

import pytest

from celery_stargate import ConfigurationError
from celery_stargate.lanes.target import parse_target
from celery_stargate.model.settings import Settings

MASTER = {"master_name": "m"}


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis:///1",
        "redis://h:6379/3",
        "redis://h/",
        "redis://[::1]:6379/0",
        "redis://[fe80::1%25eth0]:6379",
        "redis://u:p%40%3A%2F%25%23@h",
        "redis://u:p@x@h",
        "redis://h_1.example-2:1?db=4&socket_timeout=5&health_check_interval=5&protocol=3",
        "redis://h?max_connections=5&decode_responses=true&username=u&password=p@1",
        "rediss://h/1?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
        "unix:///run/r.sock?db=2&socket_timeout=3",
        "unix://u:p@/run/r.sock",
        "redis+socket://:p@/run/r.sock?virtual_host=/3",
        "rediscluster://u:p%40@h1:7000,[::1]:7001,h2",
        "redisclusters://h1,h2?ssl_cert_reqs=none",
        "sentinel://u:p@h1:26379/0;sentinel://h2:26379",
        "redis-sentinel://h1:1;h2:2/1",
        "redis+sentinel://h1,h2/1?ssl_cert_reqs=none",
    ],
)
def test_urls_that_are_right(url: str) -> None:
    """Those that redis-py, Celery and others write."""
    options = MASTER if "sentinel" in url else {}
    settings = Settings.read({"stargate_redis_url": url, "stargate_redis_options": options})
    assert settings.redis_url == url
    assert parse_target(url).address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h/abc", "no number of a database"),
        ("redis://h/3/4", "no number of a database"),
        ("redis://h/-1", "no number of a database"),
        ("redis://h?db=x", "stargate_redis_url: db must be a number, not 'x'"),
        ("redis://h?nosuch=5", "has no option 'nosuch'"),
        ("redis://h?socket_timeot=5", "did you mean 'socket_timeout'?"),
        ("redis://h?socket_timeout=abc", "must be seconds above 0, at most 1000000000, not 'abc'"),
        ("redis://h?socket_timeout=inf", "must be seconds above 0, at most 1000000000, not 'inf'"),
        ("redis://h?socket_timeout=0", "socket_timeout must be seconds above 0"),
        ("redis://h?protocol=9", "protocol must be one of 2, 3, not '9'"),
        ("rediss://h?ssl_cert_reqs=nope", "ssl_cert_reqs must be one of none, optional"),
        ("redis://h?ssl_cert_reqs=none", "has ssl_cert_reqs, which needs rediss://"),
        ("rediscluster://h?ssl_ca_certs=/x", "has ssl_ca_certs, which needs redisclusters://"),
        ("redis://h?socket_keepalive=maybe", "socket_keepalive must be true or false, not 'maybe'"),
        ("rediss://h?ssl_min_version=1.2", "ssl_min_version must be TLSv1_2, TLSv1_3, or"),
        ("redis://h1,h2", "several hosts need sentinel:// or rediscluster://"),
        ("redis://h1;redis://h2", "several hosts need sentinel:// or rediscluster://"),
        ("redis://a b", "has a host that cannot be one"),
        ("redis://::1:6379", "has a host that cannot be one"),
        ("rediscluster://h1;h2", "between hosts stands a comma"),
        ("rediscluster://h1,rediscluster://h2", "database 0 only|between hosts stands a comma"),
        ("sentinel://h1;redis://h2", "between hosts stands a comma"),
        (
            "redis://redis..svc:6379/0",
            "stargate_redis_url names the host 'redis..svc', which cannot",
        ),
        (f"rediscluster://h1,{'a' * 64}", "names the host 'a+', which cannot be one"),
        ("sentinel://h1;sentinel://h..2:5/0", "names the host 'h..2', which cannot be one"),
        ("unix://run/r.sock", "path begins with a slash"),
        ("redis+socket://", "path begins with a slash"),
        ("REDIS://h", "its scheme is 'REDIS'; did you mean 'redis'"),
        (" redis://h", "its scheme is ' redis'; did you mean 'redis'"),
        ("h:6379", "its scheme is 'unreadable'"),
    ],
)
def test_urls_that_are_wrong(url: str, words: str) -> None:
    """Each was another database, another host or an error at the first message."""
    options = MASTER if "sentinel" in url else {}
    with pytest.raises(ConfigurationError, match=words):
        Settings.read({"stargate_redis_url": url, "stargate_redis_options": options})


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:hunter/2@h", "redis://u:1?hunter@h", "hunter2@h", "redis://:hunter;2@h"),
        *("redis://hunter..2/1@h", "redis://hunter..2?x@h"),
    ],
)
def test_no_part_of_a_password_is_shown(url: str) -> None:
    """It may hold what ends the part of a URL that it is in."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.read({"stargate_redis_url": url})
    assert "hunter" not in str(caught.value)


def test_a_master_of_a_single_server() -> None:
    """Nobody would ask the sentinels."""
    with pytest.raises(ConfigurationError, match="has master_name, and stargate_redis_url names a"):
        Settings.read({"stargate_redis_url": "redis://h", "stargate_redis_options": MASTER})


@pytest.mark.parametrize("given", ["CERT_OPTIONAL", "cert_optional", "Optional", ssl.CERT_OPTIONAL])
def test_requirements_of_certificates_in_the_options(given: object) -> None:
    """As Celery writes them, too; redis-py takes its own only."""
    read = Settings.read({"stargate_redis_options": {"ssl_cert_reqs": given}})
    found = parse_target("rediss://h").changed(read.redis_options).parameters["ssl_cert_reqs"]
    assert found in ("optional", ssl.CERT_OPTIONAL)
