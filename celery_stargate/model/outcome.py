"""Outcomes: each context gets one receipt or one failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from celery_stargate.errors import ProduceError, ProduceTimeout

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Failure", "Outcome", "Receipt", "error_of", "failure_status"]


class _Fields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What receipts and failures share: they can be used and returned like mappings.

    ``dict(receipt)`` and ``receipt["topic"]`` work; kombu's JSON (a task's result), pydantic and
    FastAPI encode them. For ``json.dumps`` and ``JsonResponse`` use :meth:`to_dict`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return all fields that have a meaning, as a dict of JSON types."""
        return msgspec.structs.asdict(self)

    def keys(self) -> list[str]:
        """Return the names in :meth:`to_dict`."""
        return list(self.to_dict())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __json__(self) -> dict[str, Any]:
        """Return the fields: kombu's JSON calls this."""
        return self.to_dict()

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema for pydantic, which calls this: fields as in :meth:`to_dict`."""
        from pydantic_core import core_schema  # noqa: PLC0415  # optional; pydantic has loaded it

        fields = core_schema.typed_dict_schema(
            {
                each.name: core_schema.typed_dict_field(
                    handler.generate_schema(each.type), required=each.required
                )
                for each in msgspec.structs.fields(cls)
            }
        )
        made = core_schema.no_info_after_validator_function(lambda given: cls(**given), fields)
        return core_schema.json_or_python_schema(
            json_schema=made,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), made]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda outcome: outcome.to_dict(), return_schema=fields
            ),
        )


class Receipt(_Fields, frozen=True, kw_only=True, tag="receipt", omit_defaults=True):
    """Pulsar has the message.

    ``str(receipt)`` is a line for people, with the message's place as ``ledger:entry``. It can be
    used like a mapping, and returned from tasks and from FastAPI's views.

    Example:
        >>> receipt = stargate.produce("one lamp", context="order-17")
        >>> receipt.context, receipt["status"]
        ('order-17', 'stored')
    """

    #: The id of the call.
    context: str
    #: The topic's full name; None for a context without a message.
    topic: str | None = None
    #: ``stored``; ``deduplicated``: an earlier send stored it; ``transient``: accepted by a
    #: non-persistent topic, which does not store it.
    status: Literal["stored", "deduplicated", "transient"] = "stored"
    #: Pulsar's message id in base64; None for a context without a message.
    message_id: str | None = None
    #: The ledger that holds the message; None for a context without a message.
    ledger_id: int | None = None
    #: The place of the message in its ledger; None for a context without a message.
    entry_id: int | None = None
    #: The partition; -1 if the topic has none.
    partition: int | None = None
    #: The position in Pulsar's batch; None or -1 if it was not batched.
    batch_index: int | None = None
    #: What the caller of ``Acknowledger.ack`` gave, for a context without a message.
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as callbacks and results get it: a dict of JSON types.

        Example:
            >>> Receipt(context="order-17", topic="persistent://public/default/t").to_dict()["status"]
            'stored'
        """
        fields: dict[str, Any] = msgspec.structs.asdict(self)
        if fields["value"] is None:
            del fields["value"]
        return fields

    def __str__(self) -> str:
        topic = "" if self.topic is None else f" in {self.topic}"
        place = "" if self.ledger_id is None else f" at {self.ledger_id}:{self.entry_id}"
        return f"{self.status}{topic}{place} (context {self.context})"


class Failure(_Fields, frozen=True, kw_only=True, tag="failure", omit_defaults=True):
    """The message was refused, or its outcome is unknown.

    A callback gets it as a dict; :class:`ProduceError` holds that dict as ``failure``.

    Example:
        >>> Failure(context="order-17", status="refused", reason="the topic is closed").code
        'failed'
    """

    #: The id of the call.
    context: str
    #: The topic's full name; None for a context without a message.
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
        """Return the failure as callbacks and errors get it: a dict of JSON types.

        Example:
            >>> Failure(context="order-17", code="deadline").to_dict()["code"]
            'deadline'
        """
        fields: dict[str, Any] = msgspec.structs.asdict(self)
        if fields["outcomes"] is None:
            del fields["outcomes"]
        return fields

    def __str__(self) -> str:
        return f"{self.status}: {self.reason} (context {self.context}, {self.topic or 'no topic'})"


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
