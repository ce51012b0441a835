"""Stargate: what an application binds to its Celery app, and publishes by."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from celery import _state

from celery_stargate.calls import many, single
from celery_stargate.calls.given import Callback, CallGiven, ManyGiven, OneMessage, TaskGiven
from celery_stargate.calls.revoking import Revoker
from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.tracer import run
from celery_stargate.errors import ConfigurationError, unknown_argument
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.model.options import split_task_options
from celery_stargate.model.outcome import Receipt
from celery_stargate.model.secrets import hide_secrets
from celery_stargate.model.settings import Settings
from celery_stargate.task import ProduceTask, task_class_of, use_task_class
from celery_stargate.worker.bootstep import install

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Stargate"]

#: The arguments of ``produce`` and of ``produce_many``, for the texts of errors.
_PRODUCE = ("message", "topic", "on_ack", "on_error", "timeout", "context")
_PRODUCE_MANY = ("messages", "topic", "on_ack", "on_error", "timeout")

_ATTRIBUTE = "_celery_stargate"


class Stargate:
    """Bind celery_stargate to a Celery app.

        app = Celery("shop", broker="redis://", backend="redis://")
        app.conf.stargate_url = "ws://localhost:8080"
        stargate = Stargate(app)

    Its workers then run the acknowledger, unless they are started with ``--without-stargate``.
    If there is no default app yet, this app becomes it, so that ``produce_task`` finds it in every
    thread.
    The settings are read when they are first needed, so you may set them after this.

    Arguments:
        app: the Celery app; None to call :meth:`init_app` later.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self._runtime: Runtime | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Celery) -> None:
        """Bind to an app: its workers get the bootstep and the ``--without-stargate`` option.

        Arguments:
            app: the Celery app.

        Raises:
            ConfigurationError: this Stargate is bound to another app already.
        """
        if self._runtime is None:
            self._runtime = Runtime.bind(app)
        elif self._runtime.app is not app:
            raise ConfigurationError(
                f"this Stargate is bound to the app {self._runtime.app.main!r} already; make "
                "another one"
            )
        setattr(app, _ATTRIBUTE, self)
        # Celery's current app belongs to a thread. Without a default app, produce_task would belong
        # to an app that Celery makes up in every other thread, such as those of a web server.
        default = getattr(_state, "default_app", None)
        if default is None or default.main == "default":
            app.set_default()
        if getattr(app, "finalized", False):
            use_task_class(app)
        else:
            app.on_after_finalize.connect(_use_task_class)
        install(app)
        hide_secrets()

    @classmethod
    def of(cls, app: Celery) -> Stargate:
        """Return the Stargate of an app.

        Arguments:
            app: the Celery app.

        Raises:
            ConfigurationError: it has none.
        """
        Runtime.of(app)
        found: Stargate = getattr(app, _ATTRIBUTE)
        return found

    @property
    def runtime(self) -> Runtime:
        """The app's settings, connections and threads: for the package's own modules and tests.

        Raises:
            ConfigurationError: there is no app yet.
        """
        if self._runtime is None:
            raise ConfigurationError("this Stargate has no app; call init_app(app) first")
        return self._runtime

    @property
    def app(self) -> Celery:
        """The Celery app.

        Raises:
            ConfigurationError: there is none yet.
        """
        return self.runtime.app

    @property
    def settings(self) -> Settings:
        """The settings, read and checked once.

        Raises:
            ConfigurationError: a setting does not exist or has a wrong type.
        """
        return self.runtime.settings

    @property
    def lanes(self) -> Outbox:
        """The lanes, to look into: :meth:`~celery_stargate.lanes.outbox.Outbox.backlog`, for one.

        Raises:
            ConfigurationError: no Redis is configured.
        """
        return self.runtime.outbox

    def task(
        self, name: str, *, topic: str | None = None, **options: Unpack[TaskGiven]
    ) -> ProduceTask:
        """Make a produce task of your own.

        Arguments:
            name: its full name, such as ``shop.orders``.
            topic: its topic's full name, or its name in ``stargate_topics``.
            options: producer options (``lanes=4``, ``compression_type="LZ4"``, …) and Celery's
                task options (``ignore_result=True``, …).

        Raises:
            ConfigurationError: an option does not exist or has a wrong type; or, when the task is
                first used, options do not go together.
        """
        if not isinstance(name, str):
            raise ConfigurationError(
                "stargate.task is not a decorator: it makes a task from a name, as in "
                "orders = stargate.task('shop.orders', topic='orders')"
            )
        producer_options, celery_options = split_task_options(
            cast("dict[str, Any]", options), dir(ProduceTask), f"the task {name}"
        )
        app: Any = self.app
        made: ProduceTask = app.task(
            name=name,
            bind=True,
            base=task_class_of(app),
            topic=topic,
            producer_options=producer_options or None,
            # Celery would give it to every other app, and replace their task of that name.
            **{"shared": False, **celery_options},
        )(run)
        return made

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
            InvalidMessage, ConfigurationError, LaneFull, ContextInUse, StoreUnavailable: nothing
                was recorded.
            ProduceError: the message was refused, or its outcome is unknown.
            ProduceTimeout: its deadline passed.
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

        Raises:
            As :meth:`produce`. If it is cancelled, a recorded message still goes on.
        """
        if unknown:
            raise unknown_argument("aproduce()", unknown, _PRODUCE)
        given = message, context, topic, on_ack, on_error, timeout
        return await single.aproduce(self.runtime, *single.check(self.runtime, *given))

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
        """Do as :meth:`produce_many` does, in a thread, without holding the event loop.

        Arguments:
            messages, topic, on_ack, on_error, timeout: as in :meth:`produce_many`.

        Raises:
            As :meth:`produce_many`. If it is cancelled, recorded messages still go on.
        """
        if unknown:
            raise unknown_argument("aproduce_many()", unknown, _PRODUCE_MANY)
        return await asyncio.to_thread(
            many.produce_many, self.runtime, messages, topic, on_ack, on_error, timeout
        )

    def cancel(self, context: str) -> bool:
        """Revoke a call whose message was not sent yet, from any process.

        Its task ends as ``REVOKED``, and ``on_error`` gets a failure with the code ``revoked``.

        Arguments:
            context: the id of the call: of a task its id, else what :meth:`produce` returned.

        Returns:
            Whether nothing of it was or will be sent. Else it has its outcome already, or is not
            known, or may have been sent; the messages of a list that were not sent are failed.

        Raises:
            ConfigurationError: no Redis is configured.
            StoreUnavailable: Redis did not answer in bounded time.
        """
        return Revoker(self.runtime).cancel(context)

    def close(self) -> None:
        """Close this process's connections, and stop owning lanes if it does.

        It may be used again.
        """
        if self._runtime is not None:
            self._runtime.close()


def _use_task_class(sender: Celery, **_: object) -> None:
    use_task_class(sender)
