"""What replies and refused handshakes mean for the messages concerned. No I/O."""

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
    """What a reply or a refused handshake means for the messages concerned."""

    OK = "ok"  #: the broker has it
    PERMANENT = "permanent"  #: told at once: sending again would not help
    TRANSIENT = "transient"  #: sent again until the deadline


#: The exceptions of Pulsar's client that no second send can mend, as ``errorMsg`` names them
#: (``PulsarClientException`` in pulsar-client-api 4.0). Any other text is transient.
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


#: Those after which a producer stores nothing more (``ProducerImpl.isValidProducerState``).
_LAST_EXCEPTIONS = frozenset(
    {"AlreadyClosedException", "ProducerFencedException", "TopicTerminatedException"}
)


_EXCEPTION_NAME = re.compile(r"(?:PulsarClientException\$|\b)([A-Z]\w*Exception)\b")


_TERMINATED = re.compile(r"topic.{0,300}\bterminated\b", re.IGNORECASE | re.DOTALL)


def classify_reply(reply: Reply) -> Verdict:
    """Class a reply.

    ``send-error:7`` is our bad input; 3 is bad JSON, carries no context, and leaves everything in
    flight unknown; 8 is everything from the broker, and classed by the exception it names.
    """
    if reply.result == "ok":
        return Verdict.OK
    if reply.result == "send-error:7":
        return Verdict.PERMANENT
    text = reply.error or ""
    if reply.result == "send-error:8" and (
        any(name in PERMANENT_EXCEPTIONS for name in _EXCEPTION_NAME.findall(text))
        or _TERMINATED.search(text)
    ):
        return Verdict.PERMANENT
    return Verdict.TRANSIENT


def ends_producer(reply: Reply) -> bool:
    """Whether an error says that its producer takes nothing more, nothing behind it either."""
    return not _LAST_EXCEPTIONS.isdisjoint(_EXCEPTION_NAME.findall(reply.error or ""))


def classify_handshake(status: int, sentence: str = "") -> Verdict:
    """Class a refused handshake by its HTTP status, and where that is not enough by its sentence.

    400, 401, 403 and 404 are permanent, and so is a 503 for a terminated topic; everything else
    (409 a name still taken, 429, 500, 503, 504) may pass. A redirect is permanent: a token does
    not follow it.
    """
    if status in (400, 401, 403, 404) or 300 <= status < 400 or _TERMINATED.search(sentence):
        return Verdict.PERMANENT
    return Verdict.TRANSIENT
