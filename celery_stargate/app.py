"""Stargate: what an application binds to its Celery app, and publishes by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack, cast

from celery import _state

from celery_stargate.calls.eager import is_eager
from celery_stargate.calls.given import TaskGiven
from celery_stargate.calls.publishing import Publishing
from celery_stargate.calls.revoking import Revoker
from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.tracer import run
from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.model.options import split_task_options
from celery_stargate.model.secrets import hide_secrets
from celery_stargate.model.settings import Settings
from celery_stargate.operations.dead_letters import DeadLetters, dead_letters_of
from celery_stargate.support.daemon_call import await_in_daemon
from celery_stargate.task import ProduceTask, task_class_of, use_task_class
from celery_stargate.worker.bootstep import install

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Stargate"]

_ATTRIBUTE = "_celery_stargate"


class Stargate(Publishing):
    """Bind celery_stargate to a Celery app, and publish from any of its processes.

    Its workers then run the acknowledger, unless they are started with ``--without-stargate``.
    If there is no default app yet, this app becomes it, so that ``produce_task`` finds it in every
    thread.
    The settings are read when they are first needed, so you may set them after this.

    Arguments:
        app: the Celery app; None to call :meth:`init_app` later.

    Raises:
        ConfigurationError: as :meth:`init_app`.

    Example:
        >>> app = Celery("shop", broker="redis://", backend="redis://")
        >>> app.conf.stargate_url = "ws://localhost:8080"
        >>> stargate = Stargate(app)
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

        Example:
            >>> stargate = Stargate()
            >>> stargate.init_app(Celery("shop"))
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

        Returns:
            The Stargate that was bound to it.

        Raises:
            ConfigurationError: it has none.

        Example:
            >>> Stargate.of(app) is stargate
            True
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

        Example:
            >>> stargate.app.main
            'shop'
        """
        return self.runtime.app

    @property
    def settings(self) -> Settings:
        """The settings, read and checked once. Names are without ``stargate_``.

        Raises:
            ConfigurationError: a setting does not exist or has a wrong type.

        Example:
            >>> stargate.settings.drain_timeout
            10.0
        """
        return self.runtime.settings

    @property
    def lanes(self) -> Outbox:
        """The lanes, to look into: :meth:`~celery_stargate.lanes.outbox.Outbox.backlog`, for one.

        Raises:
            ConfigurationError: no Redis is configured, or ``stargate_url`` is ``memory://``.

        Example:
            >>> from celery_stargate.lanes.lane import Lane
            >>> stargate.lanes.backlog(Lane("persistent://public/default/orders"))
            0
        """
        return self.runtime.outbox

    @property
    def dead_letters(self) -> DeadLetters:
        """The messages that failed, and were kept: to list, replay or delete them.

        They are shown without payloads.

        Raises:
            ConfigurationError: a setting is wrong, the app is not set yet, no Redis is configured,
                or ``stargate_url`` is ``memory://``.

        Example:
            >>> list(stargate.dead_letters.find())
            []
        """
        return dead_letters_of(self.runtime)

    def task(
        self, name: str, *, topic: str | None = None, **options: Unpack[TaskGiven]
    ) -> ProduceTask:
        """Make a produce task of your own.

        Arguments:
            name: its full name, such as ``shop.orders``.
            topic: its topic's full name, or its name in ``stargate_topics``.
            options: producer options (``lanes=4``, ``compression_type="LZ4"``, …) and Celery's
                task options (``ignore_result=True``, …).

        Returns:
            The task; call it as you call :data:`produce_task`.

        Raises:
            ConfigurationError: an option does not exist or has a wrong type; or, when the task is
                first used, options do not go together.

        Example:
            >>> orders = stargate.task("shop.orders", topic="orders", lanes=4)
            >>> orders.delay("one lamp").state
            'SUCCESS'
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

    def cancel(self, context: str) -> bool:
        """Revoke a call whose message was not sent yet, from any process.

        Its task ends as ``REVOKED``, and ``on_error`` gets a failure with the code ``revoked``.

        Arguments:
            context: the id of the call: of a task its id, else what :meth:`produce` returned.

        Returns:
            Whether nothing of it was or will be sent. Else it has its outcome already, or is not
            known, or may have been sent; the messages of a list that were not sent are failed.
            In eager mode it is always False: each call has its outcome when it returns.

        Raises:
            ConfigurationError: no Redis is configured.
            StoreUnavailable: Redis did not answer in bounded time.

        Example:
            >>> result = produce_task.delay("one lamp", topic="orders")
            >>> stargate.cancel(result.id)
            True
        """
        return not is_eager(self.runtime) and Revoker(self.runtime).cancel(context)

    def close(self) -> None:
        """Close this process's connections, and give its lanes back if it owns any.

        It waits for messages in flight, at most ``stargate_drain_timeout`` and a few seconds. The
        Stargate may be used again. Call it where a process may end without Python's exit handlers.

        Example:
            >>> stargate.close()
        """
        if self._runtime is not None:
            self._runtime.close()

    async def aclose(self) -> None:
        """Do as :meth:`close` does, without holding the event loop.

        If it is cancelled, the closing goes on in its thread.

        Example:
            >>> asyncio.run(stargate.aclose())
        """
        if self._runtime is not None:
            await self._runtime.loops.aclose()
        await await_in_daemon(self.close, "stargate-close")

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Close this Stargate when an ASGI application ends.

        Give it to a framework that has a lifespan, such as FastAPI and Starlette::

            web = FastAPI(lifespan=stargate.lifespan)

        In a lifespan of your own, use it as ``async with stargate.lifespan():``. For an application
        without one, such as Django's, there is
        :class:`celery_stargate.contrib.asgi.ClosesAtShutdown`.

        Arguments:
            app: the web application, which is not looked at.

        Returns:
            A context manager that closes this Stargate at its end.

        Example:
            >>> async def serve():
            ...     async with stargate.lifespan():
            ...         return (await stargate.aproduce("one lamp")).status
            >>> asyncio.run(serve())
            'stored'
        """
        try:
            yield
        finally:
            await self.aclose()


def _use_task_class(sender: Celery, **_: object) -> None:
    use_task_class(sender)
