"""How the value of each setting is read and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from celery_stargate.errors import ConfigurationError, InvalidMessage, nearest, shown
from celery_stargate.model.dead_letters import (
    ENDINGS,
    KNOWN_ERRORS,
    DeadLetterBounds,
    Policy,
    is_error_pattern,
)
from celery_stargate.model.durations import LONGEST
from celery_stargate.model.hashing import SCHEMES
from celery_stargate.model.host import check_host
from celery_stargate.model.redis_options import read_redis_options, read_redis_url
from celery_stargate.model.topic import Topic

__all__ = [
    "MEMORY",
    "PREFIX",
    "TABLE",
    "TOPIC_OPTIONS",
    "Setting",
    "Token",
    "bearer",
    "read_topic",
    "read_value",
]

#: The prefix of all our names in the Celery configuration.
PREFIX = "stargate_"

#: The service URL for tests: messages stay in the process (``calls/memory.py``).
MEMORY = "memory://"

#: A token, or a function that returns one.
Token = str | Callable[[], str]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

#: Checks a value; the first argument is the setting's name for the error text.
Read = Callable[[str, object], T]


@dataclass(frozen=True, slots=True)
class Setting(Generic[T_co]):
    """One setting: how it is read, and where it may be given."""

    read: Callable[[str, object], T_co]
    #: The name of Pulsar's query parameter, if it is one.
    parameter: str | None = None
    #: Whether an entry of ``stargate_topics`` and ``stargate.task(…)`` may set it.
    of_topic: bool = False


def _wrong(name: str, expected: str, found: object) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {expected}, and is {shown(found)}")


def _wrong_type(name: str, expected: str, found: object) -> ConfigurationError:
    # Do not show the value: a secret may have been put into the wrong setting.
    return ConfigurationError(f"{name} must be {expected}, not {type(found).__name__}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong_type(name, "text that is not empty", value)
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(name, "True or False", value)
    return value


def _whole(minimum: int, maximum: int = 2**31 - 1) -> Read[int]:
    def read(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(name, "a whole number", value)
        if not minimum <= value <= maximum:
            raise _wrong(name, f"from {minimum} to {maximum}", value)
        return value

    return read


def _seconds(minimum: float) -> Read[float]:
    def read(name: str, value: object) -> float:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(name, "seconds or a timedelta", value)
        if not minimum <= value <= LONGEST:
            raise _wrong(name, f"at least {minimum} seconds, and at most {LONGEST:.0f}", value)
        return float(value)

    return read


def _choice(*known: str) -> Read[str]:
    def read(name: str, value: object) -> str:
        if not isinstance(value, str):
            raise _wrong_type(name, f"one of {', '.join(known)}", value)
        if value not in known:
            raise ConfigurationError(
                f"{name} must be one of {', '.join(known)}, and is "
                f"{shown(value)}{nearest(value, known)}"
            )
        return value

    return read


def _names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise _wrong_type(name, "a list of names", value)
    names: list[str] = []
    for item in value:
        # Pulsar's query separates the names by commas.
        if not isinstance(item, str) or not item or "," in item:
            raise _wrong_type(name, "a list of names", value)
        names.append(item)
    if not names:
        raise _wrong_type(name, "a list of names", value)
    return tuple(names)


def _host(name: str, value: object) -> str:
    host = _text(name, value)
    check_host(name, host)
    return host


_SCHEME_HINTS = {
    "http": "; use ws:// with the same host and port",
    "https": "; use wss:// with the same host and port",
    "pulsar": "; that is the binary protocol, and this is for Pulsar's WebSocket service",
    "pulsar+ssl": "; that is the binary protocol, and this is for Pulsar's WebSocket service",
}


def _service_url(name: str, value: object) -> str:
    problem = f"{name} must be of the form ws://HOST:PORT or wss://HOST:PORT"
    text = _text(name, value)
    if text == MEMORY:
        return text
    # urlsplit silently drops line ends and tabs.
    if not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"{problem}, and it contains white space or an unprintable character"
        )
    try:
        parts = urlsplit(text)
        host = (parts.hostname, parts.port)
    except ValueError:
        raise ConfigurationError(f"{problem}, and its host or port cannot be read") from None
    if parts.scheme not in ("ws", "wss") or not host[0]:
        hint = _SCHEME_HINTS.get(parts.scheme, "")
        raise ConfigurationError(f"{problem}, and its scheme is {shown(parts.scheme)}{hint}")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ConfigurationError(
            f"{name} contains a user, a query or a fragment; use stargate_token for a token"
        )
    check_host(name, host[0])
    # A path may stand before this one, if the service is behind a proxy.
    if "/ws/v2" in parts.path or parts.path.rstrip("/").endswith("/ws"):
        raise ConfigurationError(
            f"{name} has the path of a producer or consumer; give the service's URL, such as "
            "ws://HOST:PORT, and the topic by stargate_topic or topic=…"
        )
    return text.rstrip("/")


def read_topic(name: str, value: object) -> str:
    """Return a topic's full name.

    Arguments:
        name: the setting, for the error text.

    Raises:
        ConfigurationError: the topic's name is malformed.
    """
    try:
        return str(Topic.parse(value))
    except InvalidMessage as error:
        raise ConfigurationError(f"{name}: {error.problem}") from None


def bearer(name: str, token: object) -> str:
    """Return a token without ``Bearer``, checked for the header of a handshake.

    Arguments:
        name: where the token is from, for the error text.

    Raises:
        ConfigurationError: it is not text, is empty, or contains white space or characters that a
            header cannot have. The text does not contain the token.
    """
    if not isinstance(token, str) or not token:
        raise _wrong_type(name, "text that is not empty", token)
    found = token.removeprefix("Bearer ")
    if found != found.strip():
        raise ConfigurationError(
            f"{name} begins or ends with white space, as the text of a file often does; use "
            "token.strip()"
        )
    if not found or not found.isascii() or not found.isprintable() or " " in found:
        raise ConfigurationError(
            f"{name} is not a token: it contains white space, or a character that is not "
            "printable ASCII"
        )
    return found


def _token(name: str, value: object) -> Token:
    if callable(value):
        return value
    if not isinstance(value, str) or not value:
        raise _wrong_type(name, "text, or a callable that returns text", value)
    return bearer(name, value)


def _file(name: str, value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise _wrong_type(name, "a file's path", value)
    path = os.fspath(value)
    if not os.path.isfile(path):
        raise ConfigurationError(f"{name}: there is no file {shown(path)}")
    return str(path)


def _mapping(name: str, value: object) -> dict[object, object]:
    if not isinstance(value, Mapping):
        raise _wrong_type(name, "a mapping of names to topics", value)
    return dict(value)


_BOUNDS: Mapping[str, Read[float]] = {
    "max_age": _seconds(1),
    "max_count": _whole(1),
    "max_bytes": _whole(1024, 2**50),
}


def _dead_letters(name: str, value: object) -> DeadLetterBounds | None:
    """Return the bounds of dead letters; None for no dead letters."""
    if isinstance(value, bool):
        return DeadLetterBounds() if value else None
    if not isinstance(value, Mapping):
        raise _wrong_type(name, f"True, False or a mapping of {', '.join(_BOUNDS)}", value)
    read: dict[str, float] = {}
    for key, item in value.items():
        if key not in _BOUNDS:
            raise ConfigurationError(
                f"{name} has no bound {shown(key)}{nearest(str(key), _BOUNDS)}; its bounds are "
                f"{', '.join(_BOUNDS)}"
            )
        read[key] = _BOUNDS[key](f"{name}[{key!r}]", item)
    return DeadLetterBounds(**read)  # type: ignore[arg-type]  # each is checked


def _policies(name: str, value: object) -> dict[str, Policy]:
    """Return what each error means for its message."""
    if not isinstance(value, Mapping):
        raise _wrong_type(name, "a mapping of errors to policies", value)
    read: dict[str, Policy] = {}
    for error, given in value.items():
        where = f"{name}[{shown(error)}]"
        if error not in KNOWN_ERRORS and not is_error_pattern(str(error)):
            raise ConfigurationError(
                f"{name} names the error {shown(error)}, which is neither a class nor a code of "
                f"errors{nearest(str(error), KNOWN_ERRORS)}"
            )
        policy = Policy(_choice(*(each.value for each in Policy))(where, given))
        if error in ENDINGS and policy in (Policy.RETRY, Policy.PAUSE):
            raise ConfigurationError(
                f"{where} is {policy.value!r}, and such a message is not refused by Pulsar; use "
                f"{Policy.DEAD.value!r} or {Policy.DROP.value!r}"
            )
        read[error] = policy
    return read


_DELIVERY = _choice("at_least_once", "effectively_once")

#: All settings, by their names without the prefix.
TABLE: Mapping[str, Setting[object]] = {
    "url": Setting(_service_url),
    "redis_url": Setting(read_redis_url),
    "redis_options": Setting(read_redis_options),
    "redis_max_connections": Setting(_whole(1, 100_000)),
    "redis_buckets": Setting(_whole(1, 256)),
    "topic": Setting(_text),
    "topics": Setting(_mapping),
    "allow_unlisted_topics": Setting(_flag),
    "delivery_timeout": Setting(_seconds(0.001), of_topic=True),
    "produce_timeout": Setting(_seconds(0.001)),
    "max_in_flight": Setting(_whole(1, 100_000), of_topic=True),
    "max_in_flight_bytes": Setting(_whole(1), of_topic=True),
    "max_backlog": Setting(_whole(0), of_topic=True),
    "once_window": Setting(_seconds(0), of_topic=True),
    "lease": Setting(_seconds(0.5)),
    "drain_timeout": Setting(_seconds(0)),
    "effects_timeout": Setting(_seconds(1)),
    "callbacks": Setting(_choice("published", "until_started")),
    "callback_start_timeout": Setting(_seconds(0.5)),
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
    "allow_token_without_tls": Setting(_flag),
    "tls_ca": Setting(_file),
    "tls_certificate": Setting(_file),
    "tls_key": Setting(_file),
    "tls_server_name": Setting(_host),
    "via": Setting(_choice("lane", "broker")),
    "worker": Setting(_flag),
    "own_lanes": Setting(_choice("auto", "worker")),
    "metrics_port": Setting(_whole(0, 65_535)),
    "metrics_host": Setting(_text),
    "prefix": Setting(_text),
    "dead_letters": Setting(_dead_letters),
    "dead_letter_policy": Setting(_policies),
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

#: The names of the settings that a topic or a task may have for itself.
TOPIC_OPTIONS: tuple[str, ...] = tuple(name for name, each in TABLE.items() if each.of_topic)


def read_value(name: str, value: object, shown_name: str) -> object:
    """Return the checked value of a setting.

    Arguments:
        name: a key of :data:`TABLE`.
        shown_name: the setting's name in the error text.

    Raises:
        ConfigurationError: the value has a wrong type or is out of range.
    """
    return TABLE[name].read(shown_name, value)
