"""Publishing, as an application sees it: produce, aproduce, produce_many and aproduce_many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack, overload

from celery_stargate.calls import many, single
from celery_stargate.calls.given import Callback, CallGiven, ManyGiven, OneMessage
from celery_stargate.calls.runtime import Runtime
from celery_stargate.errors import unknown_argument
from celery_stargate.model.outcome import Receipt

__all__ = ["Publishing"]

#: The arguments of ``produce`` and of ``produce_many``, for the texts of errors.
_PRODUCE = ("message", "topic", "on_ack", "on_error", "timeout", "context")
_PRODUCE_MANY = ("messages", "topic", "on_ack", "on_error", "timeout")


class Publishing:
    """The calls that publish; :class:`~celery_stargate.Stargate` has them."""

    @property
    def runtime(self) -> Runtime:
        """The app's settings, connections and threads."""
        raise NotImplementedError

    @overload
    def produce(
        self,
        message: list[Any],
        *,
        on_ack: None = None,
        on_error: None = None,
        **options: Unpack[CallGiven],
    ) -> list[Receipt]: ...
    @overload
    def produce(
        self,
        message: OneMessage,
        *,
        on_ack: None = None,
        on_error: None = None,
        **options: Unpack[CallGiven],
    ) -> Receipt: ...
    @overload
    def produce(
        self,
        message: OneMessage | list[Any],
        *,
        on_ack: Callback,
        on_error: Callback | None = None,
        **options: Unpack[CallGiven],
    ) -> str: ...
    @overload
    def produce(
        self,
        message: OneMessage | list[Any],
        *,
        on_ack: Callback | None = None,
        on_error: Callback,
        **options: Unpack[CallGiven],
    ) -> str: ...
    def produce(
        self,
        message: object,
        *,
        topic: str | None = None,
        on_ack: object = None,
        on_error: object = None,
        timeout: object = None,
        context: str | None = None,
        **unknown: object,
    ) -> Receipt | list[Receipt] | str:
        """Publish and wait for the receipt; or, with a callback, record and return the context.

        No worker is needed: if none is alive, this process owns lanes itself.

        Arguments:
            message: text, bytes, ``(key, payload)``, a mapping, a Message, or a list of these.
            topic: its full name or its name in the settings; by default ``stargate_topic``.
            on_ack: the signature that gets the receipt (of a list: the list of receipts).
            on_error: the signature that gets the failure.
            timeout: seconds or a timedelta until the message's deadline; by default
                ``stargate_produce_timeout`` (30 s), with a callback ``stargate_delivery_timeout``
                (a day).
            context: an id of your own; by default a new one.

        Returns:
            The :class:`Receipt`, for a list the list of receipts; with a callback, the context.

        Raises:
            InvalidMessage, ConfigurationError, LaneFull, ContextInUse: nothing was recorded.
            StoreUnavailable: Redis did not answer; the message may be recorded. Call again with
                the same ``context``: while it is pending, ContextInUse says that it is recorded.
            ProduceError: the message was refused, or its outcome is unknown.
            ProduceTimeout: its deadline passed.

        Example:
            >>> receipt = stargate.produce(("order-17", "one lamp"), timeout=10)
            >>> receipt.status
            'stored'
            >>> context = stargate.produce("one lamp", on_ack=paid.s(), on_error=alert.s())
        """
        if unknown:
            raise unknown_argument("produce()", unknown, _PRODUCE)
        given = message, context, topic, on_ack, on_error, timeout
        return single.produce(self.runtime, *single.check(self.runtime, *given))

    @overload
    async def aproduce(
        self,
        message: list[Any],
        *,
        on_ack: None = None,
        on_error: None = None,
        **options: Unpack[CallGiven],
    ) -> list[Receipt]: ...
    @overload
    async def aproduce(
        self,
        message: OneMessage,
        *,
        on_ack: None = None,
        on_error: None = None,
        **options: Unpack[CallGiven],
    ) -> Receipt: ...
    @overload
    async def aproduce(
        self,
        message: OneMessage | list[Any],
        *,
        on_ack: Callback,
        on_error: Callback | None = None,
        **options: Unpack[CallGiven],
    ) -> str: ...
    @overload
    async def aproduce(
        self,
        message: OneMessage | list[Any],
        *,
        on_ack: Callback | None = None,
        on_error: Callback,
        **options: Unpack[CallGiven],
    ) -> str: ...
    async def aproduce(
        self,
        message: object,
        *,
        topic: str | None = None,
        on_ack: object = None,
        on_error: object = None,
        timeout: object = None,
        context: str | None = None,
        **unknown: object,
    ) -> Receipt | list[Receipt] | str:
        """Do as :meth:`produce` does, without holding the event loop.

        Arguments:
            message, topic, on_ack, on_error, timeout, context: as in :meth:`produce`.

        Returns:
            As :meth:`produce`.

        Raises:
            As :meth:`produce`. If it is cancelled, a recorded message still goes on.

        Example:
            >>> async def view():
            ...     receipt = await stargate.aproduce("one lamp", timeout=10)
            ...     return receipt.status
            >>> asyncio.run(view())
            'stored'
        """
        if unknown:
            raise unknown_argument("aproduce()", unknown, _PRODUCE)
        given = message, context, topic, on_ack, on_error, timeout
        return await single.aproduce(self.runtime, *given)

    @overload
    def produce_many(
        self,
        messages: Iterable[OneMessage],
        *,
        on_ack: None = None,
        on_error: None = None,
        **options: Unpack[ManyGiven],
    ) -> list[Receipt]: ...
    @overload
    def produce_many(
        self,
        messages: Iterable[OneMessage],
        *,
        on_ack: Callback,
        on_error: Callback | None = None,
        **options: Unpack[ManyGiven],
    ) -> list[str]: ...
    @overload
    def produce_many(
        self,
        messages: Iterable[OneMessage],
        *,
        on_ack: Callback | None = None,
        on_error: Callback,
        **options: Unpack[ManyGiven],
    ) -> list[str]: ...
    def produce_many(
        self,
        messages: Iterable[object],
        *,
        topic: str | None = None,
        on_ack: object = None,
        on_error: object = None,
        timeout: object = None,
        **unknown: object,
    ) -> list[Receipt] | list[str]:
        """Publish many messages, each with a receipt of its own, and wait for all of them.

        Each is recorded by itself, in the order given, as if :meth:`produce` were called for each;
        but in pipelines, so that a message costs a small part of that. For a list that succeeds
        or fails as one, with one callback, give :meth:`produce` a list.

        All messages are checked before the first is recorded, so all of them are held in memory,
        encoded: about 2 kB each beside one and a third of the payload. Split what does not fit.

        Arguments:
            messages: any iterable of text, bytes, ``(key, payload)``, mappings and Messages.
            topic: as in :meth:`produce`.
            on_ack: the signature that gets the receipt of each message.
            on_error: the signature that gets the failure of each message.
            timeout: as in :meth:`produce`, of each message.

        Returns:
            The receipts, in order; with a callback, at once the contexts, in order.

        Raises:
            InvalidMessage, ConfigurationError, LaneFull: nothing was recorded. ``index`` is the
                place of the message that is invalid.
            StoreUnavailable: Redis stopped answering; its text says how many messages are
                recorded. They go on.
            ProduceError: after all have their outcome, if a message was refused or its outcome is
                unknown: the first such, with every message's outcome in ``failure["outcomes"]``.
            ProduceTimeout: the same, if that message's deadline passed.

        Example:
            >>> receipts = stargate.produce_many(f"order {number}" for number in range(3))
            >>> [receipt.status for receipt in receipts]
            ['stored', 'stored', 'stored']
        """
        if unknown:
            raise unknown_argument("produce_many()", unknown, _PRODUCE_MANY)
        return many.produce_many(self.runtime, messages, topic, on_ack, on_error, timeout)

    @overload
    async def aproduce_many(
        self,
        messages: Iterable[OneMessage],
        *,
        on_ack: None = None,
        on_error: None = None,
        **options: Unpack[ManyGiven],
    ) -> list[Receipt]: ...
    @overload
    async def aproduce_many(
        self,
        messages: Iterable[OneMessage],
        *,
        on_ack: Callback,
        on_error: Callback | None = None,
        **options: Unpack[ManyGiven],
    ) -> list[str]: ...
    @overload
    async def aproduce_many(
        self,
        messages: Iterable[OneMessage],
        *,
        on_ack: Callback | None = None,
        on_error: Callback,
        **options: Unpack[ManyGiven],
    ) -> list[str]: ...
    async def aproduce_many(
        self,
        messages: Iterable[object],
        *,
        topic: str | None = None,
        on_ack: object = None,
        on_error: object = None,
        timeout: object = None,
        **unknown: object,
    ) -> list[Receipt] | list[str]:
        """Do as :meth:`produce_many` does, without holding the event loop.

        A thread checks and records the messages; no thread waits for the receipts.

        Arguments:
            messages, topic, on_ack, on_error, timeout: as in :meth:`produce_many`.

        Returns:
            As :meth:`produce_many`.

        Raises:
            As :meth:`produce_many`. If it is cancelled, recorded messages still go on.

        Example:
            >>> receipts = asyncio.run(stargate.aproduce_many(["one lamp", "one chair"]))
            >>> len(receipts)
            2
        """
        if unknown:
            raise unknown_argument("aproduce_many()", unknown, _PRODUCE_MANY)
        return await many.aproduce_many(self.runtime, messages, topic, on_ack, on_error, timeout)
