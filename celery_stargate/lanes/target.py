"""Which Redis holds the lanes: one server, the master that sentinels name, or a Cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from kombu.utils.imports import symbol_by_name
from redis.connection import parse_url, to_bool

from celery_stargate.errors import ConfigurationError
from celery_stargate.model.redis_options import SENTINEL_OPTIONS, is_cluster, tls_version

__all__ = ["Target", "parse_target", "target_of_parameters"]

#: Where nothing else is said.
_DEFAULTS = {"host": "localhost", "port": 6379, "db": 0}
#: What makes two targets the same Redis with the same rights.
_IDENTITY = ("host", "port", "path", "db", "username", "password", "credential_provider")
#: What is ours to choose, or would change what redis-py returns.
_NOT_TAKEN = frozenset(
    {
        "connection_class",
        "connection_pool",
        "decode_responses",
        "driver_info",
        "encoding",
        "encoding_errors",
        "hosts",
        "lib_name",
        "lib_version",
        "max_connections",
        "retry",
        "retry_on_error",
        "retry_on_timeout",
        "ssl",
        "timeout",
        "virtual_host",
    }
)

#: How Celery writes certificate requirements in a URL, and how redis-py does.
_CERT_REQS = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}

Transport = Literal["tcp", "tls", "unix"]


@dataclass(frozen=True)
class Target:
    """A Redis, as redis-py's connections take it."""

    transport: Transport
    #: The keyword arguments of its connections. Not shown: they may hold a password.
    parameters: Mapping[str, Any] = field(repr=False)
    #: Host and port of each sentinel; none for a server that is reached directly.
    sentinels: tuple[tuple[str, int], ...] = ()
    #: The name by which the sentinels know the master.
    master_name: str | None = None
    min_other_sentinels: int = 0
    #: The keyword arguments of the connections to the sentinels.
    sentinel_parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: Host and port of nodes of a Redis Cluster, by which the others are found.
    nodes: tuple[tuple[str, int], ...] = ()

    @property
    def address(self) -> str:
        """Where it is, as a URL without user and password."""
        values = {**_DEFAULTS, **self.parameters}
        if self.transport == "unix":
            return f"unix://{values['path']}?db={values['db']}"
        if self.sentinels:
            hosts = ",".join(f"{host}:{port}" for host, port in self.sentinels)
            return f"sentinel://{hosts}/{values['db']}?master_name={self.master_name}"
        if self.nodes:
            hosts = ",".join(f"{host}:{port}" for host, port in self.nodes)
            return f"rediscluster{'s' if self.transport == 'tls' else ''}://{hosts}"
        scheme = "rediss" if self.transport == "tls" else "redis"
        return f"{scheme}://{values['host']}:{values['port']}/{values['db']}"

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two targets have in common that are the same database, by the same user."""
        values = {**_DEFAULTS, **self.parameters}
        several = self.sentinels or self.nodes
        names = [name for name in _IDENTITY if not (several and name in ("host", "port"))]
        if self.transport == "unix":
            names = [name for name in names if name not in ("host", "port")]
        found = tuple(_plain(values.get(name)) for name in names)
        servers = frozenset(self.sentinels), frozenset(self.nodes)
        return (self.transport, *servers, self.master_name, *found)

    def changed(self, options: Mapping[str, Any]) -> Target:
        """Return this with ``stargate_redis_options`` over it.

        Raises:
            ConfigurationError: it is behind Sentinel, and nothing names the master.
        """
        own = _certificates(
            {key: value for key, value in options.items() if key not in SENTINEL_OPTIONS}
        )
        transport = self.transport
        if own.pop("ssl", False) or (
            transport == "tcp" and any(key.startswith("ssl_") for key in own)
        ):
            transport = "tls"
        if "credential_provider" in own:
            own["credential_provider"] = _provider(own["credential_provider"])
        made = Target(
            transport,
            {**self.parameters, **own},
            self.sentinels,
            options.get("master_name", self.master_name),
            options.get("min_other_sentinels", self.min_other_sentinels),
            {**self.sentinel_parameters, **_certificates(options.get("sentinel_kwargs", {}))},
            self.nodes,
        )
        if made.sentinels and not made.master_name:
            raise ConfigurationError(
                "the Redis of the lanes is behind Sentinel, and nothing names the master: set "
                'stargate_redis_options = {"master_name": …}, or master_name in the transport '
                "options of the result backend or the broker"
            )
        return made


def parse_target(url: str) -> Target:
    """Read a URL of one server: ``redis://``, ``rediss://``, ``unix://``, ``redis+socket://``.

    Also ``sentinel://[user:password@]host:port/db;sentinel://host:port``, or with commas between
    the hosts, and ``redis+sentinel://`` and ``redis-sentinel://``: the user is that of the first
    host, the database and the options are the first that are given, and ``?master_name=`` may name
    the master.

    Or ``rediscluster://[user:password@]host:port,host:port`` and ``redisclusters://`` with TLS:
    the nodes of a Redis Cluster.

    Raises:
        ValueError: it cannot be read.
    """
    scheme = url.partition("://")[0]
    if is_cluster(url):
        return _cluster_target(url)
    if scheme in ("sentinel", "redis+sentinel", "redis-sentinel"):
        return _sentinel_target(url)
    if scheme in ("redis+socket", "socket"):
        url = "unix://" + url.partition("://")[2]
    query = dict(parse_qsl(urlsplit(url).query))
    if "virtual_host" in query:
        query["db"] = query.pop("virtual_host").strip("/") or "0"
    query = _certificates(query)
    provider = query.pop("credential_provider", None)
    tls = to_bool(query.pop("ssl", ""))  # type: ignore[no-untyped-call]
    found = dict(parse_url(f"{url.partition('?')[0]}?{urlencode(query)}"))  # type: ignore[no-untyped-call]
    if tls:
        found["ssl"] = True
    if provider is not None:
        found["credential_provider"] = provider
    return target_of_parameters(found)


def target_of_parameters(parameters: Mapping[str, Any]) -> Target:
    """Return the target of the keyword arguments of a redis-py connection.

    Arguments:
        parameters: as Celery's result backend, kombu's transport or redis-py's URL parser make
            them. ``connection_class`` says how the server is reached.
    """
    kind = parameters.get("connection_class", redis.Connection)
    transport: Transport = "tcp"
    if issubclass(kind, redis.UnixDomainSocketConnection):
        transport = "unix"
    elif issubclass(kind, redis.SSLConnection) or parameters.get("ssl"):
        transport = "tls"
    taken = {
        name: value
        for name, value in parameters.items()
        if value is not None and name not in _NOT_TAKEN
    }
    if transport == "unix":
        for name in ("host", "port", "socket_connect_timeout", "socket_keepalive"):
            taken.pop(name, None)
    if "credential_provider" in taken:
        taken["credential_provider"] = _provider(taken["credential_provider"])
        taken.pop("username", None)
        taken.pop("password", None)
    return Target(transport, taken)


def _sentinel_target(url: str) -> Target:
    """Read a URL that names sentinels."""
    lead, _, rest = url.partition("://")
    # Semicolons between whole URLs, as Celery has it, or commas between hosts.
    whole = re.split(rf";(?:{re.escape(lead)}://|sentinel://)?", rest)
    hosts: list[tuple[str, int]] = []
    databases, queries = [], []
    for each in whole:
        place, _, query = each.partition("?")
        netloc, _, database = place.partition("/")
        databases.append(database)
        queries.append(query)
        for name in netloc.rpartition("@")[2].split(","):
            parts = urlsplit(f"redis://{name}")
            if not parts.hostname:
                raise ValueError("a sentinel without a host")
            hosts.append((parts.hostname, parts.port or 26379))
    user, at, _ = re.split("[/?]", whole[0], maxsplit=1)[0].rpartition("@")
    # People put the database and the options behind the first or the last.
    database, query = (next(filter(None, found), "") for found in (databases, queries))
    found = parse_target(f"redis://{user}{at}sentinel/{database}?{query}")
    parameters = dict(found.parameters)
    parameters.pop("host", None)
    parameters.pop("port", None)
    master = parameters.pop("master_name", None) or parameters.pop("service_name", None)
    tls = found.transport == "tls" or any(name.startswith("ssl_") for name in parameters)
    return Target("tls" if tls else "tcp", parameters, tuple(hosts), master)


def _cluster_target(url: str) -> Target:
    """Read a URL that names nodes of a Cluster."""
    scheme, _, rest = url.partition("://")
    names, question, query = rest.partition("?")
    user, at, hosts = names.partition("/")[0].rpartition("@")
    nodes: list[tuple[str, int]] = []
    for name in hosts.split(","):
        parts = urlsplit(f"redis://{name}")
        if not parts.hostname:
            raise ValueError("a node without a host")
        nodes.append((parts.hostname, parts.port or 6379))
    tls = "s" if scheme == "redisclusters" else ""
    found = parse_target(f"redis{tls}://{user}{at}node{question}{query}")
    parameters = {
        name: value
        for name, value in found.parameters.items()
        if name not in ("host", "port", "db")
    }
    return Target(found.transport, parameters, nodes=tuple(nodes))


def _certificates(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of TLS as redis-py writes them."""
    found = dict(options)
    if "ssl_min_version" in found:
        found["ssl_min_version"] = tls_version(found["ssl_min_version"])
    given = found.get("ssl_cert_reqs")
    if isinstance(given, str):
        found["ssl_cert_reqs"] = _CERT_REQS.get(given.upper(), given.lower())
    return found


def _provider(given: Any) -> Any:
    """Return a credential provider; a text is the path of its class.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        made = symbol_by_name(given)() if isinstance(given, str) else given
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"credential_provider cannot be made: {error}") from error
    if not isinstance(made, redis.CredentialProvider):
        raise ConfigurationError(
            f"credential_provider must be a redis.CredentialProvider, not {type(made).__name__}"
        )
    return made


def _plain(value: Any) -> Any:
    # Each parsing of one URL makes a provider of its own.
    return type(value) if isinstance(value, redis.CredentialProvider) else value
