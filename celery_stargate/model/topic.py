"""Topic names, and the producer URLs made from them.

Source: Pulsar's "WebSocket API" page; ``TopicName`` and ``NamedEntity`` in pulsar-common 4.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote, unquote, urlencode, urlsplit

from celery_stargate.errors import ConfigurationError, InvalidMessage
from celery_stargate.model.host import check_host

__all__ = ["Topic", "producer_url", "split_producer_url"]

_DOMAINS = ("persistent", "non-persistent")

#: What Pulsar allows in the name of a tenant or namespace (``NamedEntity``). A topic's own name may
#: contain any character. If it contains a slash, Pulsar reads the part before it as the namespace
#: of the old form ``TENANT/CLUSTER/NAMESPACE/TOPIC``.
_ENTITY = re.compile(r"[-=:.\w]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's full name: ``persistent://TENANT/NAMESPACE/TOPIC``."""

    domain: str
    tenant: str
    namespace: str
    name: str

    @classmethod
    def parse(cls, text: object) -> Topic:
        """Read a full name or, as Pulsar does, a short one (``orders``, ``shop/eu/orders``).

        Raises:
            InvalidMessage: the name is not text, has an unknown domain or an empty or unprintable
                part, or its tenant or namespace contains a character that Pulsar does not allow.
        """
        if not isinstance(text, str):
            raise InvalidMessage(f"topic must be text, not {type(text).__name__}")
        return _parse(text)

    @property
    def persistent(self) -> bool:
        """Whether Pulsar stores the messages of this topic."""
        return self.domain == "persistent"

    def partition(self, index: int) -> Topic:
        """Return the topic of one partition."""
        return replace(self, name=f"{self.name}-partition-{index}")

    def whole(self) -> tuple[Topic, int]:
        """Return the topic of which this is a partition, and the partition's index."""
        name, _, index = self.name.rpartition("-partition-")
        return replace(self, name=name), int(index)

    @property
    def path(self) -> str:
        """``persistent/TENANT/NAMESPACE/TOPIC``, each part quoted for a URL."""
        # Pulsar does not decode the tenant and the namespace, so ":" and "=" must stay as they are.
        entities = (quote(part, safe=":=") for part in (self.domain, self.tenant, self.namespace))
        return "/".join((*entities, quote(self.name, safe="")))

    def __str__(self) -> str:
        return f"{self.domain}://{self.tenant}/{self.namespace}/{self.name}"


@lru_cache(maxsize=4096)
def _parse(text: str) -> Topic:
    """Read a topic's name; most calls have one of a few."""
    domain, separator, rest = text.partition("://")
    if not separator:
        domain, rest = "persistent", text
        if "/" not in rest:
            rest = f"public/default/{rest}"
    if domain not in _DOMAINS:
        raise InvalidMessage(
            f"topic {text!r} has the domain {domain!r}; it must be one of {', '.join(_DOMAINS)}"
        )
    parts = rest.split("/", 2)
    if len(parts) != 3 or not all(rest.split("/")):
        raise InvalidMessage(
            f"topic {text!r} is not of the form persistent://TENANT/NAMESPACE/TOPIC"
        )
    if not text.isprintable() or any(character.isspace() for character in text):
        raise InvalidMessage(f"topic {text!r} contains white space or an unprintable character")
    if any(part in (".", "..") for part in rest.split("/")):
        raise InvalidMessage(f"topic {text!r} has a part '.' or '..', which URLs drop")
    entities = [("tenant", parts[0]), ("namespace", parts[1])]
    if "/" in parts[2]:
        entities.append(("part", parts[2].partition("/")[0]))
    for what, part in entities:
        if not _ENTITY.fullmatch(part):
            raise InvalidMessage(
                f"topic {text!r} has the {what} {part!r}; Pulsar allows only ASCII letters, "
                "digits and - _ . : = there"
            )
    return Topic(domain, *parts)


def producer_url(url: str, topic: Topic, query: Mapping[str, str]) -> str:
    """Return the URL of the producer's WebSocket under a service URL such as ``ws://host:8080``."""
    base = f"{url.rstrip('/')}/ws/v2/producer/{topic.path}"
    return f"{base}?{urlencode(query, quote_via=quote)}" if query else base


def split_producer_url(url: str) -> tuple[str, Topic, str]:
    """Split a producer's URL into the service URL, its topic and the query text.

    Raises:
        ConfigurationError: the URL is not of the form
            ``ws://HOST:PORT/ws/v2/producer/{persistent|non-persistent}/TENANT/NAMESPACE/TOPIC``.
        InvalidMessage: its topic is malformed.
    """
    problem = (
        "a producer's URL is ws://HOST:PORT/ws/v2/producer/persistent/TENANT/NAMESPACE/TOPIC"
        ", and this is not"
    )
    # urlsplit silently drops line ends and tabs.
    if not isinstance(url, str) or not url.isprintable():
        raise ConfigurationError(f"{problem}: it is not printable text")
    try:
        parts = urlsplit(url)
        prefix, found, rest = parts.path.partition("/ws/v2/producer/")
        pieces = [unquote(piece, errors="strict") for piece in rest.split("/", 3)]
        where = (parts.hostname, parts.port)
    except ValueError as error:
        raise ConfigurationError(f"{problem}: {type(error).__name__} when reading it") from None
    known = parts.scheme in ("ws", "wss") and where[0] and found and not parts.fragment
    if not known or len(pieces) != 4:
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise ConfigurationError(f"{problem}: {shown}")
    check_host("the URL", where[0] or "")
    domain, tenant, namespace, name = pieces
    topic = Topic.parse(f"{domain}://{tenant}/{namespace}/{name}")
    return f"{parts.scheme}://{parts.netloc}{prefix}", topic, parts.query
