"""The exceptions of celery_stargate, and helpers for their texts.

StargateError
├── ConfigurationError     a setting is missing, misspelled or of a wrong type
├── InvalidMessage         the message or an option of the call cannot be published
├── LaneFull               the lane already holds ``stargate_max_backlog`` messages
├── ContextInUse           another call with the same context is still pending
├── StoreUnavailable       Redis did not answer (also an ``OperationalError``)
└── ProduceError           the message was refused, or its outcome is unknown
    └── ProduceTimeout     the deadline passed before a receipt arrived
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from itertools import takewhile
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
    "unknown_argument",
]


class StargateError(Exception):
    """The base class of all errors of celery_stargate.

    Example:
        >>> try:
        ...     stargate.produce({"payload": 17})
        ... except StargateError as error:
        ...     print(type(error).__name__)
        InvalidMessage
    """


class ConfigurationError(StargateError):
    """A setting or an option is missing, misspelled or of a wrong type. Fix the configuration.

    Example:
        >>> try:
        ...     stargate.task("shop.orders", topic="orders", compresion_type="LZ4")
        ... except ConfigurationError as error:
        ...     print("did you mean 'compression_type'?" in str(error))
        True
    """


class InvalidMessage(StargateError, ValueError):
    """The message or an option of the call cannot be published. Nothing was recorded.

    Arguments:
        problem: what is wrong and what to do.
        index: the position of the message in its list, from 0; None for a single message.

    Example:
        >>> try:
        ...     stargate.produce_many(["one lamp", 17])
        ... except InvalidMessage as error:
        ...     print(error.index)
        1
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
    """The lane has no room below ``stargate_max_backlog``. Nothing was recorded; retry later.

    Arguments:
        lane: the lane's name.
        backlog: how many messages it holds.
        limit: how many it may hold.

    Example:
        >>> print(LaneFull("persistent://public/default/orders#0", backlog=1000, limit=1000))
        lane persistent://public/default/orders#0 holds 1000 messages and its limit is 1000; ...
    """

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
    """The context is pending, or ended a short time ago: use another id, or wait for that one.

    With ``stargate_delivery="effectively_once"`` it stays in use for ``stargate_once_window`` after
    its end, so that a repeated call does not send its message again.

    Arguments:
        context: the id of the call.

    Example:
        >>> print(ContextInUse("order-17"))
        context 'order-17' is already pending, or ended within stargate_once_window; ...
    """

    def __init__(self, context: str) -> None:
        super().__init__(context)
        self.context = context

    def __str__(self) -> str:
        return (
            f"context {self.context!r} is already pending, or ended within stargate_once_window; "
            "use a different id for each context"
        )


class StoreUnavailable(StargateError, OperationalError):
    """Redis did not answer in time, so it is unknown whether the message was recorded.

    Call again with the same ``task_id``. With ``stargate_delivery="effectively_once"`` the message
    is recorded once, if you do so within ``stargate_once_window`` after its end. With
    ``"at_least_once"`` it is recorded again if it has its outcome by then.

    For ``stargate.produce``, call again with the same ``context``. It raises :class:`ContextInUse`
    where the repeat of a task is ignored: the first call was recorded.

    Example:
        >>> issubclass(StoreUnavailable, kombu.exceptions.OperationalError)
        True
    """


class ProduceError(StargateError):
    """The message was refused, or it is unknown whether Pulsar stored it.

    Arguments:
        failure: a mapping with the fields of :class:`~celery_stargate.Failure`. It is the only
            argument, so that every Celery result backend can store and raise the error again.

    Example:
        >>> pulsar.receipts.fail_next("send-error:8")
        >>> try:
        ...     stargate.produce("one lamp")
        ... except ProduceError as error:
        ...     print(error.status, error.failure["code"])
        refused send-error:8
    """

    def __init__(self, failure: Mapping[str, Any]) -> None:
        super().__init__(dict(failure))
        self.failure: dict[str, Any] = dict(failure)

    @property
    def context(self) -> str | None:
        """The id of the call that failed; None if it is not known."""
        return self.failure.get("context")

    @property
    def status(self) -> str:
        """``refused``: not in the topic; ``unknown``: it may be in the topic."""
        return str(self.failure.get("status", "unknown"))

    @property
    def outcome(self) -> str:
        """The earlier name of :attr:`status`, kept for code that was written for 0.1."""
        return self.status

    @property
    def reason(self) -> str:
        """Why it failed: Pulsar's own message if there is one."""
        return str(self.failure.get("reason", "no reason was given"))

    def __str__(self) -> str:
        topic = self.failure.get("topic") or "no topic"
        return f"{self.status}: {self.reason} (context {self.context}, {topic})"


class ProduceTimeout(ProduceError):
    """The deadline passed before a receipt arrived.

    ``status`` is ``refused`` if the message was never sent, ``unknown`` if it may be stored.

    Example:
        >>> pulsar.receipts.hold()
        >>> try:
        ...     stargate.produce("one lamp", timeout=1)
        ... except ProduceTimeout as error:
        ...     print(error.status)
        unknown
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the closest known word, or an empty text.

    What all known words begin with says nothing about which of them is close. A known word that
    begins with the given one is.
    """
    words = list(known)
    common = ""
    if len(words) > 1:
        # What the first and the last of them have in common, all have.
        first, last = min(words), max(words)
        pairs = zip(first, last, strict=False)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        common = first[: first.rfind("_", 0, alike) + 1]
    if word.startswith(common):
        rest = word.removeprefix(common)
        longer = [each for each in words if rest and each.startswith(f"{word}_")]
        found = get_close_matches(rest, [each.removeprefix(common) for each in words], n=1)
        close = longer[:1] or [common + each for each in found]
    else:
        close = get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


#: Arguments that one call has under another name than a neighbouring call.
_OTHER_NAMES = {"timeout": "delivery_timeout", "delivery_timeout": "timeout"}


def unknown_argument(what: str, names: Iterable[str], known: Collection[str]) -> TypeError:
    """Return the error for arguments that a call does not have, with the closest known names.

    Arguments:
        what: the call, such as ``produce()``.
        names: the unknown arguments.
        known: the arguments that it has.
    """
    found = []
    for name in sorted(names):
        other = _OTHER_NAMES.get(name)
        close = f"; here it is {other!r}" if other in known else nearest(name, known)
        found.append(f"{name!r}{close}")
    listed = ", ".join(found)
    end = "" if listed.endswith("?") else "."
    return TypeError(f"{what} has no argument {listed}{end} Its arguments are {', '.join(known)}")


def shown(value: object) -> str:
    """Return the ``repr`` of a value for an error text, at most 100 characters."""
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to print an int with too many digits.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 100 else f"{text[:97]}..."
