"""The arguments of a produce task's call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from celery_stargate.calls.prepare import Call
from celery_stargate.errors import unknown_argument

__all__ = ["Arguments", "shown"]


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
        unknown = given.keys() - set(_NAMES)
        if unknown:
            raise unknown_argument("a produce task", unknown, _NAMES)
        if "message" not in given:
            raise TypeError("no message was given to a produce task")
        return cls(**given)


_NAMES = tuple(each.name for each in fields(Arguments))


def kept_arguments(topic: Any, timeout: float | None, **others: Any) -> dict[str, Any]:
    """Return the keyword arguments of a call that are given."""
    every = {"topic": topic, "delivery_timeout": timeout, **others}
    return {name: value for name, value in every.items() if value is not None}


def shown(call: Call) -> str:
    """Return what Celery may show of the arguments in events and logs: never the payload."""
    count = len(call.parts)
    return f"(<{count} message{'s' if count > 1 else ''} for {call.topic}>,)"
