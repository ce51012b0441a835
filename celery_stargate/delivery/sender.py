"""Send a lane's messages: do what the lane's state says, over one connection after another."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from celery_stargate.delivery.effects_queue import EffectsQueue
from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.delivery.lease import Lease
from celery_stargate.delivery.log_reader import LogReader, NewerRecord
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.delivery.settler import Settler
from celery_stargate.delivery.source import LaneSource
from celery_stargate.delivery.states import Event, State
from celery_stargate.delivery.suspicion import Suspicion
from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.leased import Fenced
from celery_stargate.model.dead_letters import Policy, error_class
from celery_stargate.model.outcome import Failure, failure_status
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.sequence import (
    DeduplicationUnavailable,
    Numbered,
    SequenceMismatch,
    producer_query,
)
from celery_stargate.pulsar.session import Session, SessionRules
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.log import logger_of

__all__ = ["Sender"]

logger = logger_of(__name__)

#: While messages are refused, how many failures may wait to be settled.
_REFUSALS = 1000
#: How many entries a look for the next message passes over at most, if they cannot be sent.
_LOOK = 100
#: How long, in seconds, a pause by policy lasts at most.
_PAUSE = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why Pulsar refuses a lane's topic."""

    #: A sentence for people, and a word for programs.
    reason: str
    code: str
    #: The highest number that may have been sent.
    sent: int


class Sender:
    """Sends one lane's messages to its topic.

    Arguments:
        lane: whose messages it sends.
        lease: without it nothing is sent.
        in_flight: gets each connection.
        settler: gets the outcomes.
        effects: while they cannot keep up, nothing is sent.
    """

    def __init__(
        self,
        lane: OwnedLane,
        lease: Lease,
        in_flight: InFlight,
        settler: Settler,
        effects: EffectsQueue,
    ) -> None:
        self._lane = lane
        self._lease = lease
        self._in_flight = in_flight
        self._settler = settler
        self._effects = effects
        self._topic = Topic.parse(lane.store.lane.topic)
        self._rules = lane.shared.settings.dead_letter_rules
        #: Whether Pulsar's sequence ids are to be the lane's numbers.
        self._numbers = lane.options.delivery == "effectively_once"
        #: Whether the broker was found to deduplicate the topic.
        self._deduplicates = False
        self._backoff = Backoff(uniform=lane.shared.rng.uniform)
        self._suspicion = Suspicion(lane.name)
        self._log = LogReader(lane)
        #: What the next connection sends, and why the last one was refused.
        self._source: LaneSource | None = None
        self._refusal: _Refusal | None = None

    async def run(self) -> None:
        """Send messages until cancelled.

        Raises:
            Fenced: another owner has the lane.
            StoreRolledBack: Redis came back with an older state.
            NewerRecord: the next message waits for a newer worker.
        """
        machine = self._lane.machine
        while True:
            match machine.state:
                case State.IDLE:
                    self._source = await self._wait_for_messages()
                    machine.apply(Event.FOUND)
                case State.OPENING:
                    assert self._source is not None
                    await self._connect(self._source)
                case State.REFUSING:
                    assert self._refusal is not None
                    await self._refuse(self._refusal)
                    machine.apply(Event.REFUSALS_TOLD)
                case State.BACKOFF:
                    await asyncio.sleep(self._backoff.next())
                    machine.apply(Event.ELAPSED)
                case _:
                    # The lane is given back: there is nothing to send, and run() is cancelled.
                    await asyncio.get_running_loop().create_future()

    async def _wait_for_messages(self) -> LaneSource:
        """Return the source of the next session, as soon as the log holds a message."""
        lane = self._lane
        settings = lane.shared.settings
        # A message that has its outcome must not be read from the log, and sent, again.
        await self._settler.until_at_most(0)
        while not (found := await self._log.read(0, _LOOK, 1, mark=False)):
            if self._log.newer is not None:
                await self._leave_to_newer(self._log.newer)
            else:
                await self._log.wait(0, settings.idle_timeout)
        store, retry = lane.store, lane.retry
        progress, first = await retry.until_available(store.progress), found[0].number
        if self._numbers and not progress.own and first > progress.tried:
            await retry.until_available(store.begin_generation, progress.generation)
            progress = await retry.until_available(store.progress)
        # What was sent before this hold is repeated under its own generation, and nothing else.
        last = progress.tried if self._numbers and not progress.own else None
        return LaneSource(lane, self._settler, self._effects, self._log, progress, first, last)

    async def _leave_to_newer(self, reason: NewerRecord) -> None:
        """Raise, when the effects are done and deadlines had their time to be applied."""
        await asyncio.sleep(self._lane.shared.settings.lease)
        await self._lane.changes.until(lambda: not len(self._effects))
        if not await self._log.read(0, _LOOK, 1, mark=False) and self._log.newer is not None:
            raise reason

    async def _connect(self, source: LaneSource) -> None:
        """Open a connection, send over it until it ends, and close it."""
        receipts = self._lane.counters.receipts
        producer: Producer | None = None
        session: Session | None = None
        try:
            try:
                producer = await self._prepare(source)
                self._in_flight.opening(producer)
                await producer.open()
                session = self._make_session(producer, source)
                self._in_flight.opened(session)
                self._lane.machine.apply(Event.OPENED)
                await session.run()
                event = Event.SESSION_OVER
            except (
                *(HandshakeRefused, LinkBroken, ConfigurationError),
                *(SequenceMismatch, DeduplicationUnavailable),
            ) as error:
                event = await self._judge(error, source, producer)
            self._lane.machine.apply(event)
        finally:
            self._in_flight.closed()
            self._lane.changes.notify()
            if producer is not None:
                try:
                    await producer.close()
                finally:
                    producer.abort()
        # A put must not mark a message that nobody can send: it would count as perhaps sent.
        await self._lane.retry.until_available(self._lane.store.expect_nothing)
        if session is not None and session.pause is not None:
            await self._pause(session.pause)
        if event is not Event.LINK_BROKEN or self._lane.counters.receipts > receipts:
            self._backoff.reset()

    async def _prepare(self, source: LaneSource) -> Producer:
        """Return the producer of the next connection."""
        options, producers = self._lane.options, self._lane.shared.services.producers
        index = self._lane.store.lane.index
        partitioned = options.partitions is not None
        topic = self._topic.partition(index) if partitioned else self._topic
        query = {}
        if self._numbers:
            if not self._deduplicates:
                await producers.require_deduplication(topic, options)
                self._deduplicates = True
            query = producer_query(index, source.progress.generation, source.first)
        return producers.make(topic, options, query)

    def _make_session(self, producer: Producer, source: LaneSource) -> Session:
        options, lane = self._lane.options, self._lane
        numbered = None
        if self._numbers:
            partition = -1 if options.partitions is None else lane.store.lane.index
            numbered = Numbered(source.progress.tried, partition)
        rules = SessionRules(
            receipt_timeout=lane.shared.settings.receipt_timeout,
            sent_before=source.progress.sent,
            may_send=self._lease.may_send,
            numbered=numbered,
            policy=self._rules.policy_of,
            limit=lambda: self._suspicion.limit(source.after, self._in_flight.window),
            on_send=lane.telling.sent,
            on_late=self._settler.stored_late,
        )
        return Session(
            producer,
            self._topic,
            source,
            self._settler.give,
            self._in_flight.window,
            rules,
            lane.counters,
        )

    async def _judge(
        self, error: Exception, source: LaneSource, producer: Producer | None
    ) -> Event:
        """Return the event that the end of a connection is for the lane."""
        name = self._lane.name
        self._lane.telling.lost(error, list(self._in_flight.window))
        match error:
            case HandshakeRefused(permanent=True):
                logger.error("Pulsar refuses it: %s", error, lane=name)
                refusal = _Refusal(error.sentence, f"http-{error.status}", source.sent)
                return await self._apply_policy(refusal)
            case DeduplicationUnavailable():
                logger.error("%s", error, lane=name)
                self._deduplicates = False
                refusal = _Refusal(error.sentence, error.code, source.sent)
                return await self._apply_policy(refusal)
            case HandshakeRefused():
                logger.warning("Pulsar refuses it for now: %s", error, lane=name)
                return Event.LINK_BROKEN
            case SequenceMismatch():
                logger.warning("connects again with the right number: %s", error, lane=name)
                self._suspect(error, source)
            case LinkBroken():
                logger.warning("%s", error, lane=name)
                self._suspect(error, source)
            case _:
                logger.warning("%s", error, lane=name)
        if producer is not None:
            # Nobody reads any more: a close frame would wait seconds for its answer in vain.
            producer.abort()
        if isinstance(error, SequenceMismatch) and error.regenerate:
            generation = source.progress.generation
            await self._lane.retry.until_available(self._lane.store.begin_generation, generation)
        return Event.LINK_BROKEN

    async def _apply_policy(self, refusal: _Refusal) -> Event:
        """Return what the refusal of the whole topic means by the policy of its error."""
        failure = Failure(context="", reason=refusal.reason, code=refusal.code)
        match self._rules.policy_of(failure):
            case Policy.RETRY:
                return Event.LINK_BROKEN
            case Policy.PAUSE:
                await self._pause(failure)
        self._refusal = refusal
        return Event.REFUSED

    async def _pause(self, failure: Failure) -> None:
        """Stop the lane before a message that is not to fail.

        Raises:
            Fenced: always; the lease is the pause's now.
        """
        why = f"the policy of {error_class(failure)} {failure.code}"
        logger.error(
            "paused by %s, until `celery stargate resume`: %s",
            *(why, failure.reason),
            lane=self._lane.name,
        )
        # What has its outcome must not be sent again after the pause.
        await self._settler.until_at_most(0)
        await self._lane.retry.until_available(self._lane.store.pause, why, _PAUSE)
        raise Fenced

    def _suspect(self, error: LinkBroken | SequenceMismatch, source: LaneSource) -> None:
        """Fail the message that breaks each connection, as soon as it is found."""
        found = self._suspicion.broke(
            error,
            list(self._in_flight.window),
            forgotten=self._in_flight.window.forgotten,
            sent_before=source.progress.sent,
            receipts=self._lane.counters.receipts,
            topic=self._lane.store.lane.topic,
        )
        if found is not None:
            entry, failure = found
            logger.error(
                "message %d fails as %s, because it breaks each connection: %s",
                entry.number,
                failure.status,
                failure.reason,
                lane=self._lane.name,
            )
            self._settler.give(entry, failure)
            self._backoff.reset()

    async def _refuse(self, refusal: _Refusal) -> None:
        """Fail every message in the log."""
        store, after = self._lane.store, 0
        while entries := await self._log.read(after, 100, self._log.bytes_at_most, mark=False):
            after = entries[-1].number
            for entry in entries:
                failure = Failure(
                    context=entry.context,
                    topic=store.lane.topic,
                    status=failure_status(entry.number, refusal.sent),
                    reason=refusal.reason,
                    code=refusal.code,
                )
                self._settler.give(entry, failure)
            await self._settler.until_at_most(_REFUSALS)
