"""Find the Redis that an app's settings name: ours, the result backend's or the broker's.

The last two are read as Celery and kombu read them, with their own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import redis
from celery.app.backends import by_url
from celery.backends.redis import RedisBackend
from kombu.transport import redis as kombu_redis

from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.target import Target, parse_target, target_of_parameters
from celery_stargate.model.host import check_host
from celery_stargate.model.redis_options import is_cluster, read_redis_url

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["OLDEST_FOR_CLUSTER", "find_target", "target_of_backend"]

#: The oldest redis-py whose client of a Cluster does all that is needed.
OLDEST_FOR_CLUSTER = (6, 4)


def find_target(app: Celery, url: str | None, options: Mapping[str, Any]) -> Target:
    """Return the Redis of the lanes: that of the setting, else of the result backend or the broker.

    Arguments:
        app: the Celery app whose result backend and broker are tried.
        url: ``stargate_redis_url``; None if it is not set.
        options: ``stargate_redis_options``, which go over what is found.

    Raises:
        ConfigurationError: none of the three is a Redis, or the one that is cannot be read; or it
            is a Cluster, and redis-py is too old.
    """
    if url is not None:
        read_redis_url("stargate_redis_url", url)
        if is_cluster(url):
            _require_redis_py()
        try:
            return _checked("stargate_redis_url", parse_target(url)).changed(options)
        except ValueError:
            # The error would show the password.
            raise ConfigurationError(
                "stargate_redis_url cannot be read; the port and the database are numbers, and in "
                "a password each of @ : / % # ? is written as % and its code"
            ) from None
    found = target_of_backend(app)
    if found is not None:
        return _checked("result_backend", found).changed(options)
    found = _target_of_broker(app)
    if found is None:
        raise ConfigurationError(
            "no Redis for the lanes: set stargate_redis_url, or use redis:// for the result "
            "backend or the broker"
        )
    return _checked("broker_url", found).changed(options)


def _checked(name: str, found: Target) -> Target:
    """Return a target whose hosts can be looked up.

    Arguments:
        name: of the setting that names it.

    Raises:
        ConfigurationError: one of them cannot.
    """
    hosts = [host for host, _ in (*found.sentinels, *found.nodes)]
    for host in (*hosts, str(found.parameters.get("host", ""))):
        check_host(name, host)
    return found


def _require_redis_py() -> None:
    numbers = tuple(int(part) for part in redis.__version__.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_FOR_CLUSTER:
        oldest = ".".join(map(str, OLDEST_FOR_CLUSTER))
        raise ConfigurationError(
            f"stargate_redis_url names a Redis Cluster, which needs redis-py {oldest} or newer, "
            f"and {redis.__version__} is installed; run: pip install 'redis>={oldest}'"
        )


def target_of_backend(app: Celery) -> Target | None:
    """Return the Redis of the app's result backend; None if it stores elsewhere.

    Raises:
        ConfigurationError: Celery cannot read its URL or options.
    """
    backend = app.conf.result_backend
    if not isinstance(backend, str):
        return None
    try:
        kind, _ = cast("tuple[object, str]", by_url(backend, app.loader))
        if not (isinstance(kind, type) and issubclass(kind, RedisBackend)):
            return None
        parameters = dict(app.backend.connparams)  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001  # whatever Celery raises
        if not backend.startswith(("redis", "sentinel", "socket")):
            return None
        raise ConfigurationError(
            f"Celery cannot read the Redis of result_backend: {type(error).__name__}"
        ) from None
    hosts = parameters.pop("hosts", None)
    found = target_of_parameters(parameters)
    if hosts is None:
        return found
    sentinels = tuple((each["host"], int(each["port"])) for each in hosts)
    return _behind_sentinel(found, sentinels, app.conf.result_backend_transport_options)


def _target_of_broker(app: Celery) -> Target | None:
    """Return the Redis of the app's broker; None if it is none.

    Raises:
        ConfigurationError: kombu cannot read its URL or options.
    """
    broker = app.conf.broker_write_url
    if broker is None:
        return None
    try:
        connection: Any = app.connection_for_write()
        kind = getattr(connection.transport, "Channel", None)
    except Exception:  # noqa: BLE001
        # Its transport is not installed, or unknown: Celery says so where the broker is used.
        return None
    if not (isinstance(kind, type) and issubclass(kind, kombu_redis.Channel)):
        return None
    try:
        parameters = _read_by(kind, connection)
    except Exception as error:  # noqa: BLE001  # whatever kombu raises
        raise ConfigurationError(
            f"kombu cannot read the Redis of broker_url: {type(error).__name__}"
        ) from None
    found = target_of_parameters(parameters)
    if str(broker).startswith("rediss://") and found.transport == "tcp":
        # Kombu leaves TLS out without a word; a password would go over the network as it is.
        raise ConfigurationError(
            "broker_url is rediss://, and kombu would connect without TLS, because broker_use_ssl "
            f"is {type(app.conf.broker_use_ssl).__name__}; set it to a mapping such as "
            '{"ssl_cert_reqs": ssl.CERT_REQUIRED}, or set stargate_redis_url'
        )
    if not issubclass(kind, kombu_redis.SentinelChannel):
        return found
    # As kombu's channel finds them.
    urls = [url for url in connection.alt if url.startswith("sentinel://")]
    sentinels = tuple(host for url in urls for host in parse_target(url).sentinels)
    if not sentinels:
        sentinels = ((parameters["host"], int(parameters["port"])),)
    return _behind_sentinel(found, sentinels, connection.transport_options)


def _read_by(kind: type[Any], connection: Any) -> Mapping[str, Any]:
    """Return the parameters by which a kombu channel connects, without connecting."""

    class Reading(kind):  # type: ignore[misc]
        def __init__(self) -> None:
            """Take the options as kombu's virtual channel does; its subclass connects then."""
            self.connection = connection.transport
            for name in self.from_transport_options:
                if name in connection.transport_options:
                    setattr(self, name, connection.transport_options[name])

        def __del__(self) -> None:
            """Close nothing."""

    # kombu has no public name for it; a test tells if it goes.
    parameters: Mapping[str, Any] = Reading()._connparams()  # noqa: SLF001
    return parameters


def _behind_sentinel(
    found: Target, sentinels: tuple[tuple[str, int], ...], options: Mapping[str, Any]
) -> Target:
    parameters = {k: v for k, v in found.parameters.items() if k not in ("host", "port")}
    return Target(
        found.transport,
        parameters,
        sentinels,
        options.get("master_name"),
        options.get("min_other_sentinels", 0),
        dict(options.get("sentinel_kwargs") or {}),
    )
