"""What ``stargate_redis_url`` and ``stargate_redis_options`` may say; nothing is connected."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from celery_stargate.errors import ConfigurationError, nearest
from celery_stargate.model.durations import LONGEST, is_duration

__all__ = [
    "OPTION_NAMES",
    "SENTINEL_OPTIONS",
    "check_option",
    "check_redis",
    "is_cluster",
    "read_redis_options",
    "read_redis_url",
    "tls_version",
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
#: What redis-py reads as a yes or a no in a URL; all else would be a yes.
_BOOLS = ("true", "false", "t", "f", "yes", "no", "y", "n", "1", "0")
#: Options of few values, as redis-py, Celery and Python's ``ssl`` write them.
_VALUES: Mapping[str, tuple[str, ...]] = {
    "protocol": ("2", "3"),
    "ssl_cert_reqs": (
        *("none", "optional", "required"),
        *("cert_none", "cert_optional", "cert_required"),
    ),
}
#: How much of a wrong value an error shows, and whose it does not.
_SHOWN = 30
_NOT_SHOWN = ("password", "ssl_password", "sentinel_kwargs", "credential_provider", "master_name")

#: The options of a URL, and of the connections to sentinels.
OPTION_NAMES = tuple(
    name for name in _NAMES if name not in ("sentinel_kwargs", "min_other_sentinels")
)


def read_redis_url(name: str, value: Any) -> str:
    """Check the form of the URL of the lanes' Redis.

    Raises:
        ConfigurationError: it is no Redis URL. What it holds is not shown: it may be a password.
    """
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{name} must be text that is not empty, not {type(value).__name__}"
        )
    scheme, found, _ = value.partition("://")
    if not found or not re.fullmatch(r"[A-Za-z+ -]{1,20}", scheme):
        scheme = "unreadable"
    known = (*_DIRECT, *_SENTINEL, *_CLUSTER)
    if scheme not in known:
        raise ConfigurationError(
            f"{name} must be redis://, rediss://, unix://, redis+socket://, sentinel://, "
            "rediscluster:// or redisclusters://, and its "
            f"scheme is {scheme!r}{nearest(scheme.lower(), known)}"
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
        check_option(f"{name}[{key!r}]", key, item)
    kwargs = value.get("sentinel_kwargs", {})
    for key, item in kwargs.items():
        where = f"{name}['sentinel_kwargs']"
        if key not in OPTION_NAMES:
            known = nearest(str(key), OPTION_NAMES)
            raise ConfigurationError(f"{where} has no option {key!r}{known}")
        check_option(f"{where}[{key!r}]", key, item)
    return dict(value)


def check_option(name: str, key: str, item: Any, *, text: bool = False) -> None:
    """Check the value of one option.

    Arguments:
        name: of it, for the error.
        text: whether the value is the text in a URL.

    Raises:
        ConfigurationError: it has a wrong type, or is out of its bounds.
    """
    expected = _NAMES[key]
    if expected == _SECONDS:
        number = _number(item) if text else item
        right = is_duration(number)
        words = f"seconds above 0, at most {LONGEST:.0f}"
    elif expected is dict:
        right, words = isinstance(item, Mapping), "a mapping"
    elif text and expected is bool:
        right, words = item.lower() in _BOOLS, "true or false"
    elif text:
        right, words = expected is not int or item.strip("/").isdigit(), "a number"
    else:
        assert not isinstance(expected, str)
        right = isinstance(item, expected) and not (expected is int and item is True)
        words = getattr(expected, "__name__", "text")
    if right and key in _VALUES:
        known = _VALUES[key]
        plain = item.name if isinstance(item, ssl.VerifyMode) else item
        right, words = str(plain).lower() in known, f"one of {', '.join(known)}"
    elif right and key == "ssl_min_version":
        right, words = tls_version(item) is not None, "TLSv1_2, TLSv1_3, or an ssl.TLSVersion"
    elif right and key in ("db", "min_other_sentinels"):
        right, words = int(str(item).strip("/")) >= 0, "0 or more"
    elif right and key == "client_name":
        right, words = not re.search(r"[^!-~]", item), "text without blanks"
    if not right:
        shown = isinstance(item, str) and len(item) <= _SHOWN and key not in _NOT_SHOWN
        found = repr(item) if shown else type(item).__name__
        raise ConfigurationError(f"{name} must be {words}, not {found}")


def tls_version(given: Any) -> ssl.TLSVersion | None:
    """Return a version of TLS that was given by its name, by its number or as itself; else None."""
    try:
        if isinstance(given, str) and not given.isdigit():
            return ssl.TLSVersion[given]
        return ssl.TLSVersion(int(given))
    except (KeyError, TypeError, ValueError):
        return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def check_redis(url: str | None, options: Mapping[str, Any], prefix: str) -> None:
    """Check the URL and the options together.

    Arguments:
        prefix: of the settings' names.

    Raises:
        ConfigurationError: a Sentinel URL without the name of a master, a Cluster with a
            database or with options of sentinels, or TLS that is off and on.
    """
    _check_tls(url or "", options, prefix)
    if is_cluster(url):
        _check_cluster(url or "", options, prefix)
        return
    if url is None:
        return
    if url.partition("://")[0] not in _SENTINEL:
        found = [name for name in SENTINEL_OPTIONS if name in options]
        if found:
            raise ConfigurationError(
                f"{prefix}redis_options has {', '.join(found)}, and {prefix}redis_url names a "
                "server and no sentinels; use sentinel://"
            )
        return
    if options.get("master_name"):
        return
    query = parse_qs(url.partition("?")[2])
    if not query.get("master_name") and not query.get("service_name"):
        raise ConfigurationError(
            f"{prefix}redis_url names sentinels, and nothing names the master that they watch: set "
            f'{prefix}redis_options = {{"master_name": …}}'
        )


def _check_tls(url: str, options: Mapping[str, Any], prefix: str) -> None:
    """Raise if ``ssl`` is off, and something else means TLS."""
    if options.get("ssl", True):
        return
    scheme = url.partition("://")[0]
    found = [name for name in options if name.startswith("ssl_")]
    if scheme in ("rediss", "redisclusters"):
        found.append(f"{scheme}:// in {prefix}redis_url")
    if found:
        raise ConfigurationError(
            f"{prefix}redis_options has ssl=False, and {found[-1]} means TLS; leave one of them out"
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
