"""Classify replies and refused handshakes: success, permanent or transient. No I/O."""

from __future__ import annotations

import re
from enum import Enum

from celery_stargate.pulsar.replies import Reply

__all__ = [
    "PERMANENT_EXCEPTIONS",
    "Verdict",
    "classify_handshake",
    "classify_reply",
    "ends_producer",
]


class Verdict(Enum):
    """The class of a reply or a refused handshake."""

    OK = "ok"  #: the broker has the message
    PERMANENT = "permanent"  #: it fails at once: a retry cannot succeed
    TRANSIENT = "transient"  #: it is sent again until the deadline


#: The exceptions of Pulsar's client that a retry cannot fix, as ``errorMsg`` names them
#: (``PulsarClientException`` in pulsar-client-api 4.0). All others are transient.
PERMANENT_EXCEPTIONS = frozenset(
    {
        "AuthorizationException",
        "CryptoException",
        "IncompatibleSchemaException",
        "InvalidConfigurationException",
        "InvalidMessageException",
        "InvalidTopicNameException",
        "NotAllowedException",
        "NotFoundException",
        "NotSupportedException",
        "TopicDoesNotExistException",
        "TopicTerminatedException",
        "UnsupportedAuthenticationException",
    }
)


#: After these a producer stores nothing more (``ProducerImpl.isValidProducerState``).
_LAST_EXCEPTIONS = frozenset(
    {"AlreadyClosedException", "ProducerFencedException", "TopicTerminatedException"}
)


_PERMANENT_STATUSES = frozenset({400, 401, 403, 404, 414, 431})


#: Permanent reasons in the page of a refused handshake, which has status 500 for them.
_PERMANENT_SENTENCES = (
    # The path of the URL: ``WebSocketProducerServlet`` does not catch what ``TopicName`` raises.
    "java.lang.IllegalArgumentException",
    # A partition above those that the topic has. Pulsar 4 answers 404; this is of 3.0.
    "Illegal topic partition name",
    # The topic has encryption keys, and the WebSocket service has no reader for them.
    "cryptoKeyReaderFactoryClassName",
)


_EXCEPTION_NAME = re.compile(r"(?:PulsarClientException\$|\b)([A-Z]\w*Exception)\b")


_TERMINATED = re.compile(r"topic.{0,300}\bterminated\b", re.IGNORECASE | re.DOTALL)


def classify_reply(reply: Reply) -> Verdict:
    """Classify a reply.

    ``send-error:7`` means bad input. ``send-error:3`` means bad JSON; it has no context, so every
    message in flight is unknown. ``send-error:8`` is any error from the broker, classified by the
    exception that it names.
    """
    if reply.result == "ok":
        return Verdict.OK
    if reply.result == "send-error:7":
        return Verdict.PERMANENT
    if reply.result == "send-error:8" and _names_permanent(reply.error or ""):
        return Verdict.PERMANENT
    return Verdict.TRANSIENT


def ends_producer(reply: Reply) -> bool:
    """Whether an error means that its producer will store no further message."""
    return not _LAST_EXCEPTIONS.isdisjoint(_EXCEPTION_NAME.findall(reply.error or ""))


def classify_handshake(status: int, sentence: str = "") -> Verdict:
    """Classify a refused handshake by its HTTP status and the reason in its page.

    Permanent are 400, 401, 403, 404, 414 (the URL is too long) and 431 (the headers are too large);
    a redirect, because the token must not follow it; and any status whose reason names a permanent
    error: a name that Pulsar does not allow, an incompatible schema, a missing encryption key, a
    terminated topic. Everything else is transient: 409 (the producer's name is still in use), 429,
    500, 503, 504.
    """
    if (
        status in _PERMANENT_STATUSES
        or 300 <= status < 400
        or _names_permanent(sentence)
        or any(text in sentence for text in _PERMANENT_SENTENCES)
    ):
        return Verdict.PERMANENT
    return Verdict.TRANSIENT


def _names_permanent(text: str) -> bool:
    return bool(
        not PERMANENT_EXCEPTIONS.isdisjoint(_EXCEPTION_NAME.findall(text))
        or _TERMINATED.search(text)
    )
