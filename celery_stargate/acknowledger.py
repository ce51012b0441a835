"""The acknowledger: owns lanes, in one thread with one event loop, for as long as it is started."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from celery_stargate.app import Stargate
from celery_stargate.calls.prepare import check_context
from celery_stargate.delivery.producers import PulsarProducers
from celery_stargate.delivery.shared import Services
from celery_stargate.delivery.supervisor import Supervisor
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import Callbacks
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.wire import SettleWord
from celery_stargate.model.durations import read_timeout
from celery_stargate.model.outcome import Outcome
from celery_stargate.support.log import logger

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Acknowledger"]


class Acknowledger:
    """Keep every message without a receipt as a pending context, and settle it.

    Producer workers run one by themselves. In any other process::

        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("order-17")
            ...
            acknowledger.ack(Receipt(context="order-17"))      # from any process
            future.result(timeout=5)

    Arguments:
        app: a Celery app that has a :class:`~celery_stargate.Stargate`.
        hostname: the worker's name, for results and events.
        revoked: tells whether a context was revoked.
        on_done: called in the effects' thread with each context whose effects were done.
        done_matters: whether ``on_done`` has anything to do now; by default it always has.

    Raises:
        ConfigurationError: the app has no Stargate, or a setting is wrong or missing.
    """

    def __init__(
        self,
        app: Celery,
        *,
        hostname: str | None = None,
        revoked: Callable[[str], bool] | None = None,
        on_done: Callable[[Settled], None] | None = None,
        done_matters: Callable[[], bool] = lambda: True,
    ) -> None:
        self._stargate = Stargate.of(app)
        self._app = app
        self._settings = self._stargate.settings
        self._revoked = revoked or (lambda context: False)
        self._effects = Effects(
            app,
            self._stargate.lanes,
            hostname,
            on_done,
            done_matters=done_matters,
            beside_lanes=self._stargate.connections.holds_results(app.conf.result_backend),
        )
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._crew: Supervisor | None = None
        self._stop = threading.Event()
        _alive.add(self)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether its thread is alive in this process."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start owning lanes, in a thread of its own. Started twice, it runs once."""
        if self.running:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._work, name="stargate", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop: send nothing new, wait for what is in flight, and give the lanes back.

        Arguments:
            timeout: seconds to wait for receipts; by default ``stargate_drain_timeout``.
        """
        drain = self._settings.drain_timeout if timeout is None else timeout
        self._stop.set()
        loop, crew, thread = self._loop, self._crew, self._thread
        if loop is not None and crew is not None:
            try:
                loop.call_soon_threadsafe(crew.stop, drain)
            except RuntimeError:
                logger.debug("the acknowledger's loop has ended already")
        if thread is not None:
            # Beyond the drain: closing sockets, releasing leases, the effects under way.
            thread.join(drain + 15.0)
            if thread.is_alive():
                logger.error("the acknowledger did not stop within %.0f s", drain + 15.0)
        self._thread = None

    def produce(
        self, context: str, on_ack: Any = None, on_error: Any = None, timeout: Any = None
    ) -> Future[Any]:
        """Record a context without a message, which somebody acknowledges with :meth:`ack`.

        Arguments:
            context: its id.
            on_ack, on_error: the signature that gets the receipt, or the failure.
            timeout: seconds or a timedelta until its deadline; by default
                ``stargate_produce_timeout``, with a callback ``stargate_delivery_timeout``.

        Returns:
            A future: its ``result(timeout=…)`` is the receipt, or raises ``ProduceError`` or
            ``ProduceTimeout``.

        Raises:
            ContextInUse: it is pending already.
            InvalidMessage: the context is no printable text, or a callback is no signature.
            StoreUnavailable: Redis did not answer.
        """
        check_context(context)
        callbacks = Callbacks.freeze(on_ack, on_error, self._app)
        if timeout is not None:
            seconds = read_timeout(timeout)
        elif callbacks:
            seconds = self._settings.options.delivery_timeout
        else:
            seconds = self._settings.produce_timeout
        inbox = self._stargate.inbox
        # Where nobody owns the lane, the one who waits sees to the deadline.
        overdue = partial(self._stargate.settle_overdue_of, (CONTEXTS_LANE,))
        ticket = inbox.expect((time.monotonic() + seconds, overdue))
        try:
            self._stargate.lanes.put(
                CONTEXTS_LANE,
                Record(
                    context,
                    on_ack=callbacks.on_ack,
                    on_error=callbacks.on_error,
                    inbox=ticket.address,
                ),
                (),
                timeout=seconds,
                exclusive=True,
            )
        except BaseException:
            inbox.forget(ticket)
            raise
        return ticket.future

    def ack(self, outcome: Outcome) -> bool:
        """Give a context its outcome, from any process.

        A receipt counts from anyone. A failure counts for a context without a message; for a
        message only Pulsar's word to the lane's owner does.

        Returns:
            Whether this call settled it. A second, late or unknown one is logged, and harms
            nothing.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        lanes = self._stargate.lanes
        for lane in self._candidates(outcome):
            word, settled = lanes.settle(lane, outcome)
            if settled is not None:
                done = self._effects.run([settled])
                lanes.finish(lane, done)
                return True
            if word is not SettleWord.LATE:
                break
        else:
            word = SettleWord.LATE
        logger.info("an outcome for context %r changed nothing: %s", outcome.context, word)
        return False

    def _candidates(self, outcome: Outcome) -> list[Lane]:
        if outcome.topic is not None:
            topic, options = self._stargate.resolve(outcome.topic)
            return [Lane(str(topic), index) for index in range(options.lane_count)]
        _, lanes = self._stargate.lanes.registry.survey()
        return [CONTEXTS_LANE, *(lane for lane in lanes if lane != CONTEXTS_LANE)]

    def _work(self) -> None:
        """Run the loop, and again should it fail, until stopped."""
        wait = 0.5
        while not self._stop.is_set():
            try:
                asyncio.run(self._main())
            except Exception:
                logger.exception("the acknowledger failed; it starts again in %.1f s", wait)
                self._stop.wait(wait)
                wait = min(wait * 2, 10.0)
        self._crew = self._loop = None

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="stargate-effects")
        try:
            self._crew = self._make_crew(executor)
            if self._stop.is_set():
                return
            await self._crew.run()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _make_crew(self, executor: ThreadPoolExecutor) -> Supervisor:
        settings = self._settings
        return Supervisor(
            settings,
            self._stargate.connections.asyncio(),
            self._stargate.connections.blocking(),
            Services(PulsarProducers(settings), self._effects, executor, self._revoked),
            name=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}",
        )

    def drop_after_fork(self) -> None:
        """In a forked child: let go of what the parent owns, without a word on its sockets."""
        crew, self._crew, self._loop, self._thread = self._crew, None, None, None
        if crew is not None:
            crew.close_inherited()


#: All acknowledgers of this process, for its forked children.
_alive: weakref.WeakSet[Acknowledger] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for acknowledger in list(_alive):
        acknowledger.drop_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
