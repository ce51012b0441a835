"""The arguments of a produce task's call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from celery_stargate.calls.prepare import Call
from celery_stargate.model.message import Message

__all__ = ["Arguments", "canonical", "shown"]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call by their names; not checked yet, but for the names."""

    message: Any
    topic: Any = None
    on_ack: Any = None
    on_error: Any = None
    delivery_timeout: Any = None
    via: Any = None

    @classmethod
    def read(cls, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> Arguments:
        """Read the arguments of a call.

        Raises:
            TypeError: one is unknown, or there is no message, or more than one.
        """
        positional, given = tuple(args or ()), dict(kwargs or {})
        if len(positional) > 1 or (positional and "message" in given):
            raise TypeError(
                f"a produce task takes one message, and {len(positional)} positional arguments "
                "were given; give several messages as one list"
            )
        if positional:
            given["message"] = positional[0]
        unknown = given.keys() - _NAMES
        if unknown or "message" not in given:
            raise TypeError(
                f"a produce task takes message, topic, on_ack, on_error, delivery_timeout and via; "
                f"{'unknown: ' + ', '.join(sorted(unknown)) if unknown else 'no message was given'}"
            )
        return cls(**given)


_NAMES = frozenset(each.name for each in fields(Arguments))


def canonical(message: Any) -> Any:
    """Return a message in a form that JSON keeps: a tuple would come back as a list of two."""
    match message:
        case tuple() if len(message) == 2:
            return {"key": message[0], "payload": message[1]}
        case Message():
            return message.to_dict()
        case list():
            return [canonical(each) for each in message]
        case {"deliver_after": timedelta() as wait, **rest}:
            return {**rest, "deliver_after": wait.total_seconds()}
    return message


def shown(call: Call) -> str:
    """Return what Celery may show of the arguments in events and logs: never the payload."""
    count = len(call.parts)
    return f"(<{count} message{'s' if count > 1 else ''} for {call.topic}>,)"
