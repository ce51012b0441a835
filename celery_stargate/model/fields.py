"""How the value of one setting is read and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from celery_stargate.errors import ConfigurationError, InvalidMessage, nearest, shown
from celery_stargate.model.hashing import SCHEMES
from celery_stargate.model.topic import Topic

__all__ = ["PREFIX", "Setting", "Token"]


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
    "max_in_flight": Setting(_whole(1, 100_000), of_topic=True),
    "max_in_flight_bytes": Setting(_whole(1), of_topic=True),
    "max_backlog": Setting(_whole(0), of_topic=True),
    "lease": Setting(_seconds(0.5)),
    "drain_timeout": Setting(_seconds(0)),
    "effects_timeout": Setting(_seconds(1)),
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


def _read(name: str, value: Any, shown: str) -> Any:
    return _TABLE[name].read(shown, value)
