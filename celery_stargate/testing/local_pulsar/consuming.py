"""The reader and consumer endpoints, and the subscriptions behind consumers."""

from __future__ import annotations

import asyncio
import base64
import heapq
import time
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from celery_stargate.model.hashing import partition_of
from celery_stargate.testing.local_pulsar.address import Address, choice, flag, natural
from celery_stargate.testing.local_pulsar.faults import Peer
from celery_stargate.testing.local_pulsar.message_id import MessageId
from celery_stargate.testing.local_pulsar.refusal import (
    Refusal,
    bad_query,
    broker_says,
    not_created,
)
from celery_stargate.testing.local_pulsar.topics import Cluster, StoredMessage, Topic, TopicError

_TYPES = ("Exclusive", "Failover", "Shared", "Key_Shared")
_WINDOW = 1000


class _Delivery(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    message_id: str
    payload: str
    properties: dict[str, str]
    publish_time: str
    redelivery_count: int
    event_time: str | None = None
    key: str | None = None


class _Command(msgspec.Struct, rename="camel"):
    type: str | None = None
    message_id: str | None = None
    permit_messages: int | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Command | None)


def _delivery(message: StoredMessage, redeliveries: int) -> bytes:
    return _encoder.encode(
        _Delivery(
            message_id=message.message_id.encode(),
            payload=base64.b64encode(message.payload).decode(),
            properties=message.properties,
            publish_time=_iso(message.publish_time_ms),
            redelivery_count=redeliveries,
            event_time=None if message.event_time_ms is None else _iso(message.event_time_ms),
            key=message.key,
        )
    )


def _iso(milliseconds: int) -> str:
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    rest = milliseconds % 1000
    # As Java prints it: the fraction without trailing zeros, and no fraction if it is 0.
    return text + (f".{rest:03}".rstrip("0") if rest else "") + "Z"


def _queue_size(query: dict[str, str]) -> int:
    return min(max(natural(query, "receiverQueueSize", _WINDOW), 1), _WINDOW)


class _Consumer(Protocol):
    """A consumer of a subscription."""

    name: str
    permits: int

    def deliver(self, message: StoredMessage, redeliveries: int) -> None: ...


class Subscription:
    """One subscription of one topic: its consumers, and the messages not yet acknowledged."""

    def __init__(self, topic: Topic, name: str, *, earliest: bool) -> None:
        self.topic = topic
        self.name = name
        self.type = _TYPES[0]
        self.consumers: list[_Consumer] = []
        self._next = 0 if earliest else len(topic.messages)
        self._again: list[int] = []  # a heap of positions
        self._delayed: list[tuple[int, int]] = []  # a heap of (due, position)
        self._pending: dict[int, _Consumer] = {}
        self._redeliveries: dict[int, int] = {}
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None
        topic.listeners.append(self)

    @property
    def backlog(self) -> int:
        """How many messages are not acknowledged."""
        waiting = len(self._again) + len(self._delayed) + len(self._pending)
        return len(self.topic.messages) - self._next + waiting

    def attach(self, consumer: _Consumer, kind: str) -> None:
        """Add a consumer.

        Raises:
            Refusal: 409, the subscription has another type or is exclusive.
        """
        if self.consumers:
            if self.type != kind:
                raise not_created(
                    409,
                    f"Subscription is of different type. Active subscription type of '{self.type}' "
                    f"is different than the connecting consumer's type '{kind}'.",
                )
            if kind == "Exclusive":
                raise not_created(409, "Exclusive consumer is already connected")
        self.type = kind
        if not self.topic.persistent and not self.consumers:
            self._next = len(self.topic.messages)  # nothing was kept for it
        self.consumers.append(consumer)

    def detach(self, consumer: _Consumer) -> None:
        """Remove a consumer; its pending messages go to the others or to the next one."""
        self.consumers.remove(consumer)
        for position in [at for at, owner in self._pending.items() if owner is consumer]:
            del self._pending[position]
            heapq.heappush(self._again, position)
        if not self.consumers:
            self._redeliveries.clear()
        self.dispatch()

    def remove(self) -> None:
        """The subscription ends."""
        self.topic.listeners.remove(self)
        self._forget()

    def emptied(self) -> bool:
        """Begin anew in an empty topic; return whether a consumer is connected."""
        self._forget()
        return bool(self.consumers)

    def _forget(self) -> None:
        self._next = 0
        for kept in (self._again, self._delayed, self._pending, self._redeliveries):
            kept.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def acknowledge(self, message_id: MessageId) -> None:
        """Acknowledge a message. As in the broker, an unknown one is ignored."""
        self._pending.pop(self.topic.index.get(message_id, -1), None)

    def again(self, message_id: MessageId) -> None:
        """Deliver a message again."""
        position = self.topic.index.get(message_id, -1)
        owner = self._pending.pop(position, None)
        if owner is None:
            return
        positions = [position]
        if self.type in _TYPES[:2]:
            # These deliver everything again that the consumer has not acknowledged, in order.
            positions += [at for at, who in self._pending.items() if who is owner]
            for at in positions[1:]:
                del self._pending[at]
        for at in positions:
            self._redeliveries[at] = self._redeliveries.get(at, 0) + 1
            heapq.heappush(self._again, at)
        self.dispatch()

    def dispatch(self) -> None:
        """Deliver what can be delivered."""
        messages = self.topic.messages
        now = int(time.time() * 1000)
        while self._delayed and self._delayed[0][0] <= now:
            heapq.heappush(self._again, heapq.heappop(self._delayed)[1])
        while self._again or self._next < len(messages):
            position = self._again[0] if self._again else self._next
            message = messages[position]
            due = message.deliver_at_ms
            late = due is not None and due > now and self.type in _TYPES[2:]
            consumer = None if late else self._choose(message)
            if not late and consumer is None:
                break
            if self._again:
                heapq.heappop(self._again)
            else:
                self._next += 1
            if consumer is None:
                heapq.heappush(self._delayed, (due or 0, position))
                continue
            if self.topic.persistent:
                self._pending[position] = consumer
            consumer.permits -= 1
            consumer.deliver(message, self._redeliveries.get(position, 0))
        if self._delayed and self._timer is None:
            wait = max(self._delayed[0][0] - now, 1) / 1000
            self._timer = asyncio.get_running_loop().call_later(wait, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.dispatch()

    def _choose(self, message: StoredMessage) -> _Consumer | None:
        if not self.consumers:
            return None
        if self.type in _TYPES[:2]:
            chosen = self.consumers[0]
        elif self.type == "Key_Shared":
            chosen = self.consumers[
                partition_of(message.key or "", len(self.consumers), "Murmur3_32Hash")
            ]
        else:
            for _ in self.consumers:
                self._turn += 1
                chosen = self.consumers[self._turn % len(self.consumers)]
                if chosen.permits > 0:
                    break
        return chosen if chosen.permits > 0 else None

    @property
    def at_end(self) -> bool:
        """Whether the topic is terminated and all its messages are acknowledged."""
        return self.topic.terminated and not self.backlog


class ConsumerEndpoint:
    """A consumer's socket.

    Raises:
        Refusal: a bad query, an occupied subscription, or a topic that cannot be used.
    """

    kind = "consumer"

    def __init__(self, address: Address, peer: Peer, cluster: Cluster) -> None:
        query = address.query
        self.topic = address.topic
        self.name = query.get("consumerName", "")
        self._peer = peer
        kind = choice(query, "subscriptionType", _TYPES)
        choice(query, "subscriptionMode", ("Durable", "NonDurable"))
        earliest = (
            choice(query, "subscriptionInitialPosition", ("Latest", "Earliest")) == "Earliest"
        )
        self._nack_delay = natural(query, "negativeAckRedeliveryDelay", 60_000, "redeliveryDelay")
        timeout = natural(query, "ackTimeoutMillis", 0, "ackTimeout")
        if 0 < timeout < 1000:
            raise bad_query("Ack timeout should be greater than 1000 ms")
        self._pull = flag(query, "pullMode")
        self.permits = _queue_size(query)
        if self._pull:
            self.permits = 0
        self._subscriptions: list[Subscription] = []
        self._timers: set[asyncio.TimerHandle] = set()
        for topic in cluster.parts(address.topic):
            found = subscription(topic, address.subscription)
            if found is None:
                found = Subscription(topic, address.subscription, earliest=earliest)
            try:
                found.attach(self, kind)
            except Refusal:
                self.closed()
                raise
            self._subscriptions.append(found)

    def opened(self) -> None:
        """Deliver what is waiting; the socket is open now."""
        for found in self._subscriptions:
            found.dispatch()

    def deliver(self, message: StoredMessage, redeliveries: int) -> None:
        """Send a message."""
        self._peer.write(_delivery(message, redeliveries))

    def received(self, text: bytes) -> None:
        """Process a command."""
        try:
            command = _decoder.decode(text)
        except (msgspec.MsgspecError, ValueError):
            self._peer.close(None)
            return
        match command.type if command is not None else "":
            case "unsubscribe":
                if any(len(found.consumers) > 1 for found in self._subscriptions):
                    self._peer.close(None)
                    return
                for found in self._subscriptions:
                    found.detach(self)
                    found.remove()
                self._subscriptions.clear()
            case "isEndOfTopic":
                done = all(found.at_end for found in self._subscriptions)
                self._peer.write(_encoder.encode({"endOfTopic": done}))
            case "permit":
                if command is None or command.permit_messages is None:
                    self._peer.close(None)
                    return
                self.permits += command.permit_messages
                self.opened()
            case kind:
                self._done(command, again=kind == "negativeAcknowledge")

    def _done(self, command: _Command | None, *, again: bool) -> None:
        if command is None or command.message_id is None:
            self._peer.close_saying(
                1011,
                'Cannot invoke "String.getBytes(java.nio.charset.Charset)" because "src" is null',
            )
            return
        try:
            message_id = MessageId.decode(command.message_id)
        except ValueError:
            self._peer.close(None)
            return
        if not self._pull:
            self.permits += 1
        for found in self._subscriptions:
            if not again:
                found.acknowledge(message_id)
                continue
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self._nack_delay / 1000, found.again, message_id)
            self._timers.add(timer)
        self.opened()

    def closed(self) -> None:
        """Clean up; the socket is closed."""
        for timer in self._timers:
            timer.cancel()
        for found in self._subscriptions:
            found.detach(self)
        self._subscriptions.clear()


class _Place:
    """The position of a reader in one topic."""

    def __init__(self, reader: ReaderEndpoint, topic: Topic, position: int) -> None:
        self.topic = topic
        self.position = position
        self._reader = reader
        topic.listeners.append(self)

    def dispatch(self) -> None:
        messages = self.topic.messages
        while self.position < len(messages) and self._reader.permits > 0:
            self._reader.permits -= 1
            self.position += 1
            self._reader.deliver(messages[self.position - 1])

    def emptied(self) -> bool:
        """Begin anew in an empty topic; its reader is connected."""
        self.position = 0
        return True


class ReaderEndpoint:
    """A reader's socket. The client answers each message; without answers the window fills up.

    Raises:
        Refusal: a bad query, or a topic that cannot be used; always 500.
    """

    kind = "reader"

    def __init__(self, address: Address, peer: Peer, cluster: Cluster) -> None:
        self.topic = address.topic
        self.name = address.query.get("readerName", "")
        self._peer = peer
        self._places: list[_Place] = []
        try:
            self.permits = _queue_size(address.query)
            topics = cluster.parts(address.topic)
            start = address.query.get("messageId", "latest")
            wanted = None if start in ("earliest", "latest") else MessageId.decode(start)
        except Refusal as refusal:
            sentence = refusal.sentence.removeprefix("Invalid query params: ")
            raise Refusal(500, f"java.lang.NumberFormatException: {sentence}") from None
        except TopicError as error:
            raise Refusal(500, f"Failed to create reader: {broker_says(error.reason)}") from None
        except ValueError as error:
            raise Refusal(500, f"Failed to create reader: {error}") from None
        for topic in topics:
            position = 0
            if start == "latest":
                position = len(topic.messages)
            elif wanted is not None:
                # The message itself is not read again.
                position = sum(message.message_id <= wanted for message in topic.messages)
            self._places.append(_Place(self, topic, position))

    def opened(self) -> None:
        """Deliver what is there; the socket is open now."""
        for place in self._places:
            place.dispatch()

    def deliver(self, message: StoredMessage) -> None:
        """Send a message."""
        self._peer.write(_delivery(message, 0))

    def received(self, text: bytes) -> None:
        """Process a command: allow one more message."""
        try:
            command = _decoder.decode(text)
        except (msgspec.MsgspecError, ValueError):
            self._peer.close(None)
            return
        if command is not None and command.type == "isEndOfTopic":
            done = all(
                place.topic.terminated and place.position >= len(place.topic.messages)
                for place in self._places
            )
            self._peer.write(_encoder.encode({"endOfTopic": done}))
            return
        self.permits += 1
        self.opened()

    def closed(self) -> None:
        """Clean up; the socket is closed."""
        for place in self._places:
            place.topic.listeners.remove(place)


def subscription(topic: Topic, name: str) -> Subscription | None:
    """Return a topic's subscription by name, or None."""
    for listener in topic.listeners:
        if isinstance(listener, Subscription) and listener.name == name:
            return listener
    return None
