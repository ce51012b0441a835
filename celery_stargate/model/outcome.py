"""Outcomes: the receipt or the failure that each context gets, once."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from celery_stargate.errors import ProduceError, ProduceTimeout

__all__ = ["Failure", "Outcome", "Receipt", "error_of", "failure_status"]


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag="receipt", omit_defaults=True):
    """Pulsar says that it has the message."""

    context: str
    #: The full name of the topic; none for a context without a message.
    topic: str | None = None
    #: ``stored``; ``deduplicated``: an earlier send had stored it; ``transient``: a
    #: non-persistent topic took it, durably stored it is not.
    status: Literal["stored", "deduplicated", "transient"] = "stored"
    #: Pulsar's id, base64 as Pulsar writes it; none for a context without a message.
    message_id: str | None = None
    ledger_id: int | None = None
    entry_id: int | None = None
    #: The partition; -1 where the topic has none.
    partition: int | None = None
    #: The place in Pulsar's batch; none or -1 where it was not batched.
    batch_index: int | None = None
    #: Whatever the acknowledging side adds, for a context without a message.
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as callbacks and results get it: all its fields, JSON types only."""
        fields: dict[str, Any] = msgspec.structs.asdict(self)
        if fields["value"] is None:
            del fields["value"]
        return fields


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure", omit_defaults=True):
    """The message was refused, or nobody can know."""

    context: str
    topic: str | None = None
    #: ``refused``: it is not in the topic; ``unknown``: it may be there.
    status: Literal["refused", "unknown"] = "refused"
    #: A sentence for people; Pulsar's own where there is one.
    reason: str = "no reason was given"
    #: A word for programs: ``deadline``, ``revoked``, ``http-404``, ``send-error:8``, ``failed``.
    code: str = "failed"
    #: For a list: the outcome of each message, in order, as mappings.
    outcomes: list[dict[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the failure as callbacks and errors get it, JSON types only."""
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
    """Return the error that a failure raises."""
    kind = ProduceTimeout if failure.code == "deadline" else ProduceError
    return kind(failure.to_dict())
