"""Where traces hook in. By default nothing is traced, and nothing is made for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

__all__ = ["Carrier", "Trace", "Tracing", "current", "follow", "use"]

#: The context of a trace as text: ``traceparent``, and ``tracestate`` if there is one.
Carrier = Mapping[str, str]


class Trace(Protocol):
    """The trace of one call, from its creation until it is recorded."""

    @property
    def carrier(self) -> Carrier:
        """What goes into the properties of its messages, and into its record."""

    def active(self) -> AbstractContextManager[object]:
        """Make it the current one, so that what happens within is a part of it."""

    def end(self, error: BaseException | None = None) -> None:
        """Note that the call is recorded, or why it is not. A second time changes nothing."""


class Tracing(Protocol):
    """What makes traces."""

    def begin(
        self, topic: str, context: str, server: str | None, given: Mapping[str, object]
    ) -> Trace | None:
        """Begin the trace of a call, or go on with one that was begun elsewhere.

        Arguments:
            topic: the topic's full name.
            context: the id of the call.
            server: Pulsar's service URL.
            given: the headers of the call's task, where it came by Celery's broker.
        """

    def follow(
        self, carrier: Carrier, context: str, topic: str | None, message_id: str | None
    ) -> AbstractContextManager[object]:
        """Make the trace of a call the current one, while the effects of its outcome are done."""


_current: Tracing | None = None


def use(tracing: Tracing | None) -> None:
    """Let something make traces from now on in this process; None: nothing."""
    global _current  # noqa: PLW0603  # one for the process
    _current = tracing


def current() -> Tracing | None:
    """Return what makes traces; None if nothing does."""
    return _current


def follow(
    carrier: Carrier | None, context: str, topic: str | None, message_id: str | None
) -> AbstractContextManager[object]:
    """Do as :meth:`Tracing.follow` does, if there is a trace, and something makes traces."""
    if carrier is None or _current is None:
        return nullcontext()
    return _current.follow(carrier, context, topic, message_id)
