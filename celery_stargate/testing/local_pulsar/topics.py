"""What the stand-in stores: namespaces, topics, messages, and the numbers that deduplicate."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from celery_stargate.testing.local_pulsar.message_id import NOT_STORED, MessageId

_PARTITION = "-partition-"


class TopicError(Exception):
    """A topic or namespace that is not there, is there already, or cannot be had.

    Args:
        status: the HTTP status that the broker answers with.
        reason: its words.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     pulsar.terminate("persistent://nobody/nowhere/orders")
        Traceback (most recent call last):
        ...
        celery_stargate.testing.local_pulsar.topics.TopicError: ...
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class TopicTerminated(Exception):
    """Nothing can be stored in this topic any more."""


class Draft(msgspec.Struct):
    """A message on its way into a topic."""

    payload: bytes
    sequence_id: int
    producer: str
    context: str | None = None
    key: str | None = None
    properties: dict[str, str] = {}
    event_time_ms: int | None = None
    deliver_at_ms: int | None = None


class StoredMessage(msgspec.Struct, frozen=True):
    """A message in a topic.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     url = f"{pulsar.url}/ws/v2/producer/persistent/public/default/orders"
        ...     receipt = produce(url, ("order-17", "one lamp"))
        ...     [message] = pulsar.messages("persistent://public/default/orders")
        >>> message.key, message.payload
        ('order-17', b'one lamp')
    """

    #: Where it is stored.
    message_id: MessageId
    #: The payload, decoded.
    payload: bytes
    #: The key; None without one.
    key: str | None
    #: Its properties.
    properties: dict[str, str]
    #: Milliseconds since 1970, if it has an event time.
    event_time_ms: int | None
    #: When it was stored, in milliseconds since 1970.
    publish_time_ms: int
    #: Milliseconds since 1970, if its delivery is delayed.
    deliver_at_ms: int | None
    #: The name of its producer.
    producer: str
    #: Its number from that producer.
    sequence_id: int
    #: The label that the receipt echoed. A real broker does not keep it; tests like to have it.
    context: str | None


class Listener(Protocol):
    """Somebody who reads a topic."""

    def dispatch(self) -> None:
        """There may be something new."""

    def emptied(self) -> bool:
        """The topic was deleted: begin anew in an empty one, if somebody is connected.

        Returns:
            Whether somebody is.
        """


class Topic:
    """One topic, or one partition of one: messages in order."""

    def __init__(self, cluster: Cluster, name: str, partition: int = -1) -> None:
        self.cluster = cluster
        self.name = name
        self.partition = partition
        self.persistent = name.startswith("persistent://")
        self.messages: list[StoredMessage] = []
        self.index: dict[MessageId, int] = {}
        self.producers: set[str] = set()
        self.listeners: list[Listener] = []
        self.last_sequence: dict[str, int] = {}
        self.terminated = False
        self.deduplication: bool | None = None
        self.ledger = cluster.next_ledger()
        self._entry = 0

    @property
    def deduplicates(self) -> bool:
        """Whether numbers are looked at: by the topic's policy, the namespace's, the broker's."""
        if not self.persistent:
            return False
        if self.deduplication is not None:
            return self.deduplication
        by_namespace = self.cluster.namespace_of(self.name).deduplication
        return self.cluster.deduplication if by_namespace is None else by_namespace

    def last_number(self, producer: str) -> int:
        """The last number stored for a producer's name; -1 when none is known."""
        return self.last_sequence.get(producer, -1)

    def store(self, drafts: Sequence[Draft], *, batched: bool) -> list[MessageId]:
        """Store one entry: a message, or a batch of them.

        As in the broker, a batch is judged as a whole by its first number.

        Raises:
            TopicTerminated: the topic was terminated.
        """
        if self.terminated:
            raise TopicTerminated(self.name)
        if self.deduplicates:
            producer = drafts[0].producer
            last = self.last_sequence.get(producer)
            if last is not None and drafts[0].sequence_id <= last:
                return [NOT_STORED] * len(drafts)
            self.last_sequence[producer] = drafts[-1].sequence_id
        now = int(time.time() * 1000)
        ledger, entry = (self.ledger, self._entry) if self.persistent else (0, 0)
        self._entry += 1
        ids = []
        for position, draft in enumerate(drafts):
            message_id = MessageId(ledger, entry, self.partition, position if batched else -1)
            ids.append(message_id)
            self.index[message_id] = len(self.messages)
            self.messages.append(
                StoredMessage(
                    message_id,
                    draft.payload,
                    draft.key,
                    draft.properties,
                    draft.event_time_ms,
                    now,
                    draft.deliver_at_ms,
                    draft.producer,
                    draft.sequence_id,
                    draft.context,
                )
            )
        for listener in tuple(self.listeners):
            listener.dispatch()
        return ids

    def unload(self) -> None:
        """What is left of an unload here: a new ledger. (The broker's WebSocket service connects
        its producers again by itself; the sockets do not notice.)"""
        self.ledger, self._entry = self.cluster.next_ledger(), 0

    def last_id(self) -> MessageId:
        """The id of the last message; entry -1 when there is none."""
        if self.messages:
            return self.messages[-1].message_id
        return MessageId(self.ledger, -1, self.partition)


class Namespace(msgspec.Struct):
    """A namespace and its policies."""

    deduplication: bool | None = None
    grants: dict[str, set[str]] = {}


class Cluster:
    """All namespaces and topics of one stand-in.

    Args:
        namespaces: those that exist at the start, as `tenant/namespace`.
        deduplication: the broker's setting.
    """

    def __init__(self, namespaces: Iterable[str], *, deduplication: bool) -> None:
        self.deduplication = deduplication
        self.namespaces: dict[str, Namespace] = {}
        self.tenants: set[str] = set()
        self.topics: dict[str, Topic] = {}
        self.partitioned: dict[str, int] = {}
        self._ledgers = itertools.count(1)
        for name in namespaces:
            self.tenants.add(name.partition("/")[0])
            self.namespaces[name] = Namespace()

    def next_ledger(self) -> int:
        """A ledger's number that was never used."""
        return next(self._ledgers)

    def namespace_of(self, topic: str) -> Namespace:
        """The namespace of a full topic name.

        Raises:
            TopicError: there is none.
        """
        return self.namespace("/".join(topic.partition("://")[2].split("/")[:2]))

    def namespace(self, name: str) -> Namespace:
        """A namespace by name.

        Raises:
            TopicError: there is none.
        """
        found = self.namespaces.get(name)
        if found is None:
            raise TopicError(404, "Namespace not found")
        return found

    def create_namespace(self, name: str) -> None:
        """Make a namespace.

        Raises:
            TopicError: it exists, or its tenant does not.
        """
        if name.partition("/")[0] not in self.tenants:
            raise TopicError(404, "Tenant does not exist")
        if name in self.namespaces:
            raise TopicError(409, "Namespace already exists")
        self.namespaces[name] = Namespace()

    def parts(self, name: str) -> list[Topic]:
        """What a client that names this topic gets: the topic, made when missing, or its
        partitions.

        Raises:
            TopicError: no such namespace or partition.
        """
        self.namespace_of(name)
        count = self.partitioned.get(name)
        if count is not None:
            return [self.topics[f"{name}{_PARTITION}{index}"] for index in range(count)]
        found = self.topics.get(name)
        if found is None:
            parent, _, number = name.rpartition(_PARTITION)
            if number.isdigit() and parent in self.partitioned:
                # The broker says no more than this: the text is empty.
                raise TopicError(404, "")
            found = self.topics[name] = Topic(self, name)
        return [found]

    def existing(self, name: str) -> list[Topic]:
        """As `parts`, but nothing is made.

        Raises:
            TopicError: no such topic.
        """
        self.namespace_of(name)
        if name not in self.topics and name not in self.partitioned:
            raise TopicError(404, f"Topic {name} not found")
        return self.parts(name)

    def create(self, name: str, partitions: int = 0) -> None:
        """Make a topic, with that many partitions or none.

        Raises:
            TopicError: it exists, or its namespace does not.
        """
        self.namespace_of(name)
        if name in self.topics or name in self.partitioned:
            raise TopicError(409, "This topic already exists")
        if not partitions:
            self.topics[name] = Topic(self, name)
            return
        self.partitioned[name] = partitions
        for index in range(partitions):
            part = f"{name}{_PARTITION}{index}"
            self.topics[part] = Topic(self, part, index)

    def delete(self, name: str, *, force: bool) -> None:
        """Remove a topic or all its partitions. A producer that is connected makes it anew.

        Raises:
            TopicError: no such topic, or somebody is connected and `force` is false.
        """
        topics = self.existing(name)
        users = sum(len(topic.producers) + len(topic.listeners) for topic in topics)
        if users and not force:
            raise TopicError(412, f"Topic has {users} connected producers/consumers")
        for topic in topics:
            # Emptied in place: who is connected goes on in an empty topic.
            topic.messages.clear()
            topic.index.clear()
            topic.last_sequence.clear()
            topic.terminated = False
            topic.unload()
            topic.listeners = [each for each in topic.listeners if each.emptied()]
        if any(topic.producers or topic.listeners for topic in topics):
            return
        for topic in topics:
            del self.topics[topic.name]
        self.partitioned.pop(name, None)
