"""Every setting: its name, type, default and check.

Settings stand in the Celery configuration as ``stargate_…``, so in Django's as
``CELERY_STARGATE_…``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from .errors import ConfigurationError, InvalidMessage, nearest, shown
from .hashing import SCHEMES
from .topic import Topic

__all__ = ["PREFIX", "ProducerOptions", "Settings", "Token"]

#: What all names begin with in the Celery configuration.
PREFIX = "stargate_"

Token = str | Callable[[], str]


@dataclass(frozen=True, slots=True)
class Setting:
    """How the value of one setting is read."""

    read: Callable[[str, Any], Any]
    #: The name of Pulsar's query parameter, where it is one.
    parameter: str | None = None
    #: Whether an entry of ``stargate_topics`` and a task of one's own may set it.
    of_topic: bool = False


def _wrong(name: str, expected: str, found: object) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {expected}, and is {shown(found)}")


def _wrong_type(name: str, expected: str, found: object) -> ConfigurationError:
    # The value itself may be a secret that slipped into the wrong setting.
    return ConfigurationError(f"{name} must be {expected}, not {type(found).__name__}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong_type(name, "text that is not empty", value)
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(name, "True or False", value)
    return value


def _whole(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(name, "a whole number", value)
        if not minimum <= value <= maximum:
            raise _wrong(name, f"from {minimum} to {maximum}", value)
        return value

    return read


def _seconds(minimum: float) -> Callable[[str, Any], float]:
    def read(name: str, value: Any) -> float:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(name, "seconds or a timedelta", value)
        # 31 years: what a script can add to Redis' clock and keep whole.
        if not minimum <= value <= 1e9:
            raise _wrong(name, f"at least {minimum} seconds, and finite", value)
        return float(value)

    return read


def _choice(*known: str) -> Callable[[str, Any], str]:
    def read(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong_type(name, f"one of {', '.join(known)}", value)
        if value not in known:
            raise ConfigurationError(
                f"{name} must be one of {', '.join(known)}, and is "
                f"{shown(value)}{nearest(value, known)}"
            )
        return value

    return read


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise _wrong_type(name, "a list of names", value)
    names = tuple(value)
    # A comma separates them in Pulsar's query.
    if not names or not all(isinstance(item, str) and item and "," not in item for item in names):
        raise _wrong_type(name, "a list of names", value)
    return names


def _service_url(name: str, value: Any) -> str:
    problem = f"{name} must be of the form ws://HOST:PORT or wss://HOST:PORT"
    text = _text(name, value)
    # urlsplit drops line ends and tabs silently.
    if not text.isprintable() or " " in text:
        raise ConfigurationError(f"{problem}, and it holds white space or an unprintable character")
    try:
        parts = urlsplit(text)
        host = (parts.hostname, parts.port)
    except ValueError:
        raise ConfigurationError(f"{problem}, and its host or port cannot be read") from None
    if parts.scheme not in ("ws", "wss") or not host[0]:
        raise ConfigurationError(f"{problem}, and its scheme is {shown(parts.scheme)}")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ConfigurationError(
            f"{name} holds a user, a query or a fragment; use stargate_token for a token"
        )
    return text.rstrip("/")


def _topic(name: str, value: Any) -> str:
    try:
        return str(Topic.parse(value))
    except InvalidMessage as error:
        raise ConfigurationError(f"{name}: {error.problem}") from None


def _token(name: str, value: Any) -> Token:
    if not callable(value) and not (isinstance(value, str) and value):
        raise _wrong_type(name, "text, or a callable that returns text", value)
    return value  # type: ignore[no-any-return]


def _file(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise _wrong_type(name, "a file's path", value)
    path = os.fspath(value)
    if not os.path.isfile(path):
        raise ConfigurationError(f"{name} names no file: {shown(path)}")
    return str(path)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong_type(name, "a mapping of names to topics", value)
    return dict(value)


_DELIVERY = _choice("at_least_once", "effectively_once")

_TABLE: dict[str, Setting] = {
    "url": Setting(_service_url),
    "redis_url": Setting(_text),
    "topic": Setting(_text),
    "topics": Setting(_mapping),
    "delivery_timeout": Setting(_seconds(0.001), of_topic=True),
    "produce_timeout": Setting(_seconds(0.001)),
    "max_pending": Setting(_whole(1, 100_000), of_topic=True),
    "max_pending_bytes": Setting(_whole(1), of_topic=True),
    "max_backlog": Setting(_whole(0), of_topic=True),
    "lease": Setting(_seconds(0.5)),
    "drain_timeout": Setting(_seconds(0)),
    "idle_timeout": Setting(_seconds(1)),
    "receipt_timeout": Setting(_seconds(0.1)),
    "open_timeout": Setting(_seconds(1)),
    "ping_interval": Setting(_seconds(0.1)),
    "ping_timeout": Setting(_seconds(0.1)),
    "delivery": Setting(_DELIVERY, of_topic=True),
    "lanes": Setting(_whole(1, 1024), of_topic=True),
    "partitions": Setting(_whole(1, 1024), of_topic=True),
    "max_frame_size": Setting(_whole(1024), of_topic=True),
    "batching_with_keys": Setting(_flag, of_topic=True),
    "token": Setting(_token),
    "tls_ca": Setting(_file),
    "tls_certificate": Setting(_file),
    "tls_key": Setting(_file),
    "tls_server_name": Setting(_text),
    "via": Setting(_choice("lane", "broker")),
    "worker": Setting(_flag),
    "prefix": Setting(_text),
    "producer_name": Setting(_text, "producerName", True),
    "initial_sequence_id": Setting(_whole(-1, 2**62), "initialSequenceId", True),
    "hashing_scheme": Setting(_choice(*SCHEMES), "hashingScheme", True),
    "send_timeout": Setting(_seconds(0), "sendTimeoutMillis", True),
    "batching_enabled": Setting(_flag, "batchingEnabled", True),
    "batching_max_messages": Setting(_whole(1), "batchingMaxMessages", True),
    "batching_max_publish_delay": Setting(_seconds(0.001), "batchingMaxPublishDelay", True),
    "max_pending_messages": Setting(_whole(1), "maxPendingMessages", True),
    "message_routing_mode": Setting(
        _choice("SinglePartition", "RoundRobinPartition"), "messageRoutingMode", True
    ),
    "compression_type": Setting(
        _choice("NONE", "LZ4", "ZLIB", "ZSTD", "SNAPPY"), "compressionType", True
    ),
    "encryption_keys": Setting(_names, "encryptionKeys", True),
}

#: Pulsar reads these only where ``batchingEnabled=true``.
_NEED_BATCHING = ("batching_max_messages", "batching_max_publish_delay", "max_pending_messages")
#: What chooses a partition in Pulsar; with ``partitions`` the lanes have chosen it.
_ROUTING = ("hashing_scheme", "message_routing_mode")
#: What the lane itself sets, where Pulsar is to know its numbers again.
_NUMBERED = ("producer_name", "initial_sequence_id", "send_timeout")
#: Pulsar wants these in milliseconds.
_MILLISECONDS = ("send_timeout", "batching_max_publish_delay")


def _read(name: str, value: Any, shown: str) -> Any:
    return _TABLE[name].read(shown, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """What may differ from topic to topic. Durations are seconds, sizes bytes."""

    delivery_timeout: float = 86_400.0
    max_pending: int = 1000
    max_pending_bytes: int = 32 * 1024 * 1024
    max_backlog: int = 0
    delivery: Literal["at_least_once", "effectively_once"] = "at_least_once"
    lanes: int = 1
    #: How many partitions the topic has, where each is to have a lane of its own.
    partitions: int | None = None
    max_frame_size: int = 1_048_576
    batching_with_keys: bool = False
    producer_name: str | None = None
    initial_sequence_id: int | None = None
    hashing_scheme: str | None = None
    send_timeout: float | None = None
    batching_enabled: bool | None = None
    batching_max_messages: int | None = None
    batching_max_publish_delay: float | None = None
    max_pending_messages: int | None = None
    message_routing_mode: str | None = None
    compression_type: str | None = None
    encryption_keys: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in _NEED_BATCHING:
            if getattr(self, name) is not None and not self.batching_enabled:
                raise ConfigurationError(
                    f"{PREFIX}{name} counts only with {PREFIX}batching_enabled=True"
                )
        if self.delivery == "effectively_once" and self.batching_enabled:
            raise ConfigurationError(
                f"{PREFIX}delivery='effectively_once' cannot go with {PREFIX}batching_enabled: "
                "a replayed batch that spans stored and new messages is dropped whole"
            )
        if self.delivery == "effectively_once":
            for name in _NUMBERED:
                if getattr(self, name) is not None:
                    raise ConfigurationError(
                        f"{PREFIX}{name} cannot go with {PREFIX}delivery='effectively_once', which "
                        "sets it by itself; leave it out"
                    )
        elif self.partitions is not None:
            raise ConfigurationError(
                f"{PREFIX}partitions counts only with {PREFIX}delivery='effectively_once'; "
                "otherwise Pulsar chooses the partitions"
            )
        if self.partitions is not None and self.lanes not in (1, self.partitions):
            raise ConfigurationError(
                f"{PREFIX}partitions={self.partitions} has one lane for each partition; leave "
                f"{PREFIX}lanes={self.lanes} out"
            )
        if self.hashing_scheme == "BoostHash" and self.partitions is None:
            raise ConfigurationError(
                f"{PREFIX}hashing_scheme='BoostHash' is unknown to Pulsar's WebSocket service; it "
                f"needs {PREFIX}partitions, with which the lanes choose the partition"
            )
        if self.producer_name is not None and self.lanes > 1:
            raise ConfigurationError(
                f"{PREFIX}producer_name is one name, and {PREFIX}lanes={self.lanes} producers "
                "cannot share it; leave one of them out"
            )

    @property
    def lane_count(self) -> int:
        """How many lanes the topic has."""
        return self.partitions or self.lanes

    def query(self) -> dict[str, str]:
        """Return Pulsar's query parameters for the producer's URL, only those that are set."""
        query = {}
        for name, setting in _TABLE.items():
            if setting.parameter is None:
                continue
            if self.partitions is not None and name in _ROUTING:
                continue
            value = getattr(self, name)
            match value:
                case None:
                    continue
                case bool():
                    text = "true" if value else "false"
                case tuple():
                    text = ",".join(value)
                case _ if name in _MILLISECONDS:
                    text = str(round(value * 1000))
                case _:
                    text = str(value)
            query[setting.parameter] = text
        return query

    @property
    def max_in_flight(self) -> int:
        """How many messages may be in flight; beyond its own queue Pulsar answers with errors."""
        return min(self.max_pending, self.max_pending_messages or self.max_pending)

    @staticmethod
    def names() -> frozenset[str]:
        """The names of all options."""
        return _OPTION_NAMES

    def differing(self, other: ProducerOptions) -> dict[str, Any]:
        """Return the options whose values are not those of the other."""
        return {
            name: getattr(self, name)
            for name in sorted(_OPTION_NAMES)
            if getattr(self, name) != getattr(other, name)
        }

    def changed(self, options: Mapping[str, Any], where: str) -> ProducerOptions:
        """Return these options with some replaced, each checked.

        Raises:
            ConfigurationError: an option does not exist, may not differ by topic, or has a wrong
                type; the text begins with ``where``.
        """
        known = [name for name, setting in _TABLE.items() if setting.of_topic]
        read = {}
        for name, value in options.items():
            if name not in known:
                raise ConfigurationError(
                    f"{where}: there is no option {shown(name)}"
                    f"{nearest(name, known) if isinstance(name, str) else ''}"
                )
            read[name] = _read(name, value, f"{where}: {name}")
        merged = {each.name: getattr(self, each.name) for each in fields(self)}
        return ProducerOptions(**{**merged, **read})


_OPTION_NAMES = frozenset(each.name for each in fields(ProducerOptions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one app, checked. Durations are seconds, sizes bytes."""

    url: str | None = None
    #: Not shown: it may hold a password.
    redis_url: str | None = field(default=None, repr=False)
    #: The default one: its full name, or its name in ``topics``.
    topic: str | None = None
    #: Name → topic's full name and its producer options.
    topics: Mapping[str, tuple[str, ProducerOptions]] = field(default_factory=dict)
    options: ProducerOptions = field(default_factory=ProducerOptions)
    produce_timeout: float = 30.0
    lease: float = 10.0
    drain_timeout: float = 10.0
    idle_timeout: float = 300.0
    receipt_timeout: float = 60.0
    open_timeout: float = 45.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    token: Token | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    via: Literal["lane", "broker"] = "lane"
    worker: bool = True
    prefix: str = "stargate"

    @classmethod
    def read(cls, conf: Mapping[str, Any], namespace: str | None = None) -> Settings:
        """Read the ``stargate_…`` settings of a Celery configuration.

        Arguments:
            conf: the configuration, ``app.conf`` or any mapping.
            namespace: what stands before each name, such as ``CELERY``.

        Raises:
            ConfigurationError: a setting does not exist or has a wrong type. It names the
                setting, what was found, and the nearest right name.
        """
        given = {}
        lead = f"{namespace.lower()}_{PREFIX}" if namespace else PREFIX
        for key in list(conf):
            name = str(key).lower()
            if name.startswith(lead):
                name = name[len(lead) :]
            elif str(key).startswith(PREFIX):
                # Set on app.conf. In Django's settings STARGATE_… is not Celery's, and not ours.
                name = name[len(PREFIX) :]
            else:
                continue
            if name not in _TABLE:
                known = [PREFIX + each for each in _TABLE]
                raise ConfigurationError(
                    f"there is no setting {PREFIX}{name}{nearest(PREFIX + name, known)}"
                )
            value = conf[key]
            if value is not None:
                given[name] = _read(name, value, PREFIX + name)
        own = {name: value for name, value in given.items() if name not in _OPTION_NAMES}
        options = ProducerOptions(**{k: v for k, v in given.items() if k in _OPTION_NAMES})
        own["topics"] = _topics(own.get("topics", {}), options)
        if "topic" in own and own["topic"] not in own["topics"]:
            own["topic"] = _topic(f"{PREFIX}topic", own["topic"])
        if (own.get("tls_key") is None) != (own.get("tls_certificate") is None):
            raise ConfigurationError(
                f"{PREFIX}tls_certificate and {PREFIX}tls_key go together; one is missing"
            )
        if "{" in own.get("prefix", "") or "}" in own.get("prefix", ""):
            raise ConfigurationError(f"{PREFIX}prefix must hold no brace; Redis Cluster reads them")
        return cls(options=options, **own)

    def require_url(self) -> str:
        """Return Pulsar's service URL.

        Raises:
            ConfigurationError: there is none.
        """
        if self.url is None:
            raise ConfigurationError(
                f"{PREFIX}url is not set; give Pulsar's service URL, such as ws://localhost:8080"
            )
        return self.url

    def resolve(self, topic: str | None) -> tuple[Topic, ProducerOptions]:
        """Return a topic and its options, by its full name or its name in the settings.

        Raises:
            InvalidMessage: the topic is malformed.
            ConfigurationError: no topic is given, neither here nor in the settings.
        """
        if topic is None:
            topic = self.topic
        if topic is None:
            raise ConfigurationError(
                f"no topic: give topic=…, or set {PREFIX}topic to the default one"
            )
        if isinstance(topic, str) and topic in self.topics:
            name, options = self.topics[topic]
            return Topic.parse(name), options
        parsed = Topic.parse(topic)
        for name, options in self.topics.values():
            if name == str(parsed):
                return parsed, options
        return parsed, self.options


def _topics(given: Mapping[Any, Any], options: ProducerOptions) -> dict[str, Any]:
    topics: dict[str, tuple[str, ProducerOptions]] = {}
    by_topic: dict[str, tuple[str, ProducerOptions]] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise ConfigurationError(
                f"the names in {PREFIX}topics must be text, not {type(name).__name__}"
            )
        where = f"{PREFIX}topics[{shown(name)}]"
        own: dict[str, Any] = {"topic": value} if isinstance(value, str) else value
        if not isinstance(own, Mapping) or "topic" not in own:
            raise ConfigurationError(
                f"{where} must be a topic's full name, or a mapping with its 'topic' and options"
            )
        topic = _topic(where, own["topic"])
        rest = {key: item for key, item in own.items() if key != "topic"}
        read = options.changed(rest, where)
        if topic in by_topic and by_topic[topic][1] != read:
            raise ConfigurationError(
                f"{where} and {PREFIX}topics[{shown(by_topic[topic][0])}] are the same topic with "
                "different options; a topic has one producer"
            )
        by_topic[topic] = (name, read)
        topics[name] = (topic, read)
    return topics
