"""Stargate: settings, lifecycle, and produce from any process."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import _state

from celery_stargate.calls.inbox import Ticket
from celery_stargate.calls.many import GatheringInbox, callbacks_of_each, prepare_many, wait_for
from celery_stargate.calls.prepare import Call, prepare
from celery_stargate.effects.callbacks import trigger
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import NO_CALLBACKS, Callbacks
from celery_stargate.effects.tracer import run
from celery_stargate.errors import ConfigurationError, LaneFull, ProduceTimeout, StoreUnavailable
from celery_stargate.lanes.connections import Connections, find_redis_url
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.model.durations import read_timeout
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Failure
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.model.settings import Settings
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.support.log import logger
from celery_stargate.support.per_process import PerProcess
from celery_stargate.task import ProduceTask

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.acknowledger import Acknowledger

__all__ = ["Stargate"]

_ATTRIBUTE = "_celery_stargate"

#: How much longer a caller waits, past its deadline, for the word on what became of its message.
_GRACE_PERIOD = 5.0


class Stargate:
    """Bind celery_stargate to a Celery app.

        app = Celery("shop", broker="redis://", backend="redis://")
        app.conf.stargate_url = "ws://localhost:8080"
        stargate = Stargate(app)

    Its workers then run the acknowledger, unless they are started with ``--without-stargate``.
    Where there is no default app yet, it becomes that, so that ``produce_task`` finds it in every
    thread.
    The settings are read when they are first needed, so they may be set after this.

    Arguments:
        app: the Celery app; None to call :meth:`init_app` later.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self._app: Celery | None = None
        self._lock = PerProcess(threading.Lock)
        self._inbox = PerProcess(lambda: GatheringInbox(self.lanes.inboxes))
        self._acknowledger: Acknowledger | None = None
        self._survey_until = 0.0
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Celery) -> None:
        """Bind to an app: its workers get the bootstep and the ``--without-stargate`` option.

        Raises:
            ConfigurationError: this Stargate is bound to another app already.
        """
        from celery_stargate.worker.bootstep import install

        if self._app is not None and self._app is not app:
            raise ConfigurationError(
                f"this Stargate is bound to the app {self._app.main!r} already; make another one"
            )
        self._app = app
        setattr(app, _ATTRIBUTE, self)
        # Celery's current app is a thread's own. Without a default one, produce_task would belong
        # to an app that Celery makes up in every other thread, of a web server for instance.
        default = getattr(_state, "default_app", None)
        if default is None or default.main == "default":
            app.set_default()
        install(app)

    @classmethod
    def of(cls, app: Celery) -> Stargate:
        """Return the Stargate of an app.

        Raises:
            ConfigurationError: it has none.
        """
        found = getattr(app, _ATTRIBUTE, None)
        if not isinstance(found, Stargate):
            raise ConfigurationError(
                f"the Celery app {app.main!r} has no Stargate; call Stargate(app) where the app is "
                "made"
            )
        return found

    @property
    def app(self) -> Celery:
        """The Celery app.

        Raises:
            ConfigurationError: there is none yet.
        """
        if self._app is None:
            raise ConfigurationError("this Stargate has no app; call init_app(app) first")
        return self._app

    @cached_property
    def settings(self) -> Settings:
        """The settings, read and checked once.

        Raises:
            ConfigurationError: one does not exist or has a wrong type.
        """
        return Settings.read(self.app.conf, getattr(self.app, "namespace", None))

    @cached_property
    def redis_url(self) -> str:
        """The URL of the Redis that holds the lanes.

        Raises:
            ConfigurationError: no Redis is configured.
        """
        return find_redis_url(self.settings.redis_url, self.app)

    @cached_property
    def connections(self) -> Connections:
        """Connections to the Redis that holds the lanes.

        Raises:
            ConfigurationError: no Redis is configured.
        """
        return Connections(self.redis_url)

    @cached_property
    def lanes(self) -> Outbox:
        """The lanes, as callers use them."""
        return Outbox(self.connections, self.settings.prefix)

    @property
    def inbox(self) -> GatheringInbox:
        """Where this process gets the outcomes it waits for."""
        return self._inbox.get()

    @cached_property
    def effects(self) -> Effects:
        """Does the effects of contexts that this process settles."""
        return Effects(self.app, self.lanes)

    def task(self, name: str, *, topic: str | None = None, **options: Any) -> ProduceTask:
        """Make a produce task of one's own.

        Arguments:
            name: its full name, such as ``shop.orders``.
            topic: its topic's full name, or its name in ``stargate_topics``.
            options: producer options (``lanes=4``, ``compression_type="LZ4"``, …) and Celery's
                task options (``ignore_result=True``, …).

        Raises:
            ConfigurationError: when it is first used, where an option is wrong.
        """
        own = ProducerOptions.names()
        producer_options = {key: value for key, value in options.items() if key in own}
        celery_options = {key: value for key, value in options.items() if key not in own}
        app: Any = self.app
        made: ProduceTask = app.task(
            name=name,
            bind=True,
            base=ProduceTask,
            topic=topic,
            producer_options=producer_options or None,
            # Celery would give it to every other app, whose task of that name it would replace.
            **{"shared": False, **celery_options},
        )(run)
        return made

    def resolve(
        self, topic: str | None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, ProducerOptions]:
        """Return a topic and its producer options.

        Raises:
            InvalidMessage: the topic is malformed.
            ConfigurationError: there is no topic, or an option is wrong.
        """
        parsed, found = self.settings.resolve(topic)
        if options:
            found = found.changed(options, f"the options for {parsed}")
        return parsed, found

    def prepare(
        self,
        message: object,
        context: str,
        topic: str | None,
        options: Mapping[str, Any] | None = None,
    ) -> Call:
        """Check a call whole, and return what it would record.

        Raises:
            InvalidMessage: the message or the topic.
            ConfigurationError: the settings.
        """
        self.settings.require_url()
        parsed, found = self.resolve(topic, options)
        return prepare(message, context, parsed, found)

    def put(
        self,
        call: Call,
        timeout: float,
        *,
        task: str | None = None,
        request: str | None = None,
        callbacks: Callbacks = NO_CALLBACKS,
        inbox: str | None = None,
        tombstone: float = 0.0,
        exclusive: bool = False,
    ) -> None:
        """Record a call in its lanes. After this the message gets its outcome, whoever dies.

        Arguments:
            timeout: seconds until its deadline.
            callbacks: what its outcome triggers.
            the rest: as in :class:`~celery_stargate.lanes.record.Record` and
                :meth:`~celery_stargate.lanes.caller.Outbox.put`.

        Raises:
            LaneFull, ContextInUse, StoreUnavailable: as there.
        """
        home, *others = call.lanes
        options = self._differing(call)
        common: dict[str, Any] = {
            "max_backlog": call.options.max_backlog,
            "tombstone": tombstone,
            "options": options,
        }
        record = Record(
            call.context,
            is_list=call.is_list,
            task=task,
            request=request,
            on_ack=callbacks.on_ack,
            on_error=callbacks.on_error,
            inbox=inbox,
        )
        if not others:
            messages = [("", part.frame) for part in call.parts]
            self.lanes.put(home, record, messages, timeout=timeout, exclusive=exclusive, **common)
            return
        # The list spans lanes: its context holds their places, and each message is a context of
        # its own that settles one place. The context outlives its messages, to hear from them all.
        self._require_room(call)
        places = [("", b"")] * len(call.parts)
        self.lanes.put(
            home,
            record,
            places,
            timeout=timeout + _GRACE_PERIOD,
            exclusive=exclusive,
            **{**common, "max_backlog": 0},
        )
        for place, part in enumerate(call.parts):
            child = Record(part.label, parent=(home.name, call.context, place))
            self.lanes.put(
                part.lane,
                child,
                [("", part.frame)],
                timeout=timeout,
                **{**common, "max_backlog": 0},
            )

    def _differing(self, call: Call) -> dict[str, Any]:
        """Return what a worker that does not know the topic's options must be told of them."""
        usual = self.settings.options
        return {} if call.options is usual else call.options.differing(usual)

    def _require_room(self, *calls: Call) -> None:
        limit = calls[0].options.max_backlog
        if not limit:
            return
        counts = Counter(part.lane for call in calls for part in call.parts)
        for lane, count in counts.items():
            backlog = self.lanes.backlog(lane)
            if backlog + count > limit:
                raise LaneFull(lane.name, backlog, limit)

    def produce(
        self,
        message: object,
        *,
        topic: str | None = None,
        on_ack: Any = None,
        on_error: Any = None,
        timeout: Any = None,
        context: str | None = None,
    ) -> Any:
        """Publish and wait for the receipt; or, with a callback, record and return the context.

        No worker is needed: where none is alive, this process owns lanes itself.

        Arguments:
            message: text, bytes, ``(key, payload)``, a mapping, a Message, or a list of these.
            topic: its full name or its name in the settings; by default ``stargate_topic``.
            on_ack: the signature that gets the receipt (of a list: the list of receipts).
            on_error: the signature that gets the failure.
            timeout: seconds or a timedelta until the message's deadline; by default
                ``stargate_produce_timeout`` (30 s), with a callback ``stargate_delivery_timeout``
                (a day).
            context: an id of one's own; by default a new one.

        Returns:
            The :class:`Receipt`, for a list the list of receipts; with a callback, the context.

        Raises:
            InvalidMessage, ConfigurationError, LaneFull, ContextInUse, StoreUnavailable: nothing
                was recorded.
            ProduceError: the message was refused, or nobody can know.
            ProduceTimeout: its deadline passed.
        """
        call, seconds, callbacks = self._check(message, topic, on_ack, on_error, timeout, context)
        if callbacks:
            self._require_owner()
            self.put(call, seconds, exclusive=True, callbacks=callbacks)
            return call.context
        return self._wait(self._submit(call, seconds), call, seconds)

    async def aproduce(
        self,
        message: object,
        *,
        topic: str | None = None,
        on_ack: Any = None,
        on_error: Any = None,
        timeout: Any = None,
        context: str | None = None,
    ) -> Any:
        """Do as :meth:`produce` does, without holding the event loop.

        Raises:
            As :meth:`produce`. Cancelled, it leaves a recorded message on its way.
        """
        call, seconds, callbacks = self._check(message, topic, on_ack, on_error, timeout, context)
        if callbacks:
            await asyncio.to_thread(self._require_owner)
            await asyncio.to_thread(self.put, call, seconds, exclusive=True, callbacks=callbacks)
            return call.context
        ticket = await asyncio.to_thread(self._submit, call, seconds)
        waiting = asyncio.wrap_future(ticket.future)
        deadline = time.monotonic() + seconds
        try:
            while True:
                left = deadline - time.monotonic()
                try:
                    return await asyncio.wait_for(
                        asyncio.shield(waiting), max(0.0, min(left, self.settings.lease / 2))
                    )
                except TimeoutError:
                    if waiting.done():
                        continue
                    if left <= 0:
                        return await asyncio.to_thread(self._last_word, ticket.future, call)
                    await asyncio.to_thread(self._look_for_owner)
        finally:
            self.inbox.forget(ticket)

    def produce_many(
        self,
        messages: Iterable[object],
        *,
        topic: str | None = None,
        on_ack: Any = None,
        on_error: Any = None,
        timeout: Any = None,
    ) -> list[Any]:
        """Publish many messages, each with a receipt of its own, and wait for all of them.

        Each is recorded by itself, in the order given, as if :meth:`produce` were called for each;
        but in pipelines, so that a message costs a small part of that. For a list that succeeds
        or fails as one, with one callback, give :meth:`produce` a list.

        All messages are checked before the first is recorded, so all of them are held in memory,
        encoded: about 2 kB each beside one and a third of the payload. Give what does not fit
        there in parts.

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
            ProduceError: after all have their outcome, where a message was refused, or nobody can
                know: the first such, with every message's outcome in ``failure["outcomes"]``.
            ProduceTimeout: the same, where that one's deadline passed.
        """
        self.settings.require_url()
        parsed, options = self.resolve(topic)
        callbacks = callbacks_of_each(
            lambda: Callbacks.freeze(on_ack, on_error, self.app), on_ack, on_error
        )
        waits = not callbacks()
        if timeout is not None:
            seconds = read_timeout(timeout)
        else:
            seconds = self.settings.produce_timeout if waits else options.delivery_timeout
        calls = prepare_many(messages, parsed, options)
        if not calls:
            return []
        self._require_owner()
        self._require_room(*calls)
        contexts = [call.context for call in calls]
        if not waits:
            self._put_many(calls, seconds, callbacks, None)
            return contexts
        lanes = list(dict.fromkeys(part.lane for call in calls for part in call.parts))
        gathering = self.inbox.gather(contexts)
        try:
            self._put_many(calls, seconds, callbacks, gathering.ticket.address)
            # The receipts need none of it any more.
            calls.clear()
            wait_for(
                gathering,
                seconds,
                look_every=self.settings.lease / 2,
                look=self._look_for_owner,
                settle=lambda: self.settle_overdue_of(lanes),
            )
        finally:
            self.inbox.forget(gathering.ticket)
        return gathering.settled(str(parsed)).receipts()

    async def aproduce_many(self, messages: Iterable[object], **options: Any) -> list[Any]:
        """Do as :meth:`produce_many` does, in a thread, without holding the event loop.

        Raises:
            As :meth:`produce_many`. Cancelled, it leaves recorded messages on their way.
        """
        return await asyncio.to_thread(self.produce_many, messages, **options)

    def _put_many(
        self,
        calls: Sequence[Call],
        seconds: float,
        callbacks: Callable[[], Callbacks],
        inbox: str | None,
    ) -> None:
        puts = []
        for call in calls:
            (part,), own = call.parts, callbacks()
            record = Record(call.context, on_ack=own.on_ack, on_error=own.on_error, inbox=inbox)
            puts.append((part.lane, record, part.frame))
        options = self._differing(calls[0])
        self.lanes.put_many(puts, timeout=seconds, options=options)

    def produce_in_process(self, task: ProduceTask, given: Mapping[str, Any]) -> Any:
        """Run a produce task in this process: publish, wait, call the callbacks.

        Raises:
            As :meth:`produce`.
        """
        context = task.request.id or str(uuid.uuid4())
        call = task.prepare(self, given, context)
        callbacks = Callbacks.freeze(given.get("on_ack"), given.get("on_error"), self.app)
        seconds = given.get("delivery_timeout")
        seconds = self.settings.produce_timeout if seconds is None else read_timeout(seconds)
        if self._has_redis:
            outcome = self._wait(self._submit(call, seconds, callbacks), call, seconds)
        else:
            outcome = self._direct(call, seconds, callbacks)
        return [each.to_dict() for each in outcome] if call.is_list else outcome.to_dict()

    @property
    def _has_redis(self) -> bool:
        try:
            return bool(self.redis_url)
        except ConfigurationError:
            return False

    def _direct(self, call: Call, seconds: float, callbacks: Callbacks) -> Any:
        """Publish over a socket of this call's own: nothing is durable where there is no Redis."""
        from celery_stargate.calls.direct import publish

        if call.options.delivery == "effectively_once":
            raise ConfigurationError(
                "stargate_delivery='effectively_once' needs a Redis for its lanes; set "
                "stargate_redis_url"
            )
        outcomes = publish(Endpoint.of(self.settings), call, seconds)
        found = CallOutcomes(call.context, call.is_list, tuple(outcomes))
        trigger(self.app, found, callbacks.on_error if found.failed else callbacks.on_ack)
        return found.answer()

    def _check(
        self,
        message: object,
        topic: str | None,
        on_ack: Any,
        on_error: Any,
        timeout: Any,
        context: str | None,
    ) -> tuple[Call, float, Callbacks]:
        call = self.prepare(message, context or str(uuid.uuid4()), topic)
        callbacks = Callbacks.freeze(on_ack, on_error, self.app)
        if timeout is not None:
            seconds = read_timeout(timeout)
        elif callbacks:
            seconds = call.options.delivery_timeout
        else:
            seconds = self.settings.produce_timeout
        return call, seconds, callbacks

    def _submit(self, call: Call, seconds: float, callbacks: Callbacks = NO_CALLBACKS) -> Ticket:
        self._require_owner()
        ticket = self.inbox.expect()
        try:
            self.put(call, seconds, inbox=ticket.address, exclusive=True, callbacks=callbacks)
        except BaseException:
            self.inbox.forget(ticket)
            raise
        return ticket

    def _wait(self, ticket: Ticket, call: Call, seconds: float) -> Any:
        future = ticket.future
        deadline = time.monotonic() + seconds
        try:
            while True:
                left = deadline - time.monotonic()
                try:
                    return future.result(max(0.0, min(left, self.settings.lease / 2)))
                except FutureTimeout:
                    if future.done():
                        continue
                    if left <= 0:
                        return self._last_word(future, call)
                    self._look_for_owner()
        finally:
            self.inbox.forget(ticket)

    def _look_for_owner(self) -> None:
        """While a call waits: the worker that was alive may have died since."""
        try:
            self._require_owner()
        except StoreUnavailable as error:
            # The message is recorded: its outcome may come when Redis is back.
            logger.warning("%s; the call waits on", error)

    def _last_word(self, future: Future[Any], call: Call) -> Any:
        """Past the deadline: settle what is overdue ourselves, for nobody else may be alive."""
        end = time.monotonic() + _GRACE_PERIOD
        while not future.done() and time.monotonic() < end:
            self.settle_overdue_of(call.lanes)
            try:
                return future.result(0.1)
            except FutureTimeout:
                continue
        if future.done():
            return future.result()
        raise ProduceTimeout(
            Failure(
                context=call.context,
                topic=str(call.topic),
                status="unknown",
                code="deadline",
                reason="the deadline passed, and nobody could tell what became of the message",
            ).to_dict()
        )

    def settle_overdue_of(self, lanes: Iterable[Lane]) -> None:
        """Settle what is overdue in a call's lanes; where Redis is away, say so and go on."""
        try:
            for lane in lanes:
                self.settle_overdue(lane)
        except StoreUnavailable as error:
            logger.warning("%s; the call waits for the last word", error)

    def settle_overdue(self, lane: Lane) -> None:
        """Settle what is overdue in a lane and do the effects, from any process.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        settled = self.lanes.expire(lane)
        done = self.effects.run(settled)
        if done:
            self.lanes.finish(lane, done)

    def _require_owner(self) -> None:
        """See to it that somebody owns lanes: a producer worker, or this process."""
        now = time.monotonic()
        with self._lock.get():
            if self._acknowledger is not None and self._acknowledger.running:
                return
            if now < self._survey_until:
                return
            workers, _ = self.lanes.registry.survey()
            if workers:
                self._survey_until = now + self.settings.lease / 2
                return
            from celery_stargate.acknowledger import Acknowledger

            self._acknowledger = Acknowledger(self.app)
            self._acknowledger.start()
            # So that a script's lanes are free at once when it ends.
            atexit.register(self.close)

    def close(self) -> None:
        """End what this process has of it: its connections, and an acknowledger that it started.

        It may be used again.
        """
        with self._lock.get():
            acknowledger, self._acknowledger = self._acknowledger, None
        if acknowledger is not None:
            atexit.unregister(self.close)
            acknowledger.stop()
        if "lanes" in self.__dict__:
            self.lanes.close()
