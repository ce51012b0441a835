"""Outcomes: each context gets one receipt or one failure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from celery_stargate.errors import ProduceError, ProduceTimeout

__all__ = ["Failure", "Outcome", "Receipt", "error_of", "failure_status"]


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag="receipt", omit_defaults=True):
    """Pulsar has the message."""

    context: str
    #: The topic's full name; None for a context without a message.
    topic: str | None = None
    #: ``stored``; ``deduplicated``: an earlier send stored it; ``transient``: accepted by a
    #: non-persistent topic, which does not store it.
    status: Literal["stored", "deduplicated", "transient"] = "stored"
    #: Pulsar's message id in base64; None for a context without a message.
    message_id: str | None = None
    ledger_id: int | None = None
    entry_id: int | None = None
    #: The partition; -1 if the topic has none.
    partition: int | None = None
    #: The position in Pulsar's batch; None or -1 if it was not batched.
    batch_index: int | None = None
    #: What the caller of ``Acknowledger.ack`` gave, for a context without a message.
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as callbacks and results get it: a dict of JSON types."""
        fields: dict[str, Any] = msgspec.structs.asdict(self)
        if fields["value"] is None:
            del fields["value"]
        return fields


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure", omit_defaults=True):
    """The message was refused, or its outcome is unknown."""

    context: str
    topic: str | None = None
    #: ``refused``: it is not in the topic; ``unknown``: it may be in the topic.
    status: Literal["refused", "unknown"] = "refused"
    #: A sentence for people: Pulsar's own if there is one.
    reason: str = "no reason was given"
    #: A code for programs: ``deadline``, ``revoked``, ``http-404``, ``send-error:8``, ``failed``.
    code: str = "failed"
    #: For a list: the outcome of each message as a mapping, in order.
    outcomes: list[dict[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the failure as callbacks and errors get it: a dict of JSON types."""
        fields: dict[str, Any] = msgspec.structs.asdict(self)
        if fields["outcomes"] is None:
            del fields["outcomes"]
        return fields


Outcome = Receipt | Failure


def failure_status(number: int, sent: int) -> Literal["refused", "unknown"]:
    """Return the status of a failure of a message (promise P3): ``refused`` only if it is certain.

    Arguments:
        number: of the message, in its lane or call.
        sent: the highest number that may have been sent before: such a message may be stored.
    """
    return "unknown" if number <= sent else "refused"


def error_of(failure: Failure) -> ProduceError:
    """Return the exception for a failure: ``ProduceTimeout`` past a deadline."""
    kind = ProduceTimeout if failure.code == "deadline" else ProduceError
    return kind(failure.to_dict())
