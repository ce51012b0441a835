"""Which failed messages are kept as dead letters, how long, and what each error means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from celery_stargate.model.outcome import Failure

__all__ = [
    "ENDINGS",
    "KNOWN_ERRORS",
    "DeadLetterBounds",
    "DeadLetterRules",
    "Policy",
    "error_class",
    "is_error_pattern",
]


class Policy(StrEnum):
    """What an error means for its message."""

    RETRY = "retry"  #: it is sent again until its deadline
    DEAD = "dead"  #: it fails, and is kept as a dead letter
    PAUSE = "pause"  #: its lane stops before it, so that the order is kept
    DROP = "drop"  #: it fails, and is not kept


#: Errors of Pulsar's client that replies and handshakes name, and the classes for all others.
_CLASSES = frozenset(
    {
        *("AuthenticationException", "AuthorizationException", "CryptoException"),
        *("IncompatibleSchemaException", "InvalidConfigurationException"),
        *("InvalidMessageException", "InvalidTopicNameException", "NotAllowedException"),
        *("NotFoundException", "NotSupportedException", "TopicDoesNotExistException"),
        *("TopicTerminatedException", "UnsupportedAuthenticationException"),
        *("ProduceError", "ProduceTimeout"),
    }
)
#: The codes of failures that begin with the message, and not with an answer of Pulsar: there is
#: nothing to send again, and nothing that a pause would wait for.
ENDINGS = frozenset({"deadline", "revoked", "expired", "cancelled", "released", "ProduceTimeout"})
#: All errors that a policy may name, beside those of :func:`is_error_pattern`.
KNOWN_ERRORS = (
    _CLASSES
    | ENDINGS
    | frozenset(
        {
            *("breaks-connection", "dropped", "failed", "frame-too-large", "no-deduplication"),
            *("no-partition", "partitioned", "reply-too-large", "unreadable"),
        }
    )
)
#: The classes that are used where no better one is known.
_GENERAL = {"ProduceError", "ProduceTimeout"}

_EXCEPTION = re.compile(r"(?:PulsarClientException\$|\b)([A-Z]\w*(?:Exception|Error))\b")
_PATTERN = re.compile(r"http-[1-5][0-9]{2}|send-error:[0-9]{1,3}")


def is_error_pattern(name: str) -> bool:
    """Whether a name is a code with a number in it: ``http-404``, ``send-error:8``."""
    return _PATTERN.fullmatch(name) is not None


def error_class(failure: Failure) -> str:
    """Return the class of an error: Pulsar's exception if its reason names one.

    Otherwise it is ``ProduceTimeout`` past a deadline, and else ``ProduceError``.
    """
    if failure.code == "deadline":
        return "ProduceTimeout"
    if _EXCEPTION.fullmatch(failure.code):
        return failure.code
    found = _EXCEPTION.search(failure.reason)
    return found[1] if found else "ProduceError"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterBounds:
    """How long, and how many, dead letters are kept."""

    #: Seconds.
    max_age: float = 7 * 86_400.0
    #: Of one topic; each of its lanes has an equal share.
    max_count: int = 10_000
    #: Of payloads and callbacks of one topic.
    max_bytes: int = 256 * 1024 * 1024

    def of_lane(self, lanes: int) -> str:
        """Return the bounds of one lane as the scripts get them (``dead_letters.lua``).

        Arguments:
            lanes: how many lanes the topic has.
        """
        count, size = -(-self.max_count // lanes), -(-self.max_bytes // lanes)
        return f"{count} {size} {round(self.max_age * 1000)}"


#: Who revokes a task wants it gone.
_USUAL: Mapping[str, Policy] = {"revoked": Policy.DROP, "expired": Policy.DROP}


def _one(topic: str) -> int:  # noqa: ARG001  # the type of lane_count
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRules:
    """What becomes of messages that fail."""

    #: None: no message is kept.
    bounds: DeadLetterBounds | None = field(default_factory=DeadLetterBounds)
    #: Error class or code → policy; for all others it is ``dead``.
    policies: Mapping[str, Policy] = field(default_factory=dict)
    #: How many lanes a topic has, by its full name.
    lane_count: Callable[[str], int] = _one

    def policy_of(self, failure: Failure) -> Policy:
        """Return what a failure means for its message.

        The name of an exception is looked up first, then the code, ``ProduceTimeout`` for a
        deadline, and ``ProduceError``, which all failures are.
        """
        kind = error_class(failure)
        names = (failure.code, kind) if kind in _GENERAL else (kind, failure.code)
        for name in (*names, "ProduceError"):
            if name in self.policies:
                return self.policies[name]
            if name in _USUAL:
                return _USUAL[name]
        return Policy.DEAD

    def cause_of(self, failure: Failure) -> str:
        """Return the cause under which a failed message is kept: class and code of its error.

        It is empty if the message is not kept.
        """
        if self.bounds is None or self.policy_of(failure) is Policy.DROP:
            return ""
        code = " ".join(failure.code.split())[:100] or "failed"
        return f"{error_class(failure)} {code}"

    def argument(self, topic: str) -> str:
        """Return what the scripts of a topic's lanes get; empty if nothing is kept.

        Arguments:
            topic: its full name.
        """
        return "" if self.bounds is None else self.bounds.of_lane(self.lane_count(topic))
