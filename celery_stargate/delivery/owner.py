"""Own one lane: send its messages in order, settle, see to effects and deadlines."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from celery_stargate.delivery.renewals import Renewals
from celery_stargate.delivery.watcher import Watcher
from celery_stargate.effects.run import Effects
from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.connections import UNAVAILABLE
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import Fenced, LaneTick, LeasedLane, StoreRolledBack
from celery_stargate.lanes.record import Settled
from celery_stargate.model.entry import Entry, label_of
from celery_stargate.model.follow_up import Decision, Remaining, ResultRow
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.deduplication import MakeProducer
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.sequence import (
    DeduplicationUnavailable,
    Numbered,
    SequenceMismatch,
    leading_run,
    producer_query,
)
from celery_stargate.pulsar.session import Counters, Session
from celery_stargate.pulsar.window import Window
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.cancel import cancel_all
from celery_stargate.support.log import logger

__all__ = ["LaneOwner", "Tools"]

#: Seconds after which an empty lane leaves the list of lanes; callers who use one announce it far
#: more often.
RETIRE_AFTER = 3600.0

_Result = TypeVar("_Result")

#: How many outcomes one script settles at most: a script must not hold Redis for long.
_SETTLE_BATCH = 200
#: With so many messages in flight more receipts are about to come, and for so many seconds one
#: script waits for them: to settle few at a time would cost as much as all the rest.
_COALESCE_ABOVE, _COALESCE_DELAY = 100, 0.005
#: How many contexts one round in the effects' thread has at most.
_EFFECTS_BATCH = 100


#: So many looks in a row must find messages that nobody is about to send.
_UNREAD_TICKS = 2


class UnreadBacklog(Exception):
    """The lane holds messages that were read before: Redis came back with an older state.

    Whoever owns it next reads it from its beginning.
    """


@dataclass(frozen=True, slots=True)
class Tools:
    """What the owners of a process's lanes share."""

    #: Makes a producer that is to be opened.
    producer: MakeProducer
    #: Asks whether the broker deduplicates a topic, as
    #: :func:`~celery_stargate.deduplication.require_deduplication` does.
    deduplicates: Callable[[Topic, ProducerOptions], Awaitable[None]]
    effects: Effects
    executor: Executor
    watcher: Watcher
    renewals: Renewals
    #: Seconds a lease lasts without a renewal.
    lease: float
    #: Seconds after which a message without a receipt makes the connection be made anew.
    receipt_timeout: float
    #: Seconds without a message after which the socket is closed.
    idle_timeout: float
    #: Whether a context was revoked, as Celery's worker knows it.
    revoked: Callable[[str], bool]
    #: Take a lane out of the list of lanes, unless it was used of late; say whether it is out.
    deregister: Callable[[Lane], Awaitable[bool]]
    #: Put it into the list again.
    register: Callable[[Lane], Awaitable[None]]
    #: The clock of leases and of what idles, in seconds.
    monotonic: Callable[[], float]
    #: Draws the jitter between two tries.
    uniform: Callable[[float, float], float] = random.uniform


class LaneOwner:
    """Owns a lane from when its lease was taken until it is released or lost.

    Arguments:
        store: the lane in Redis, its lease taken.
        options: of the lane's topic.
        tools: shared among lanes.
    """

    def __init__(self, store: LeasedLane, options: ProducerOptions, tools: Tools) -> None:
        self.lane = store.lane
        self.counters = Counters()
        self._store = store
        self._options = options
        self._tools = tools
        self._topic = Topic.parse(store.lane.topic) if store.lane.has_messages else None
        #: Until when nobody else can have the lease, by this process's clock.
        self._ours_until = tools.monotonic() + tools.lease
        self._sent = 0
        self._numbers = options.delivery == "effectively_once"
        #: The last number that may have been sent under the generation's name.
        self._tried = 0
        self._generation = ""
        self._deduplicates = False
        self._outcomes: list[tuple[Entry, Outcome]] = []
        #: Labels that have an outcome which Redis does not know yet.
        self._settling: set[str] = set()
        #: Whether Redis refused to store results in the step that settles.
        self._results_later = False
        self._settle_now = asyncio.Event()
        self._effects: asyncio.Queue[Settled] = asyncio.Queue()
        #: Contexts whose effects are queued here or being done.
        self._in_effects: set[str] = set()
        self._done_some = asyncio.Event()
        self._stopping = asyncio.Event()
        self._draining = False
        #: Whether messages are on their way from the lane to the socket.
        self._feeding = False
        #: Whether the lane was read to its end, and more is waited for.
        self._at_end = False
        self._producer: Producer | None = None
        self._session: Session | None = None
        self._window = Window(options.window_size, options.max_in_flight_bytes)

    @property
    def descriptor(self) -> int | None:
        """The file descriptor of the lane's socket, where it has one."""
        return None if self._producer is None else self._producer.descriptor

    async def run(self) -> None:
        """Own the lane; return when it is released, lost, or must be read from its beginning."""
        work: list[Coroutine[Any, Any, None]] = [
            self._keep(),
            self._settle(),
            self._do_effects(),
        ]
        if self._topic is not None:
            work.append(self._publish(self._topic))
        tasks = [asyncio.ensure_future(each) for each in work]
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for each in done - {stopping}:
                each.result()
        except (Fenced, UnreadBacklog, StoreRolledBack) as ended:
            await cancel_all([*tasks, stopping])
            await self._end(ended)
            await self._hand_in()
        finally:
            await cancel_all([*tasks, stopping])

    async def _end(self, ended: Exception) -> None:
        """Say why the ownership ends, and see to it that the next one begins well."""
        if isinstance(ended, Fenced):
            logger.warning("lane %s: another owner has it now", self.lane.name)
        elif isinstance(ended, UnreadBacklog):
            logger.warning("lane %s: it holds messages again that had left it", self.lane.name)
        else:
            logger.error(
                "lane %s: Redis came back with an older state: what it forgot is lost or comes "
                "twice",
                self.lane.name,
            )
            with suppress(Fenced):
                await self._retry_until_available(self._store.begin_generation, "")

    async def _hand_in(self) -> None:
        """Without the lease, settle the receipts that are here: an ok counts from anyone."""
        triples = [(entry.context, entry.place, outcome) for entry, outcome in self._outcomes]
        try:
            settled, _, _ = await self._store.settle(triples, uuid.uuid4().hex)
            done = await asyncio.get_running_loop().run_in_executor(
                self._tools.executor, self._tools.effects.run, settled
            )
            await self._store.finish(done)
        except UNAVAILABLE as error:
            logger.warning("lane %s: receipts are left to the owner: %s", self.lane.name, error)

    @property
    def _busy(self) -> bool:
        """Whether something is under way that the next owner would have to find out about."""
        # Without the new generation, he would take what must be sent again for sent.
        misaligned = self._session is not None and self._session.misaligned
        return bool(
            self._feeding or len(self._window) or self._settling or self._in_effects or misaligned
        )

    async def drain(self, timeout: float) -> None:
        """Send nothing new, wait for what is in flight, and give the lane back."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout):
                while self._busy:
                    self._done_some.clear()
                    await self._done_some.wait()
        except TimeoutError:
            logger.warning(
                "lane %s: %d messages without a receipt are left to the next owner",
                self.lane.name,
                len(self._window),
            )
        self._stopping.set()

    # Deadlines, renewal, and effects that were left over.

    async def _keep(self) -> None:
        await self._take_over()
        empty_since = self._tools.monotonic()
        # Outbox that rest together must not all retire at once, each by a connection of its own.
        retire_after = RETIRE_AFTER + self._tools.uniform(0.0, RETIRE_AFTER / 10)
        overlooked = 0
        while True:
            tick = await self._retry_until_available(self._renew)
            at_rest = self._at_end and not len(self._window) and not self._settling
            overlooked = overlooked + 1 if tick.backlog and at_rest else 0
            if overlooked > _UNREAD_TICKS:
                raise UnreadBacklog
            if tick.contexts or not self.lane.has_messages:
                empty_since = self._tools.monotonic()
            elif self._tools.monotonic() - empty_since > retire_after and await self._retire():
                return
            if tick.due:
                self._queue_effects(await self._retry_until_available(self._store.due))
            if tick.idle:
                until = empty_since + retire_after if self.lane.has_messages else math.inf
                await self._tools.renewals.renew_in_background(self._store, until, self._renewed)
                continue
            wait = min(1.0, self._tools.lease / 3) if tick.contexts else self._tools.lease / 3
            if tick.next_deadline is not None:
                if tick.next_deadline <= 0:
                    self._queue_effects(await self._retry_until_available(self._store.expire))
                    continue
                wait = min(wait, tick.next_deadline + 0.001)
            await asyncio.sleep(wait)

    async def _renew(self) -> LaneTick:
        asked = self._tools.monotonic()
        tick = await self._tools.renewals.tick(self._store)
        self._renewed(asked)
        return tick

    def _renewed(self, asked: float) -> None:
        self._ours_until = asked + self._tools.lease
        if self._session is not None:
            self._session.look_again()

    async def _retire(self) -> bool:
        """Forget a lane that has long been empty; return whether it is gone."""
        if not await self._retry_until_available(self._tools.deregister, self.lane):
            return False
        if await self._retry_until_available(self._store.retire):
            logger.info("lane %s: long empty, and retired", self.lane.name)
            return True
        await self._retry_until_available(self._tools.register, self.lane)
        return False

    async def _take_over(self) -> None:
        """Do the effects that the last owner left."""
        offset = 0
        while found := await self._retry_until_available(self._store.due, offset):
            self._queue_effects(found)
            offset += len(found)

    # Messages.

    async def _publish(self, topic: Topic) -> None:
        partitioned = self._options.partitions is not None
        place = topic.partition(self.lane.index) if partitioned else topic
        backoff = Backoff(uniform=self._tools.uniform)
        while True:
            # What has its outcome already must not be read from the lane, and sent, again.
            await self._settled_all()
            first = await self._wait_for_messages()
            progress = await self._retry_until_available(self._store.progress)
            self._sent, self._tried = progress.sent, progress.tried
            self._generation = progress.generation
            receipts = self.counters.receipts
            producer: Producer | None = None
            try:
                if self._numbers and not self._deduplicates:
                    await self._tools.deduplicates(place, self._options)
                    self._deduplicates = True
                query = producer_query(self.lane, self._generation, first) if self._numbers else {}
                producer = self._producer = self._tools.producer(place, self._options, query)
                await producer.open()
                self._session = self._make_session(producer, topic, first - 1)
                await self._session.run()
            except HandshakeRefused as refused:
                if refused.permanent:
                    logger.error("lane %s: Pulsar refuses it: %s", self.lane.name, refused)
                    await self._refuse(refused.sentence, f"http-{refused.status}")
                    backoff.reset()
                else:
                    logger.warning("lane %s: not now: %s", self.lane.name, refused)
            except DeduplicationUnavailable as unfit:
                logger.error("lane %s: %s", self.lane.name, unfit)
                self._deduplicates = False
                await self._refuse(unfit.sentence, unfit.code)
                backoff.reset()
            except SequenceMismatch as misaligned:
                logger.warning("lane %s: numbered anew: %s", self.lane.name, misaligned)
                if producer is not None:
                    producer.abort()
                if misaligned.regenerate:
                    self._generation = await self._retry_until_available(
                        self._store.begin_generation, self._generation
                    )
            except (LinkBroken, ConfigurationError) as error:
                logger.warning("lane %s: %s", self.lane.name, error)
                if producer is not None:
                    # Nobody reads what stands before the answer to a close frame: it would wait
                    # for that in vain, for seconds.
                    producer.abort()
            else:
                backoff.reset()
                continue
            finally:
                self._session = None
                if producer is not None:
                    await self._close(producer)
            if self.counters.receipts > receipts:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    async def _close(self, producer: Producer) -> None:
        # What has no outcome is read from the lane again, by the next session.
        for entry in self._window:
            self._window.remove(entry.label)
        self._feeding = False
        self._done_some.set()
        try:
            await producer.close()
        finally:
            producer.abort()

    async def _wait_for_messages(self) -> int:
        """Return the first message's number when the lane holds one."""
        while True:
            if self._draining:
                await _for_ever()
            if found := await self._retry_until_available(self._store.read, 0, 1, 1, mark=False):
                return found[0].number
            await self._tools.watcher.wait(self._store.log_key, 0, self._tools.idle_timeout)

    async def _settled_all(self) -> None:
        while self._settling:
            self._done_some.clear()
            await self._done_some.wait()

    def _make_session(self, producer: Producer, topic: Topic, after: int) -> Session:
        """Return a session over the messages after a number."""
        sent_before = self._sent
        numbered = None
        if self._numbers:
            index = -1 if self._options.partitions is None else self.lane.index
            numbered = Numbered(self._tried, index)

        #: Whether the lane may hold more than was read.
        more = True

        async def source(count: int, size: int) -> Sequence[Entry]:
            nonlocal after, more
            while True:
                # What was given before is in the window now, all of it.
                self._feeding = False
                self._done_some.set()
                if self._draining:
                    # Stay to hear the receipts; when drain() ends, this is cancelled.
                    await _for_ever()
                while len(self._in_effects) > 2 * self._options.max_in_flight:
                    # Effects cannot keep up: the backlog waits in Redis, not in our memory.
                    self._done_some.clear()
                    await self._done_some.wait()
                if not more:
                    if not await self._more_after(after):
                        return ()
                    more = True
                    continue
                self._feeding = True
                entries = await self._retry_until_available(
                    self._store.read, after, count, size, mark=True, gapless=self._numbers
                )
                if not entries:
                    self._feeding = False
                    if self._numbers and await self._gap_after(after):
                        return ()
                # What stands behind them would have come, too. Should there be something all the
                # same, whoever waits for it is told at once.
                more = len(entries) == count or 2 * sum(len(each.frame) for each in entries) > size
                if not entries:
                    continue
                last = entries[-1].number
                self._sent, self._tried = max(self._sent, last), max(self._tried, last)
                wanted = [each for each in entries if not self._revoked(each, sent_before)]
                if len(wanted) < len(entries):
                    # Before anything behind a revoked one goes: the next owner would not know that
                    # it was revoked, and send it after all.
                    await self._settled_all()
                if self._numbers:
                    # Beyond a gap Pulsar's numbers would not be the lane's: another session.
                    wanted = leading_run(wanted, after)
                    if not wanted:
                        self._feeding = False
                        return ()
                    last = wanted[-1].number
                after = last
                if wanted:
                    return wanted

        return Session(
            producer,
            topic,
            source,
            self._give,
            self._window,
            receipt_timeout=self._tools.receipt_timeout,
            sent_before=sent_before,
            may_send=lambda: self._tools.monotonic() < self._ours_until,
            numbered=numbered,
            counters=self.counters,
        )

    async def _more_after(self, number: int) -> bool:
        """Wait until the lane holds a message after a number; False where it idles for long."""
        self._at_end = True
        try:
            return await self._tools.watcher.wait(
                self._store.log_key, number, self._tools.idle_timeout
            )
        finally:
            self._at_end = False

    async def _gap_after(self, number: int) -> bool:
        """Whether the next message's number does not follow this one."""
        found = await self._retry_until_available(self._store.read, number, 1, 1, mark=False)
        return bool(found) and found[0].number != number + 1

    def _revoked(self, entry: Entry, sent_before: int) -> bool:
        """Refuse a message whose task was revoked, unless it may have been sent already."""
        if entry.number <= sent_before or not self._tools.revoked(entry.context):
            return False
        if entry.label in self._settling:
            return True
        failure = Failure(
            context=entry.context,
            topic=self.lane.topic,
            reason="the task was revoked before it was sent",
            code="revoked",
        )
        self._give(entry, failure)
        return True

    async def _refuse(self, reason: str, code: str) -> None:
        """Tell every message of the lane that Pulsar refuses it."""
        after = 0
        while entries := await self._retry_until_available(
            self._store.read, after, 100, 2**24, mark=False
        ):
            after = entries[-1].number
            for entry in entries:
                failure = Failure(
                    context=entry.context,
                    topic=self.lane.topic,
                    status="unknown" if entry.number <= self._sent else "refused",
                    reason=reason,
                    code=code,
                )
                self._give(entry, failure)
            while len(self._settling) > 1000:
                self._done_some.clear()
                await self._done_some.wait()

    # Outcomes.

    def _give(self, entry: Entry, outcome: Outcome) -> None:
        self._outcomes.append((entry, outcome))
        self._settling.add(entry.label)
        self._settle_now.set()

    async def _settle(self) -> None:
        while True:
            await self._settle_now.wait()
            self._settle_now.clear()
            while self._outcomes:
                if len(self._outcomes) < _SETTLE_BATCH and len(self._window) >= _COALESCE_ABOVE:
                    await asyncio.sleep(_COALESCE_DELAY)
                batch = self._outcomes[:_SETTLE_BATCH]
                settled, late, fenced = await self._settle_batch(batch)
                del self._outcomes[: len(batch)]
                self._settling.difference_update([entry.label for entry, _ in batch])
                if late:
                    self.counters.unmatched += late
                    logger.info(
                        "lane %s: %d outcomes came too late and changed nothing",
                        self.lane.name,
                        late,
                    )
                self._queue_effects(settled)
                self._done_some.set()
                if fenced:
                    raise Fenced

    async def _settle_batch(
        self, batch: Sequence[tuple[Entry, Outcome]]
    ) -> tuple[Sequence[Settled], int, bool]:
        """Settle some outcomes; return what :meth:`LeasedLane.settle` does."""
        ways = self._tools.effects.at_once(batch)
        later = [Remaining.FULL if isinstance(way, ResultRow) else way for way in ways]
        if self._results_later or later == ways:
            return await self._settle_ways(batch, later)
        try:
            return await self._settle_ways(batch, ways)
        except UNAVAILABLE:
            raise
        except ResponseError:
            # It would refuse it again, and the messages would be sent again and again.
            self._results_later = True
            logger.error(
                "lane %s: Redis refuses to settle messages and store their results in one step; "
                "results are stored after it. Let its user SET and PUBLISH the keys of results",
                self.lane.name,
            )
            return await self._settle_ways(batch, later)

    async def _settle_ways(
        self, batch: Sequence[tuple[Entry, Outcome]], ways: Sequence[Decision]
    ) -> tuple[Sequence[Settled], int, bool]:
        fire_and_forget, results, triples = [], [], []
        for (entry, outcome), way in zip(batch, ways, strict=True):
            if way is Remaining.FULL:
                triples.append((entry.context, entry.place, outcome))
            elif way is Remaining.NOTHING:
                fire_and_forget.append(entry.label)
            else:
                results.append((entry.label, way))
        settled: Sequence[Settled] = ()
        late, fenced = 0, False
        if fire_and_forget or results:
            token = uuid.uuid4().hex
            late, fenced = await self._retry_until_available(
                self._store.complete, fire_and_forget, results, token
            )
        if triples:
            token = uuid.uuid4().hex
            settled, more, lost = await self._retry_until_available(
                self._store.settle, triples, token
            )
            late, fenced = late + more, fenced or lost
        return settled, late, fenced

    def _queue_effects(self, settled: Iterable[Settled]) -> None:
        for each in settled:
            context = each.record.context
            if context not in self._in_effects:
                self._in_effects.add(context)
                self._effects.put_nowait(each)
            if self._session is not None:
                count = len(each.outcomes)
                places = range(count) if count > 1 else (-1,)
                self._session.forget(label_of(context, place) for place in places)

    async def _do_effects(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._effects.get()]
            while len(batch) < _EFFECTS_BATCH and not self._effects.empty():
                batch.append(self._effects.get_nowait())
            done = await loop.run_in_executor(self._tools.executor, self._tools.effects.run, batch)
            if done:
                await self._retry_until_available(self._store.finish, done)
            self._in_effects.difference_update(each.record.context for each in batch)
            self._done_some.set()

    async def _retry_until_available(
        self, call: Callable[..., Awaitable[_Result]], *args: Any, **kwargs: Any
    ) -> _Result:
        """Call Redis until it answers. What must not be done twice has a token."""
        backoff = Backoff(longest=1.0, uniform=self._tools.uniform)
        while True:
            try:
                return await call(*args, **kwargs)
            except UNAVAILABLE as error:
                wait = backoff.next()
                logger.warning("lane %s: Redis does not answer: %s", self.lane.name, error)
                await asyncio.sleep(wait)


async def _for_ever() -> None:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()
