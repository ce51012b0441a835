"""Own lanes in one thread with one event loop, for as long as it is started."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable

from celery_stargate.delivery.demand import Demand
from celery_stargate.delivery.producers import PulsarProducers
from celery_stargate.delivery.shared import Services
from celery_stargate.delivery.supervisor import Supervisor
from celery_stargate.effects.jobs import Stage
from celery_stargate.effects.run import Effects
from celery_stargate.lanes.connections import Connections
from celery_stargate.model.settings import Settings
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.daemon import DaemonThread
from celery_stargate.support.event_loop import LastingLoop
from celery_stargate.support.log import logger_of
from celery_stargate.support.processes import process_name

__all__ = ["DeliveryThread"]

logger = logger_of(__name__)

#: How long a stop may take beyond the drain, in seconds: to close sockets, to release leases, and
#: to end the effects under way.
_CLOSING = 15.0
#: An event loop that ran for this many seconds is started again soon.
_LASTED = 60.0


class DeliveryThread:
    """Runs a :class:`~celery_stargate.delivery.supervisor.Supervisor`, which owns lanes.

    Arguments:
        settings: of the app.
        connections: to the Redis that holds the lanes.
        effects: does the effects of settled contexts.
        revoked: tells whether a context was revoked.
        for_calls: this process is no worker: it owns lanes while calls need it and no worker is
            alive, and the thread ends by itself when they have not for ``stargate_idle_timeout``.
    """

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        effects: Effects,
        revoked: Callable[[str], bool] = lambda context: False,
        *,
        for_calls: bool = False,
    ) -> None:
        self._settings = settings
        self._connections = connections
        self._effects = effects
        self._revoked = revoked
        self._demand = Demand(settings.idle_timeout) if for_calls else None
        self._thread: threading.Thread | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.supervisor: Supervisor | None = None
        self._stop = threading.Event()
        _alive.add(self)

    @property
    def running(self) -> bool:
        """Whether the thread is alive in this process."""
        return self._thread is not None and self._thread.is_alive()

    def use(self) -> bool:
        """Note that a call needs the owner, and return whether this thread owns lanes."""
        return self.running and (self._demand is None or self._demand.note())

    def start(self) -> None:
        """Start owning lanes. A second start changes nothing."""
        if self.running:
            return
        # Of this thread alone: one that did not stop in time must not go on.
        stop = self._stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop,), name="stargate", daemon=True)
        # It fails where the system has too many; then there is none to stop.
        thread.start()
        self._thread = thread

    def stop(self, timeout: float | None = None) -> None:
        """Stop: send nothing new, wait for what is in flight, and release the lanes.

        Arguments:
            timeout: seconds to wait for receipts; by default ``stargate_drain_timeout``.
        """
        drain = self._settings.drain_timeout if timeout is None else timeout
        self._stop.set()
        loop, supervisor, thread = self.loop, self.supervisor, self._thread
        if loop is not None and supervisor is not None:
            try:
                loop.call_soon_threadsafe(supervisor.stop, drain)
            except RuntimeError:
                logger.debug("the acknowledger's event loop has ended already")
        if thread is not None:
            thread.join(drain + _CLOSING)
            if thread.is_alive():
                logger.error("the acknowledger did not stop within %.0f s", drain + _CLOSING)
        self._thread = None

    def _work(self, stop: threading.Event) -> None:
        """Run the event loop, and run it again if it fails, until stopped."""
        backoff = Backoff(0.5, 10.0)
        while not stop.is_set():
            began = time.monotonic()
            try:
                with asyncio.Runner(loop_factory=LastingLoop) as runner:
                    runner.run(self._main(stop))
            except BaseException:  # nobody else would start this thread again
                if time.monotonic() - began > _LASTED:
                    backoff.reset()
                wait = backoff.next()
                logger.exception("the acknowledger failed; it starts again in %.1f s", wait)
                stop.wait(wait)
        if stop is self._stop:
            self.supervisor = self.loop = None

    async def _main(self, stop: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        supervisor = self.supervisor = self._make_supervisor()
        if stop.is_set():
            return
        await supervisor.run()
        # It was stopped, or ended by itself: then nothing is to run again.
        stop.set()

    def _make_thread(self, stage: Stage) -> DaemonThread:
        return DaemonThread(f"stargate-{stage.name.lower()}", self._effects.own_connections)

    def _make_supervisor(self) -> Supervisor:
        settings = self._settings
        return Supervisor(
            settings,
            self._connections.asyncio(),
            self._connections.blocking(),
            Services(
                PulsarProducers(settings),
                self._effects,
                self._make_thread,
                self._revoked,
                self._demand,
            ),
            name=process_name(),
        )

    def drop_after_fork(self) -> None:
        """Let go, in a forked child, of what the parent owns; write nothing to its sockets."""
        supervisor = self.supervisor
        self.supervisor = self.loop = self._thread = None
        if supervisor is not None:
            supervisor.close_inherited()


#: All of this process, for its forked children.
_alive: weakref.WeakSet[DeliveryThread] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for thread in list(_alive):
        thread.drop_after_fork()


@atexit.register
def _stop_all() -> None:
    """Give the lanes back when the process ends.

    It is registered when this module is imported, so an application's own handlers, which may still
    publish, run before it.
    """
    for thread in list(_alive):
        if thread.running:
            thread.stop()


os.register_at_fork(after_in_child=_after_fork_in_child)
