"""What one app has at run time, shared by its task, its worker and its acknowledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

from celery_stargate import observers
from celery_stargate.calls.gathering import GatheringInbox
from celery_stargate.calls.loop_calls import Loops
from celery_stargate.calls.memory import Memory
from celery_stargate.calls.ownership import OwnerNotice
from celery_stargate.calls.peers import Peers, caller_of
from celery_stargate.calls.prepare import Preparation
from celery_stargate.calls.recording import Recorder
from celery_stargate.calls.waiting import Patience, Schedule, Waiting
from celery_stargate.delivery.thread import DeliveryThread
from celery_stargate.effects.apart import EffectsApart
from celery_stargate.effects.run import Effects
from celery_stargate.effects.unstarted import UntilStarted
from celery_stargate.errors import ConfigurationError, StoreUnavailable
from celery_stargate.lanes.configured import find_target, target_of_backend
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.inbox import new_inbox
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Settled
from celery_stargate.lanes.target import Target
from celery_stargate.lanes.unstarted import UnstartedCallbacks
from celery_stargate.model.settings import Settings, named
from celery_stargate.support.bound import bounded
from celery_stargate.support.log import logger_of
from celery_stargate.support.per_process import PerProcess
from celery_stargate.support.shared_call import SharedCall

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Runtime"]

logger = logger_of(__name__)

_ATTRIBUTE = "_celery_stargate_runtime"

#: For how many topics the preparation is kept: there may be as many as a program makes up.
_TOPICS = 1000
#: How long a caller settles without progress past its deadline before it gives up, in seconds.
_GIVE_UP_AFTER = 5.0
#: How long a waiting caller looks into Redis at most, in seconds: meanwhile it does not wait.
_LOOK_BOUND = 2.0
#: A waiting caller looks at least this often for an owner, in seconds: the process that owned the
#: lanes for its own calls may have ended.
_LOOK_EVERY = 2.0
_NO_WORKER = (
    "no producer worker is alive, and stargate_own_lanes is 'worker': messages wait in Redis until "
    "one starts"
)


class Runtime:
    """The settings, connections and threads of one app. What is not used is not made.

    It has more methods than a class should: each thing that the process shares is one, and is made
    when it is first asked for.

    Arguments:
        app: the Celery app. The settings are read when they are first needed.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._lock = PerProcess(threading.RLock)
        self._survey = PerProcess(lambda: SharedCall(self._count_owners, (StoreUnavailable,)))
        self._delivery: DeliveryThread | None = None
        self._know_nothing()

    def _know_nothing(self) -> None:
        """Set the initial state of what depends on the settings: the owners, and the inboxes."""
        #: By bucket; a dict's setdefault needs no lock.
        self._inboxes: PerProcess[dict[int, GatheringInbox]] = PerProcess(dict)
        #: The delivery of each acknowledger that was started and not stopped.
        self.deliveries: set[DeliveryThread] = set()
        self._worker_known_until = 0.0
        self._worker_missed = False

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

    def preparation(self, topic: str | None) -> Preparation:
        """Return what prepares calls to a topic. For topics that are used again it is made once.

        Arguments:
            topic: as :meth:`Settings.resolve` takes it.

        Raises:
            InvalidMessage, ConfigurationError: as :func:`~celery_stargate.calls.prepare.prepare`.
        """
        if topic is None or isinstance(topic, str):
            return self._preparation(topic)
        return Preparation.of(self.settings, topic)

    @cached_property
    def _preparation(self) -> Callable[[str | None], Preparation]:
        return lru_cache(_TOPICS)(partial(Preparation.of, self.settings))

    @cached_property
    def redis(self) -> Target:
        """The Redis that holds the lanes.

        Raises:
            ConfigurationError: no Redis is configured, Celery cannot read its URL or options, or
                ``stargate_url`` is ``memory://``.
        """
        settings = self.settings
        if settings.in_memory:
            # A test of the app would ask, and change, whatever Redis its settings name.
            raise settings.error(
                "there are no lanes and no dead letters, because stargate_url is memory://: "
                "messages stay in this process. Give Pulsar's service URL to use the lanes' Redis"
            )
        try:
            return find_target(self.app, settings.redis_url, settings.redis_options)
        except ConfigurationError as error:
            raise settings.error(str(error)) from None

    @cached_property
    def connections(self) -> Connections:
        """Connections to the Redis that holds the lanes.

        Raises:
            ConfigurationError: no Redis is configured.
        """
        return Connections(self.redis, max_connections=self.settings.redis_max_connections)

    @cached_property
    def outbox(self) -> Outbox:
        """The lanes, as callers use them."""
        settings = self.settings
        return Outbox(self.connections, settings.keyspace, settings.dead_letter_rules)

    @property
    def inbox(self) -> GatheringInbox:
        """Where this process gets the outcomes of contexts without a message."""
        return self.inbox_for(CONTEXTS_LANE)

    def inbox_for(self, lane: Lane) -> GatheringInbox:
        """Return where this process gets the outcomes of a lane's calls."""
        keyspace, inboxes = self.settings.keyspace, self._inboxes.get()
        bucket = lane.bucket(keyspace)
        found = inboxes.get(bucket)
        if found is None:
            made = GatheringInbox(self.outbox.inboxes, new_inbox(keyspace, bucket))
            found = inboxes.setdefault(bucket, made)
        return found

    @cached_property
    def loops(self) -> Loops:
        """What the calls of each event loop share."""
        return Loops(self)

    @cached_property
    def effects(self) -> Effects:
        """Does the effects of contexts that this process settles."""
        return self.make_effects()

    @cached_property
    def effects_apart(self) -> EffectsApart:
        """Does these effects in bounded time, in the thread of a caller."""
        return EffectsApart(self.effects, self.outbox)

    @cached_property
    def recorder(self) -> Recorder:
        """Records calls in their lanes."""
        return Recorder(self.outbox, self.settings.options)

    @cached_property
    def owner_notice(self) -> OwnerNotice:
        """Logs a warning while no process owns lanes."""
        return OwnerNotice(self._count_owners)

    @cached_property
    def memory(self) -> Memory | None:
        """Where messages stay if ``stargate_url`` is ``memory://``; else None."""
        return Memory() if self.settings.in_memory else None

    @cached_property
    def peers(self) -> Peers:
        """Notices other processes whose settings disagree with those of this caller."""
        name, ours = caller_of(self.app, self.settings)
        return Peers(self.outbox.registry, self.settings.prefix, name, ours)

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
        made = Effects(
            self.app,
            self.outbox,
            hostname,
            on_done,
            done_matters=done_matters,
            beside_lanes=self._holds_results(),
        )
        if self.until_started is not None:
            made.keep_until_started(self.until_started)
        return made

    @cached_property
    def unstarted(self) -> UnstartedCallbacks:
        """Callbacks that were published and whose tasks have not started."""
        return UnstartedCallbacks(self.connections, self.settings.keyspace)

    @cached_property
    def until_started(self) -> UntilStarted | None:
        """Keeps callbacks until their tasks have started; None where the settings do not ask."""
        settings = self.settings
        if settings.callbacks == "published":
            return None
        return UntilStarted(
            self.app,
            self.unstarted,
            after=settings.callback_start_timeout,
            bound=settings.effects_timeout,
        )

    def _holds_results(self) -> bool:
        """Whether results are stored in the lanes' Redis by the same user, or nowhere."""
        if self.app.conf.result_backend is None:
            return True
        return self.connections.same_as(target_of_backend(self.app))

    @cached_property
    def _patience(self) -> Patience:
        return Patience(
            look_every=min(self.settings.lease / 2, _LOOK_EVERY), give_up_after=_GIVE_UP_AFTER
        )

    def schedule(self, seconds: float) -> Schedule:
        """Return when a caller does what while it waits for what it recorded.

        Arguments:
            seconds: until its deadline.
        """
        return Schedule(time.monotonic() + seconds, self._patience)

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
        return Waiting(
            time.monotonic() + seconds,
            self._patience,
            lambda: self.settle_overdue(own),
            self.look_for_owner,
            progress=progress,
        )

    def require_owner(self) -> None:
        """Make sure that some process owns lanes: a producer worker, or else this process.

        Threads that ask at the same time share one look into Redis; no lock is held meanwhile.

        Raises:
            StoreUnavailable: Redis did not answer within the bound around this call, or 5 s.
        """
        if self.is_owned():
            return
        try:
            owners = self._survey.get().result()
        except TimeoutError:
            raise StoreUnavailable("Redis did not answer another thread in time") from None
        with self._lock.get():
            if owners:
                self._worker_missed = False
                known = min(self.settings.lease / 2, _LOOK_EVERY)
                self._worker_known_until = time.monotonic() + known
            elif self.is_owned():
                return
            elif self.settings.own_lanes == "worker":
                self._miss_worker()
            else:
                self._own()

    def is_owned(self) -> bool:
        """Whether lanes are owned, as far as this process knows without asking."""
        delivery = self._delivery
        return (
            time.monotonic() < self._worker_known_until
            or (delivery is not None and delivery.use())
            or self._delivers()
        )

    def _delivers(self) -> bool:
        """Whether an acknowledger runs in this process. Redis hears of one a moment later."""
        return any(each.running for each in tuple(self.deliveries))

    def _count_owners(self) -> int:
        """Return how many processes own lanes; at least 1 if an acknowledger runs in this one.

        Those of this machine that were killed no longer count.
        """
        self.peers.look_now_and_then()
        registry = self.outbox.registry
        owners = registry.owners()
        if owners and registry.remove_ended():
            owners = registry.owners()
        return owners or int(self._delivers())

    def _miss_worker(self) -> None:
        """Log that no worker is alive and this process may not own lanes; once for each absence."""
        if not self._worker_missed:
            self._worker_missed = True
            logger.warning("%s", named(_NO_WORKER, self.settings.namespace))
        self._worker_known_until = time.monotonic() + 1.0

    def _own(self) -> None:
        """Own lanes in this process."""
        self._delivery = DeliveryThread(
            self.settings, self.connections, self.effects, for_calls=True
        )
        self._delivery.start()

    def look_for_owner(self) -> None:
        """Check, while a call waits, that the lanes' owner has not died since."""
        try:
            with bounded(_LOOK_BOUND):
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
                with bounded(_LOOK_BOUND):
                    overdue = self.outbox.expire(lane)
                if overdue:
                    observers.ended(lane, overdue, self.settings.dead_letter_rules, "deadline")
                    with bounded(_LOOK_BOUND):
                        self.effects_apart.run(lane, overdue)
        except StoreUnavailable as error:
            logger.warning("%s; what is overdue is settled later", error)

    def close(self) -> None:
        """Close this process's connections, and stop owning lanes if it does.

        It may be used again.
        """
        with self._lock.get():
            delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.stop()
        if "loops" in self.__dict__:
            self.loops.close()
        if "connections" in self.__dict__:
            self.connections.close()

    def reset(self) -> None:
        """Close, and read the settings again at the next use: for tests that change them."""
        self.close()
        for name, each in vars(Runtime).items():
            if isinstance(each, cached_property):
                self.__dict__.pop(name, None)
        self._know_nothing()
