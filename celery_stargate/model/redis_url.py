"""The parts of ``stargate_redis_url`` that redis-py ignores where they are wrong."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from celery_stargate.errors import ConfigurationError, nearest
from celery_stargate.model.host import check_host
from celery_stargate.model.redis_options import OPTION_NAMES, check_option, is_cluster

__all__ = ["check_redis_url"]

#: Behind the ``?``: our options, and what others put there and the lanes leave out.
_LEFT_OUT = (
    *("virtual_host", "service_name", "max_connections", "retry_on_timeout", "retry_on_error"),
    *("decode_responses", "encoding", "encoding_errors", "timeout", "lib_name", "lib_version"),
)
_HOST = re.compile(r"(\[[^\[\]@/\s]+\]|[^\[\]@/:,;\s]*)(:\d+)?")
_HELP = "in a password each of @ : / % # ? is written as % and its code"


def check_redis_url(name: str, url: str) -> None:
    """Check what stands behind a URL's scheme. No part of it is shown that may be a password.

    Arguments:
        name: of the setting.
        url: with a scheme that is known.

    Raises:
        ConfigurationError: a host, the database or an option is wrong.
    """
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    hosts: list[str] = []
    if scheme.endswith("socket") or scheme == "unix":
        _check_socket(name, rest)
    else:
        hosts = _check_hosts(name, url, scheme, rest)
    _check_query(name, scheme, query)
    # At last: what is shown is a host then, and not a part of a password.
    for host in hosts:
        check_host(name, host)


def _check_socket(name: str, rest: str) -> None:
    place = rest.rpartition("@")[2]
    if not place.startswith("/") or place == "/":
        raise ConfigurationError(
            f"{name} names a Unix socket, whose path begins with a slash: unix:///run/redis.sock"
        )


def _check_hosts(name: str, url: str, scheme: str, rest: str) -> list[str]:
    several = is_cluster(url) or "sentinel" in scheme
    names: list[str] = []
    for place, each in enumerate(re.split(rf";(?:{re.escape(scheme)}://|sentinel://)?", rest)):
        hosts, _, database = each.partition("/")
        hosts = hosts.rpartition("@")[2]
        if place and (is_cluster(url) or not several):
            hosts = ";"
        found = hosts.split(",") if several else [hosts]
        if not all(_HOST.fullmatch(host) for host in found):
            raise ConfigurationError(
                f"{name} has a host that cannot be one; "
                + (
                    "between hosts stands a comma"
                    if several
                    else "several hosts need sentinel:// or rediscluster://"
                )
                + f", and {_HELP}"
            )
        if not re.fullmatch(r"\d*/?", database):
            raise ConfigurationError(
                f"{name} has no number of a database behind its host; it ends in /0, /1, …, and "
                f"{_HELP}"
            )
        names += [re.sub(r":\d+$", "", host).strip("[]") for host in found]
    return names


def _check_query(name: str, scheme: str, query: str) -> None:
    tls = scheme in ("rediss", "redisclusters") or "sentinel" in scheme
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in _LEFT_OUT:
            continue
        if not re.fullmatch(r"[a-z_]{1,30}", key):
            raise ConfigurationError(
                f"{name} has something behind its ? that is no option; {_HELP}"
            )
        if key not in OPTION_NAMES:
            known = nearest(key, OPTION_NAMES)
            raise ConfigurationError(f"{name} has no option {key!r}{known}")
        if key.startswith("ssl_") and not tls:
            secure = "redisclusters" if scheme == "rediscluster" else "rediss"
            raise ConfigurationError(f"{name} has {key}, which needs {secure}://")
        check_option(f"{name}: {key}", key, value, text=True)
