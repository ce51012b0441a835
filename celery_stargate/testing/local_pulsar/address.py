"""Reads the path and query of a WebSocket URL as the broker does."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from celery_stargate.testing.local_pulsar.refusal import Refusal, bad_query

_INT_MAX = 2**31 - 1
_ENTITY = re.compile(r"[-=:.\w]*", re.ASCII)


class Address(msgspec.Struct):
    """The kind of endpoint, the full topic name, the subscription (of a consumer), the query."""

    kind: str
    topic: str
    subscription: str
    query: dict[str, str]

    @property
    def namespace(self) -> str:
        """`tenant/namespace`."""
        return "/".join(self.topic.partition("://")[2].split("/")[:2])


def read_address(target: str) -> Address:
    """Read the target of an upgrade request.

    Raises:
        Refusal: 404 for an unknown endpoint, 500 or 400 for a bad topic, as in the broker.
    """
    split = urlsplit(target)
    parts = split.path.split("/")
    if parts[1:3] != ["ws", "v2"] or parts[3:4] not in (["producer"], ["consumer"], ["reader"]):
        raise Refusal(404, "Not Found")
    kind, rest = parts[3], parts[4:]
    subscription = ""
    if kind == "consumer":
        # The others join what is left into the topic's name; here the last is the subscription.
        if len(rest) != 5 or not all(rest):
            raise bad_query("Invalid topic name format")
        subscription = unquote(rest.pop())
    if len(rest) < 4 or not all(rest):
        raise Refusal(500, "java.lang.IllegalArgumentException: Invalid topic name format")
    domain, tenant, namespace, *name = rest
    if domain not in ("persistent", "non-persistent"):
        raise Refusal(500, "java.lang.IllegalArgumentException")
    local = unquote("/".join(name))
    # The broker does not decode the first two. The third is a namespace of the old form, V1.
    for entity in (tenant, namespace, *([local.partition("/")[0]] if "/" in local else ())):
        if not _ENTITY.fullmatch(entity):
            problem = f"Invalid named entity: {entity}"
            raise Refusal(500, f"java.lang.IllegalArgumentException: {problem}")
    return Address(
        kind,
        f"{domain}://{tenant}/{namespace}/{local}",
        subscription,
        dict(parse_qsl(split.query, keep_blank_values=True)),
    )


def number(query: dict[str, str], name: str, default: int) -> int:
    """Return a whole number of the query.

    Raises:
        Refusal: 400, it is not a number.
    """
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.lstrip("+-").isdigit() or len(text) > 19:
        raise bad_query(f'For input string: "{text}"')
    return int(text)


def natural(query: dict[str, str], name: str, default: int, says: str | None = None) -> int:
    """Return a number that must not be negative; the refusal calls it `says`.

    Raises:
        Refusal: 400, it is not such a number.
    """
    value = number(query, name, default)
    if not 0 <= value <= _INT_MAX:
        raise bad_query(f"{says or name} needs to be >= 0")
    return value


def choice(query: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed words, case-sensitive; the first is the default.

    Raises:
        Refusal: 400, it is another word.
    """
    value = query.get(name, allowed[0])
    if value not in allowed:
        raise bad_query(f"Invalid {name} {value}")
    return value


def flag(query: dict[str, str], name: str) -> bool:
    """Return whether the value is `true` in any case; the broker reads all else as false."""
    return query.get(name, "").lower() == "true"
