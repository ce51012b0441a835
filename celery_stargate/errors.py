"""Every exception of celery_stargate.

StargateError
├── ConfigurationError     a setting is missing, misspelled or of a wrong type
├── InvalidMessage         the caller's message or option cannot be published
├── LaneFull               the lane holds ``max_backlog`` messages already
├── ContextInUse           the context is pending already, for somebody else
├── StoreUnavailable       Redis did not answer (also an ``OperationalError``)
└── ProduceError           Pulsar refused the message, or nobody can know
    └── ProduceTimeout     the deadline passed before a receipt came
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from kombu.exceptions import OperationalError

__all__ = [
    "ConfigurationError",
    "ContextInUse",
    "InvalidMessage",
    "LaneFull",
    "ProduceError",
    "ProduceTimeout",
    "StargateError",
    "StoreUnavailable",
    "nearest",
    "shown",
]


class StargateError(Exception):
    """The root of all errors of celery_stargate."""


class ConfigurationError(StargateError):
    """A setting is missing, misspelled or of a wrong type: mend the configuration."""


class InvalidMessage(StargateError, ValueError):
    """A message or an option of the call cannot be published; nothing was recorded.

    ``index`` is the place in the list, where the message stood in one.
    """

    def __init__(self, problem: str, index: int | None = None) -> None:
        super().__init__(problem, index)
        self.problem = problem
        self.index = index

    def __str__(self) -> str:
        if self.index is None:
            return self.problem
        return f"message {self.index} of the list: {self.problem}"


class LaneFull(StargateError):
    """The lane has no room below ``stargate_max_backlog``: nothing of the call was recorded."""

    def __init__(self, lane: str, backlog: int, limit: int) -> None:
        super().__init__(lane, backlog, limit)
        self.lane = lane
        self.backlog = backlog
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"lane {self.lane} holds {self.backlog} messages and its limit is {self.limit}; "
            "wait for Pulsar to catch up, or raise stargate_max_backlog"
        )


class ContextInUse(StargateError):
    """The context is pending, or ended a short time ago: choose another id, or wait for that one.

    With ``stargate_delivery="effectively_once"`` it stays in use for ``stargate_once_window`` after
    its end, so that a repeated call does not send its message again.
    """

    def __init__(self, context: str) -> None:
        super().__init__(context)
        self.context = context

    def __str__(self) -> str:
        return (
            f"context {self.context!r} is pending already, or ended within stargate_once_window; "
            "use an id of its own for each context"
        )


class StoreUnavailable(StargateError, OperationalError):
    """Redis did not answer in time: it is not known whether the message was recorded.

    Call again with the same ``task_id``. With ``stargate_delivery="effectively_once"`` the message
    is recorded once, if you do so within ``stargate_once_window`` after its end. With
    ``"at_least_once"`` it is recorded again if it has its outcome by then.
    """


class ProduceError(StargateError):
    """The message did not surely reach its topic.

    ``failure`` is a mapping with the fields of :class:`~celery_stargate.Failure`; it is the only
    argument, so that every Celery result backend can store the error and raise it again.
    """

    def __init__(self, failure: Mapping[str, Any]) -> None:
        super().__init__(dict(failure))
        self.failure: dict[str, Any] = dict(failure)

    @property
    def context(self) -> str | None:
        """The context that failed."""
        return self.failure.get("context")

    @property
    def status(self) -> str:
        """``refused`` (it is not in the topic) or ``unknown`` (it may be there)."""
        return str(self.failure.get("status", "unknown"))

    @property
    def reason(self) -> str:
        """Pulsar's own sentence where there is one."""
        return str(self.failure.get("reason", "no reason was given"))

    def __str__(self) -> str:
        topic = self.failure.get("topic") or "no topic"
        return f"{self.status}: {self.reason} (context {self.context}, {topic})"


class ProduceTimeout(ProduceError):
    """The deadline passed before a receipt came.

    ``status`` says whether it was never sent (``refused``) or may be stored (``unknown``).
    """


def nearest(word: str, known: Any) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of the known words, else an empty text."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """Return the ``repr`` of what was found, cut to 100 characters."""
    try:
        text = repr(value)
    except ValueError:
        # An int of more digits than Python prints.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 100 else f"{text[:97]}..."
