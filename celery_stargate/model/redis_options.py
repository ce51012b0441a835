"""What ``stargate_redis_url`` and ``stargate_redis_options`` may say; nothing is connected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery_stargate.errors import ConfigurationError, nearest

__all__ = [
    "SENTINEL_OPTIONS",
    "check_redis",
    "is_cluster",
    "read_redis_options",
    "read_redis_url",
]

_DIRECT = ("redis", "rediss", "unix", "redis+socket", "socket")
_SENTINEL = ("sentinel", "redis+sentinel", "redis-sentinel")
_CLUSTER = ("rediscluster", "redisclusters")

#: The options that are about sentinels, and not about the server that holds the lanes.
SENTINEL_OPTIONS = ("master_name", "sentinel_kwargs", "min_other_sentinels")

#: What redis-py's clients of a Cluster do not take.
_NOT_ON_CLUSTER = (*SENTINEL_OPTIONS, "ssl_ca_path", "ssl_password")

_SECONDS = "seconds"
_NAMES: Mapping[str, type | tuple[type, ...] | str] = {
    "master_name": str,
    "sentinel_kwargs": dict,
    "min_other_sentinels": int,
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive": bool,
    "health_check_interval": _SECONDS,
    "username": str,
    "password": str,
    "credential_provider": object,
    "client_name": str,
    "db": int,
    "protocol": int,
    "ssl": bool,
    "ssl_ca_certs": str,
    "ssl_ca_data": str,
    "ssl_ca_path": str,
    "ssl_cert_reqs": object,
    "ssl_certfile": str,
    "ssl_check_hostname": bool,
    "ssl_ciphers": str,
    "ssl_keyfile": str,
    "ssl_min_version": object,
    "ssl_password": str,
}


def read_redis_url(name: str, value: Any) -> str:
    """Check the form of the URL of the lanes' Redis.

    Raises:
        ConfigurationError: it is no Redis URL. What it holds is not shown: it may be a password.
    """
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{name} must be text that is not empty, not {type(value).__name__}"
        )
    try:
        scheme = urlsplit(value.partition(";")[0].partition(",")[0]).scheme
    except ValueError:
        scheme = "unreadable"
    known = (*_DIRECT, *_SENTINEL, *_CLUSTER)
    if scheme not in known:
        raise ConfigurationError(
            f"{name} must be redis://, rediss://, unix://, redis+socket://, sentinel://, "
            "rediscluster:// or redisclusters://, and its "
            f"scheme is {scheme!r}{nearest(scheme, known)}"
        )
    return value


def read_redis_options(name: str, value: Any) -> dict[str, Any]:
    """Check the options of the connections to the lanes' Redis.

    Raises:
        ConfigurationError: an option does not exist or has a wrong type. It names the nearest.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must be a mapping, not {type(value).__name__}")
    for key, item in value.items():
        if key not in _NAMES:
            raise ConfigurationError(f"{name} has no option {key!r}{nearest(str(key), _NAMES)}")
        expected = _NAMES[key]
        if expected == _SECONDS:
            right = isinstance(item, int | float) and not isinstance(item, bool) and item > 0
            words = "seconds above 0"
        elif expected is dict:
            right, words = isinstance(item, Mapping), "a mapping"
        else:
            assert not isinstance(expected, str)
            right = isinstance(item, expected) and not (expected is int and item is True)
            words = getattr(expected, "__name__", "text")
        if not right:
            raise ConfigurationError(f"{name}[{key!r}] must be {words}, not {type(item).__name__}")
    return dict(value)


def check_redis(url: str | None, options: Mapping[str, Any], prefix: str) -> None:
    """Check the URL and the options together.

    Arguments:
        prefix: of the settings' names.

    Raises:
        ConfigurationError: a Sentinel URL without the name of a master, or a Cluster with a
            database or with options of sentinels.
    """
    if is_cluster(url):
        _check_cluster(url or "", options, prefix)
        return
    if url is None or url.partition("://")[0] not in _SENTINEL or "master_name" in options:
        return
    query = parse_qs(url.partition("?")[2])
    if not query.get("master_name") and not query.get("service_name"):
        raise ConfigurationError(
            f"{prefix}redis_url names sentinels, and nothing names the master that they watch: set "
            f'{prefix}redis_options = {{"master_name": …}}'
        )


def is_cluster(url: str | None) -> bool:
    """Whether a URL names the nodes of a Redis Cluster."""
    return url is not None and url.partition("://")[0] in _CLUSTER


def _check_cluster(url: str, options: Mapping[str, Any], prefix: str) -> None:
    """Raise for what a Redis Cluster does not have."""
    path = url.partition("://")[2].rpartition("@")[2].partition("?")[0].partition("/")[2]
    query = parse_qs(url.partition("?")[2])
    databases = [path, *query.get("db", ()), *query.get("virtual_host", ()), options.get("db", 0)]
    if any(str(each).strip("/") not in ("", "0") for each in databases):
        raise ConfigurationError(
            f"{prefix}redis_url names a Redis Cluster, which has database 0 only; leave the "
            f"database out, and tell systems apart by {prefix}prefix"
        )
    found = [name for name in _NOT_ON_CLUSTER if name in options or name in query]
    if found:
        raise ConfigurationError(
            f"{prefix}redis_url names a Redis Cluster, which does not take {', '.join(found)} in "
            f"{prefix}redis_options; leave it out"
        )
