"""The simulated Pulsar: topics, producers by name, deduplication, and sockets that break."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

import msgspec

from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.link import Blame, HandshakeRefused, LinkBroken
from celery_stargate.testing.local_pulsar.message_id import NOT_STORED, MessageId
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Process, VirtualLoop

__all__ = ["Broker", "SimulatedProducer", "Stored"]

_CLIENT = "org.apache.pulsar.client.api.PulsarClientException$"
_TRANSIENT = (
    f"{_CLIENT}TimeoutException: not now",
    f"{_CLIENT}ProducerQueueIsFullError: Producer send queue is full",
    "something new",
)
#: By these a client knows that nothing behind the message is stored.
_LAST = (
    f"{_CLIENT}AlreadyClosedException: Producer already closed",
    f"{_CLIENT}ProducerFencedException: fenced",
)
_PERMANENT = f"{_CLIENT}NotAllowedException: never"


class _Frame(msgspec.Struct):
    context: str
    #: What the ledger knows the message by: contexts are used again. A receipt has none.
    payload: bytes = b""


_decode = msgspec.json.Decoder(_Frame).decode
_NOT_STORED = NOT_STORED.encode()


class World(Protocol):
    """What the broker needs to know of the world."""

    loop: VirtualLoop
    faults: Faults
    over: bool

    def latency(self) -> float:
        """Draw how long something takes on its way, in seconds."""

    def strike(self, process: Process, where: str) -> bool:
        """Crash or pause a process here, perhaps; return whether it was done."""

    def note(self, text: str) -> None:
        """Write a line of the trace."""


class Stored(NamedTuple):
    """A message in a topic."""

    label: str
    producer: str
    number: int


class _Topic:
    """One topic, or one partition: messages in order, the names in use, the last numbers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.labels: set[str] = set()
        self.persistent = name.startswith("persistent:")
        self.messages: list[Stored] = []
        self.links: dict[str, _Link] = {}
        self.last: dict[str, int] = {}


class Broker:
    """The broker with its WebSocket service.

    Arguments:
        deduplicates: whether it looks at numbers.
        idle: seconds after which a session whose client is silent is dropped.
        ping: seconds after which a client finds out that its connection is dead.
        ledger: is told of what no client can know.
    """

    def __init__(
        self, world: World, *, deduplicates: bool, idle: float, ping: float, ledger: Ledger
    ) -> None:
        self.deduplicates = deduplicates
        self.idle = idle
        self.ping = ping
        self.up = True
        #: The status with which every handshake is refused for good.
        self.forbidden = 0
        self.topics: dict[str, _Topic] = {}
        self.world = world
        self.ledger = ledger
        self.names = itertools.count()
        #: What each message does whenever it is sent, where it breaks its connection.
        self._poisons: dict[str, str | None] = {}

    def poison(self, label: str) -> str | None:
        """Tell how a message breaks its connections; None for most."""
        if label not in self._poisons:
            self._poisons[label] = self.world.faults.pick("poison")
        return self._poisons[label]

    def topic(self, name: str) -> _Topic:
        """A topic, made when missing."""
        try:
            return self.topics[name]
        except KeyError:
            found = self.topics[name] = _Topic(name)
            return found

    def links(self) -> list[_Link]:
        """All sessions that are open at the broker's side."""
        return [link for topic in self.topics.values() for link in topic.links.values()]

    def links_of(self, process: Process) -> list[_Link]:
        """Those of one process."""
        return [link for link in self.links() if link.process is process]

    def stop(self) -> None:
        """Die (SIGKILL): what is stored stays, and all sessions are gone."""
        self.up = False
        for link in self.links():
            link.end_at_broker()
            link.break_soon()

    def accept(self, process: Process, topic: _Topic, query: Mapping[str, str]) -> _Link:
        """Make a producer.

        Raises:
            HandshakeRefused: its name is taken.
        """
        name = query.get("producerName") or f"standalone-0-{next(self.names)}"
        if name in topic.links:
            raise HandshakeRefused(409, f"Producer with name '{name}' is already connected")
        initial = query.get("initialSequenceId")
        last = topic.last.get(name, -1) if initial is None else int(initial)
        link = topic.links[name] = _Link(self, process, topic, name, last + 1)
        return link


class _Link:
    """One session: a producer of one topic. Frames and receipts keep their order on the way."""

    def __init__(
        self, broker: Broker, process: Process, topic: _Topic, name: str, number: int
    ) -> None:
        self.process = process
        #: Receipts that came to the client and were not read.
        self.inbox: deque[bytes] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.broken = False
        #: What the end of the connection says to the client.
        self.blame = Blame.UNCLEAR
        self._broker = broker
        self._world = broker.world
        self._topic = topic
        self.name = name
        self.number = number
        self._open = True
        #: Nothing gets through any more, and neither side was told.
        self._silent = False
        #: Every message is answered with an error.
        self._failing = False
        #: The first that was, by its place among the frames.
        self._first_failed: int | None = None
        self._last_word = ""
        #: The frames that have no reply at the client: label, and place among them all.
        self._in_flight: dict[str, int] = {}
        self._frames = 0
        #: What Pulsar echoes for each message.
        self._contexts: dict[str, str] = {}
        self._up_at = self._down_at = 0.0

    # The client's side.

    def transmit(self, frame: bytes) -> None:
        """Put a frame on its way."""
        loop = self._world.loop
        self._frames += 1
        self._in_flight[_decode(frame).context] = self._frames
        self._up_at = max(self._up_at, loop.now + self._world.latency())
        loop.outside(self._up_at - loop.now, self._receive, frame)

    def let_go(self, word: bool) -> None:
        """The client closes or drops the socket, or its process has died.

        Arguments:
            word: whether what it has sent arrives before.
        """
        loop = self._world.loop
        self._tell_of_doubt()
        if not self._open:
            return
        if self._silent or self._world.faults.pick("close"):
            # The broker hears nothing of it.
            self._silent = True
            loop.outside(self._broker.idle, self.end_at_broker)
            return
        at = max(self._up_at, loop.now) if word else loop.now
        loop.outside(at - loop.now + self._world.latency(), self.end_at_broker)

    def _break(self) -> None:
        self.broken = True
        self._tell_of_doubt()
        _wake(self)

    def _tell_of_doubt(self) -> None:
        """Tell the ledger where the client cannot know what became of those behind an error."""
        failed = self._first_failed
        if failed is not None and not self._last_word:
            behind = any(place > failed for place in self._in_flight.values())
            if behind:
                self._broker.ledger.unreadable.add(self._topic.name)

    # The way.

    def cut(self) -> None:
        """Break the connection: what is on its way is lost."""
        if self._world.faults.pick("close"):
            self.fall_silent()
            return
        self._silent = True
        self._world.loop.outside(self._world.latency(), self.end_at_broker)
        self.break_soon()

    def fall_silent(self) -> None:
        """Lose everything in both directions from now on; each side finds out in its time."""
        self._silent = True
        self._world.loop.outside(self._broker.ping, self._break)
        self._world.loop.outside(self._broker.idle, self.end_at_broker)

    def break_soon(self) -> None:
        """The client hears that the connection is gone."""
        self._world.loop.outside(self._world.latency(), self._break)

    # The broker's side.

    def end_at_broker(self) -> None:
        """Drop the session: its name is free."""
        if self._open:
            self._open = False
            del self._topic.links[self.name]

    def drop(self) -> None:
        """The broker drops the session of a client that was silent for too long."""
        if self._open:
            self.end_at_broker()
            self.break_soon()

    def _receive(self, frame: bytes) -> None:
        world = self._world
        if not self._open or self._silent or world.over:
            return
        sent = _decode(frame)
        label = sent.payload.decode()
        self._contexts[label] = sent.context
        if self._failing:
            self._refuse(label, permanent=False)
            return
        if (poison := self._broker.poison(label)) is not None:
            self._spoil(label, poison)
            return
        fault = world.faults.pick("frame")
        if fault is None:
            self._reply(self._store(label))
            return
        world.note(f"{self.name}: {label!r}: {fault}")
        match fault:
            case "cut mid-frame":
                self.cut()
            case "link goes silent":
                if world.faults.random.random() < 0.5:
                    self._store(label)
                self.fall_silent()
            case "cut before the receipt":
                self._store(label)
                self.cut()
            case "errors from there on":
                # The producer behind the socket is gone: nothing is stored behind the first error.
                self._failing = True
                if world.faults.random.random() < 0.5:
                    self._last_word = world.faults.random.choice(_LAST)
                self._refuse(label, permanent=False)
            case "error receipt, no context":
                self._broker.ledger.refused.add(label)
                self._broker.ledger.unreadable.add(self._topic.name)
                self._reply(b'{"result":"send-error:3","errorMsg":"bad JSON","errorCode":0}')
            case _:
                self._refuse(label, permanent=fault == "error receipt, permanent")

    def _spoil(self, label: str, poison: str) -> None:
        """Break at a message, which is stored never."""
        self._world.note(f"{self.name}: {label!r}: {poison}")
        self._broker.ledger.refused.add(label)
        if poison == "message unreadable":
            self._broker.ledger.unreadable.add(self._topic.name)
            self._reply(b'{"result":"send-error:3","errorMsg":"bad JSON","errorCode":0}')
            return
        if poison == "message too large":
            self.blame = Blame.FRAME_TOO_LARGE
        self._silent = True
        self._world.loop.outside(self._world.latency(), self.end_at_broker)
        self.break_soon()

    def _refuse(self, label: str, *, permanent: bool) -> None:
        random = self._world.faults.random
        if permanent:
            kind, text = random.choice(((7, "bad input"), (8, _PERMANENT)))
        else:
            kind, text = 8, self._last_word or random.choice(_TRANSIENT)
        if kind == 8 and random.random() < 0.5:
            # The broker refused it, and not the service before it: the number is used up.
            self.number += 1
        self._broker.ledger.refused.add(label)
        if self._first_failed is None:
            self._first_failed = self._in_flight.get(self._contexts[label], 0)
        said = {
            "result": f"send-error:{kind}",
            "errorMsg": text,
            "errorCode": 0,
            "context": self._contexts[label],
        }
        self._reply(msgspec.json.encode(said))

    def _store(self, label: str) -> bytes:
        """Store a message; return the receipt."""
        topic, number = self._topic, self.number
        self.number += 1
        if not topic.persistent:
            message_id = self._pass_on(label)
        elif self._broker.deduplicates and number <= topic.last.get(self.name, -1):
            message_id = _NOT_STORED
            if label not in topic.labels:
                # A false ok: what comes behind it may be stored.
                self._broker.ledger.refused.add(label)
        else:
            topic.labels.add(label)
            topic.last[self.name] = number
            message_id = MessageId(7, len(topic.messages)).encode()
            topic.messages.append(Stored(label, self.name, number))
        self._world.note(f"{self.name}: {label!r} is {number}: {message_id}")
        context = self._contexts[label]
        said = {"result": "ok", "messageId": message_id, "context": context, "errorCode": 0}
        return msgspec.json.encode(said)

    def _pass_on(self, label: str) -> str:
        """Hand a message of a non-persistent topic to its readers, unless too many wait."""
        if self._world.faults.pick("not persistent"):
            self._broker.ledger.refused.add(label)
            return _NOT_STORED
        self._topic.messages.append(Stored(label, self.name, self.number))
        return MessageId(0, 0).encode()

    def _reply(self, receipt: bytes) -> None:
        faults = self._world.faults
        fault = faults.pick("receipt")
        if fault is None:
            self._send(receipt)
            return
        self._world.note(f"{self.name}: {fault}")
        match fault:
            case "receipt lost":
                pass
            case "receipt twice":
                self._send(receipt)
                self._send(receipt)
            case "receipt garbled":
                self._broker.ledger.unreadable.add(self._topic.name)
                self._send(receipt[: faults.random.randrange(len(receipt))])
            case "receipt of nobody":
                self._send(b'{"result":"ok","messageId":"CAwQADAA","context":"nobody"}')
                self._send(receipt)
            case "receipt late":
                self._down_at = self._world.loop.now + 3.0 * faults.random.random()
                self._send(receipt)
            case "receipt overtaken":
                # Partitions answer for themselves.
                self._world.loop.outside(faults.random.random(), self._deliver, receipt)

    def _send(self, receipt: bytes) -> None:
        loop = self._world.loop
        self._down_at = max(self._down_at, loop.now + self._world.latency())
        loop.outside(self._down_at - loop.now, self._deliver, receipt)

    def _deliver(self, receipt: bytes) -> None:
        if not self._silent and not self.broken:
            self.inbox.append(receipt)
            with suppress(msgspec.DecodeError):
                self._in_flight.pop(_decode(receipt).context, None)
            _wake(self)


def _wake(link: _Link) -> None:
    if link.waiter is not None and not link.waiter.done():
        link.waiter.set_result(None)


class SimulatedProducer:
    """Stands where `Producer` does."""

    descriptor = None

    def __init__(
        self,
        broker: Broker,
        process: Process,
        topic: Topic,
        options: ProducerOptions,
        query: Mapping[str, str],
        open_timeout: float,
    ) -> None:
        self._broker = broker
        self._process = process
        self._topic = topic
        self._query = {**options.query(), **query}
        self._open_timeout = open_timeout
        self._link: _Link | None = None

    async def open(self) -> None:
        world = self._broker.world
        await self._step("open")
        fault = world.faults.pick("open")
        if fault is not None:
            world.note(f"{self._process.name}: open {self._query}: {fault}")
        if not self._broker.up or fault == "handshake broken":
            await asyncio.sleep(world.latency())
            raise LinkBroken("no connection")
        if fault == "handshake refused":
            await asyncio.sleep(world.latency())
            raise HandshakeRefused(world.faults.random.choice((409, 429, 500, 503, 504)), "not now")
        future: asyncio.Future[_Link] = world.loop.create_future()
        world.loop.outside(world.latency(), self._accept, future, fault == "handshake hangs")
        try:
            async with asyncio.timeout(self._open_timeout):
                self._link = await asyncio.shield(future)
        except TimeoutError:
            raise LinkBroken("no answer") from None
        finally:
            if self._link is None:
                # A producer that comes after we have gone is let go of at once.
                future.add_done_callback(_let_go_of)

    def _accept(self, future: asyncio.Future[_Link], hangs: bool) -> None:
        world, broker = self._broker.world, self._broker
        if world.over or not broker.up:
            future.set_exception(LinkBroken("no connection"))
            return
        if broker.forbidden:
            future.set_exception(HandshakeRefused(broker.forbidden, "Topic not found"))
            return
        try:
            link = broker.accept(self._process, broker.topic(str(self._topic)), self._query)
        except HandshakeRefused as refused:
            world.note(f"{self._process.name}: {refused}")
            future.set_exception(refused)
            return
        world.note(f"{self._process.name}: {link.name} is open at {link.number}")
        if not self._process.alive:
            # Its process died meanwhile: nothing else closes the producer.
            link.let_go(word=True)
        took = world.latency()
        if hangs:
            took += self._open_timeout * 2 * world.faults.random.random()
        world.loop.outside(took, future.set_result, link)

    async def send(self, *frames: bytes) -> None:
        await self._step("send")
        link = self._require()
        if link.broken:
            raise LinkBroken("the connection broke while sending", link.blame)
        for frame in frames:
            link.transmit(frame)
        world = self._broker.world
        if world.faults.random.random() < 0.1:
            await asyncio.sleep(world.latency())

    def rest(self, seconds: float) -> None:
        """Replies come together here as they are."""

    async def replies(self) -> AsyncIterator[list[bytes]]:
        link = self._require()
        while True:
            while link.inbox:
                together = list(link.inbox)
                link.inbox.clear()
                yield together
            if link.broken:
                raise LinkBroken("the connection broke", link.blame)
            link.waiter = self._broker.world.loop.create_future()
            await link.waiter

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.let_go(word=True)
            await asyncio.sleep(self._broker.world.latency())

    def abort(self) -> None:
        link = self._link
        if link is not None:
            link.let_go(word=False)
            self._link = None

    async def _step(self, where: str) -> None:
        world = self._broker.world
        if world.faults.at_steps and world.strike(self._process, where):
            await asyncio.sleep(0)
        if world.over:
            raise LinkBroken("the run is over")

    def _require(self) -> _Link:
        if self._link is None:
            raise LinkBroken("the connection is not open")
        return self._link


def _let_go_of(future: asyncio.Future[_Link]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().let_go(word=True)
