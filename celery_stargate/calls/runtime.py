"""What one app has at run time, shared by its task, its worker and its acknowledger."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from celery_stargate.calls.gathering import GatheringInbox
from celery_stargate.calls.ownership import OwnerNotice
from celery_stargate.calls.recording import Recorder
from celery_stargate.calls.waiting import Patience, Waiting
from celery_stargate.delivery.thread import DeliveryThread
from celery_stargate.effects.run import Effects
from celery_stargate.errors import ConfigurationError, StoreUnavailable
from celery_stargate.lanes.connections import Connections, find_redis_url
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Settled
from celery_stargate.model.settings import Settings
from celery_stargate.support.log import logger
from celery_stargate.support.per_process import PerProcess

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Runtime"]

_ATTRIBUTE = "_celery_stargate_runtime"

#: How long a caller settles without progress past its deadline before it gives up, in seconds.
_GIVE_UP_AFTER = 5.0


class Runtime:
    """The settings, connections and threads of one app. What is not used is not made.

    Arguments:
        app: the Celery app. The settings are read when they are first needed.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._inbox = PerProcess(lambda: GatheringInbox(self.outbox.inboxes))
        self._lock = PerProcess(threading.Lock)
        self._delivery: DeliveryThread | None = None
        self._worker_known_until = 0.0

    @classmethod
    def bind(cls, app: Celery) -> Runtime:
        """Make the runtime of an app, and let :meth:`of` find it."""
        made = cls(app)
        setattr(app, _ATTRIBUTE, made)
        return made

    @classmethod
    def of(cls, app: Celery) -> Runtime:
        """Return the runtime of an app.

        Raises:
            ConfigurationError: the app has no Stargate.
        """
        found = getattr(app, _ATTRIBUTE, None)
        if not isinstance(found, Runtime):
            raise ConfigurationError(
                f"the Celery app {app.main!r} has no Stargate; call Stargate(app) where the app is "
                "made"
            )
        return found

    @cached_property
    def settings(self) -> Settings:
        """The settings, read and checked once.

        Raises:
            ConfigurationError: a setting does not exist or has a wrong type.
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
    def outbox(self) -> Outbox:
        """The lanes, as callers use them."""
        return Outbox(self.connections, self.settings.prefix)

    @property
    def inbox(self) -> GatheringInbox:
        """Where this process gets the outcomes it waits for."""
        return self._inbox.get()

    @cached_property
    def effects(self) -> Effects:
        """Does the effects of contexts that this process settles."""
        return self.make_effects()

    @cached_property
    def recorder(self) -> Recorder:
        """Records calls in their lanes."""
        return Recorder(self.outbox, self.settings.options)

    @cached_property
    def owner_notice(self) -> OwnerNotice:
        """Says so where no process owns lanes."""
        return OwnerNotice(self.outbox.registry.survey)

    def make_effects(
        self,
        hostname: str | None = None,
        on_done: Callable[[Settled], None] | None = None,
        done_matters: Callable[[], bool] = lambda: True,
    ) -> Effects:
        """Return what does the effects of settled contexts.

        Arguments:
            hostname: the worker's name, for results and events.
            on_done: called with each context whose effects were done.
            done_matters: whether ``on_done`` has anything to do now.
        """
        return Effects(
            self.app,
            self.outbox,
            hostname,
            on_done,
            done_matters=done_matters,
            beside_lanes=self.connections.holds_results(self.app.conf.result_backend),
        )

    def waiting(
        self, seconds: float, lanes: Iterable[Lane], progress: Callable[[], int] = lambda: 0
    ) -> Waiting:
        """Return how a caller waits for what it recorded.

        Arguments:
            seconds: until its deadline.
            lanes: where its messages are.
            progress: a number that changes while outcomes still arrive.
        """
        own = tuple(lanes)
        patience = Patience(look_every=self.settings.lease / 2, give_up_after=_GIVE_UP_AFTER)
        return Waiting(
            time.monotonic() + seconds,
            patience,
            lambda: self.settle_overdue(own),
            self.look_for_owner,
            progress=progress,
        )

    def require_owner(self) -> None:
        """Make sure that some process owns lanes: a producer worker, or else this process.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        now = time.monotonic()
        with self._lock.get():
            if self._delivery is not None and self._delivery.running:
                return
            if now < self._worker_known_until:
                return
            workers, _ = self.outbox.registry.survey()
            if workers:
                self._worker_known_until = now + self.settings.lease / 2
                return
            self._delivery = DeliveryThread(self.settings, self.connections, self.effects)
            self._delivery.start()
            # So that the lanes of a script are free as soon as it ends.
            atexit.register(self.close)

    def look_for_owner(self) -> None:
        """Check, while a call waits, that the lanes' owner has not died since."""
        try:
            self.require_owner()
        except StoreUnavailable as error:
            # The message is recorded: its outcome may come when Redis is back.
            logger.warning("%s; the call waits on", error)

    def settle_overdue(self, lanes: Iterable[Lane]) -> None:
        """Settle what is overdue in some lanes, and do the effects, from any process.

        Where Redis does not answer, this is logged, and nothing is raised.
        """
        try:
            for lane in lanes:
                done = self.effects.run(self.outbox.expire(lane))
                if done:
                    self.outbox.finish(lane, done)
        except StoreUnavailable as error:
            logger.warning("%s; what is overdue is settled later", error)

    def close(self) -> None:
        """Close this process's connections, and stop owning lanes if it does.

        It may be used again.
        """
        with self._lock.get():
            delivery, self._delivery = self._delivery, None
        if delivery is not None:
            atexit.unregister(self.close)
            delivery.stop()
        if "outbox" in self.__dict__:
            self.outbox.close()
