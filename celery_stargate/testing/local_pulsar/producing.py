"""The producer endpoint: it reads frames and sends receipts."""

from __future__ import annotations

import asyncio
import binascii
import itertools
import re
import time
import zlib
from datetime import datetime

import msgspec

from celery_stargate.model.hashing import partition_of
from celery_stargate.testing.local_pulsar.address import Address, choice, flag, natural, number
from celery_stargate.testing.local_pulsar.counters import Counters
from celery_stargate.testing.local_pulsar.faults import Faults, Frame, Peer
from celery_stargate.testing.local_pulsar.message_id import NOT_STORED, MessageId
from celery_stargate.testing.local_pulsar.refusal import (
    Refusal,
    bad_query,
    broker_says,
    not_created,
)
from celery_stargate.testing.local_pulsar.topics import Cluster, Draft, Topic, TopicTerminated

_CLIENT = "org.apache.pulsar.client.api.PulsarClientException$"
_BROKER = "org.apache.pulsar.broker.service.BrokerServiceException$"
_TERMINATED = f"{_BROKER}TopicTerminatedException: Topic was already terminated"

_names = itertools.count()

_HASHES = ("JavaStringHash", "Murmur3_32Hash")
_ROUTES = ("SinglePartition", "RoundRobinPartition", "CustomPartition")
_COMPRESSIONS = ("NONE", "LZ4", "ZLIB", "ZSTD", "SNAPPY")

# The offset is required; seconds and their fraction are optional.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d(:\d\d)?)", re.ASCII
)

# Where text is expected, the broker accepts any plain value and converts it.
_Text = str | int | float | bool | None


class _Message(msgspec.Struct, rename="camel"):
    payload: _Text = None
    context: _Text = None
    key: _Text = None
    properties: dict[str, _Text] | None = None
    event_time: _Text = None
    deliver_at: int | None = None
    deliver_after_ms: int | None = None
    replication_clusters: list[_Text] | None = None
    schema_version: int | None = None


class _Receipt(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    result: str
    error_msg: str | None = None
    message_id: str | None = None
    context: str | None = None
    error_code: int
    schema_version: int


_decoder = msgspec.json.Decoder(_Message | None, strict=False)
_encoder = msgspec.json.Encoder()


class _Route:
    """One partition of the producer's topic, with its own sequence ids and its batch."""

    def __init__(self, topic: Topic, sequence: int) -> None:
        self.topic = topic
        self.sequence = sequence
        self.batch: list[Draft] = []
        self.timer: asyncio.TimerHandle | None = None


class ProducerEndpoint:
    """A producer's socket. Its name stays taken until `closed`.

    Raises:
        Refusal: a bad query, a name in use, or a topic that cannot be used.
    """

    kind = "producer"

    def __init__(
        self, address: Address, peer: Peer, cluster: Cluster, faults: Faults, counters: Counters
    ) -> None:
        query = address.query
        self.topic = address.topic
        self._peer = peer
        self._faults = faults
        self._counters = counters
        self._read_query(query)
        initial = number(query, "initialSequenceId", -1) if "initialSequenceId" in query else None
        self.name = query.get("producerName") or f"standalone-0-{next(_names)}"
        topics = cluster.parts(address.topic)
        for topic in topics:
            if topic.terminated:
                raise not_created(503, _TERMINATED)
            if self.name in topic.producers:
                raise not_created(
                    409,
                    f"{_BROKER}NamingException: Producer with name '{self.name}' is already "
                    f"connected to topic '{topic.name}'",
                )
        for topic in topics:
            topic.producers.add(self.name)
        self._routes = [
            _Route(topic, 1 + (topic.last_number(self.name) if initial is None else initial))
            for topic in topics
        ]
        self._partitioned = address.topic in cluster.partitioned
        # Messages without a key go to one partition, which the broker chooses at random.
        self._single = zlib.crc32(self.name.encode()) % len(topics)
        self._turn = itertools.count()

    def _read_query(self, query: dict[str, str]) -> None:
        if "producerName" in query and not query["producerName"].strip():
            raise bad_query("producerName cannot be blank")
        hashing = query.get("hashingScheme", _HASHES[0])
        if hashing not in _HASHES:
            raise bad_query(
                f"No enum constant org.apache.pulsar.client.api.HashingScheme.{hashing}"
            )
        self._hashing = hashing
        natural(query, "sendTimeoutMillis", 30_000, "sendTimeout")
        self._batching = flag(query, "batchingEnabled")
        self._batch_size = 1000
        self._batch_delay = 0.001
        if self._batching:
            self._batch_size = natural(query, "batchingMaxMessages", 1000)
            natural(query, "maxPendingMessages", 0)
            self._batch_delay = natural(query, "batchingMaxPublishDelay", 1) / 1000
        self._round_robin = choice(query, "messageRoutingMode", _ROUTES) == _ROUTES[1]
        choice(query, "compressionType", _COMPRESSIONS)
        if query.get("encryptionKeys"):
            raise Refusal(
                500,
                "Failed to create producer/consumer: Can't add encryption key without configuring "
                "cryptoKeyReaderFactoryClassName",
            )

    def closed(self) -> None:
        """Store the open batches and free the name; the socket is closed."""
        for route in self._routes:
            if route.timer is not None:
                route.timer.cancel()
                self._store(route)
            route.topic.producers.discard(self.name)

    def received(self, text: bytes) -> None:
        """Process a frame and send its receipt."""
        self._counters.frames += 1
        if not self._faults.takes_frame():
            return
        try:
            message = _decoder.decode(text)
        except (msgspec.MsgspecError, ValueError) as error:
            self._refuse(3, str(error), None)
            return
        if message is None:
            self._refuse(7, 'Cannot read field "context" because "sendRequest" is null', None)
            return
        context = _text(message.context)
        if message.properties and None in message.properties.values():
            empty = next(name for name, value in message.properties.items() if value is None)
            # The broker closes the socket for this one.
            self._peer.close_saying(1011, f"Need Non-Null value for key: {empty}")
            return
        try:
            draft = self._draft(message, context)
        except ValueError as error:
            self._refuse(7, str(error), context)
            return
        self._send(draft)

    def _draft(self, message: _Message, context: str | None) -> Draft:
        payload = _text(message.payload)
        if payload is None:
            raise ValueError(
                'Cannot invoke "String.getBytes(java.nio.charset.Charset)" because "src" is null'
            )
        try:
            # Like Java's decoder: only the padding may be missing.
            data = binascii.a2b_base64(payload + "=" * (-len(payload) % 4), strict_mode=True)
        except ValueError as error:
            raise ValueError(f"Invalid Base64 message-payload error={error}") from None
        draft = Draft(data, 0, self.name, context, _text(message.key))
        if message.properties:
            draft.properties = {name: str(_text(v)) for name, v in message.properties.items()}
        if message.event_time is not None:
            draft.event_time_ms = _milliseconds(str(_text(message.event_time)))
        if message.deliver_after_ms is not None and message.deliver_after_ms > 0:
            draft.deliver_at_ms = int(time.time() * 1000) + message.deliver_after_ms
        elif message.deliver_at is not None and message.deliver_at > 0:
            draft.deliver_at_ms = message.deliver_at
        return draft

    def _send(self, draft: Draft) -> None:
        route = self._routes[self._partition(draft.key)]
        # As in the broker's proxy, a message that gets an error uses a sequence id too.
        draft.sequence_id = route.sequence
        route.sequence += 1
        if self._faults.fails_some:
            frame = Frame(route.topic.name, self.name, draft.context, draft.payload, draft.key)
            error = self._faults.failure(frame)
            if error is not None:
                self._refuse(8, error, draft.context)
                return
        route.batch.append(draft)
        if (
            not self._batching
            or draft.deliver_at_ms is not None
            or len(route.batch) >= self._batch_size
        ):
            self._store(route)
        elif route.timer is None:
            loop = asyncio.get_running_loop()
            route.timer = loop.call_later(self._batch_delay, self._store, route)

    def _partition(self, key: str | None) -> int:
        count = len(self._routes)
        if count == 1:
            return 0
        if key is not None:
            return partition_of(key, count, self._hashing)
        return next(self._turn) % count if self._round_robin else self._single

    def _store(self, route: _Route) -> None:
        if route.timer is not None:
            route.timer.cancel()
            route.timer = None
        drafts, route.batch = route.batch, []
        if not drafts:
            return
        try:
            ids = route.topic.store(drafts, batched=self._batching)
        except TopicTerminated:
            for draft in drafts:
                said = broker_says(_TERMINATED)
                self._refuse(8, f"{_CLIENT}TopicTerminatedException: {said}", draft.context)
            return
        for draft, message_id in zip(drafts, ids, strict=True):
            self._receipt(draft, message_id)

    def _receipt(self, draft: Draft, message_id: MessageId) -> None:
        if message_id is NOT_STORED:
            self._counters.deduplicated += 1
        else:
            self._counters.stored += 1
            if not self._partitioned:
                # A producer of `…-partition-2` itself gets ids without the partition.
                message_id = message_id._replace(partition=-1)
        if self._faults.closes_on_frame(self._peer):
            return
        receipt = _Receipt(
            result="ok",
            message_id=message_id.encode(),
            context=draft.context,
            error_code=0,
            schema_version=0,
        )
        self._faults.receipt(self._peer, _encoder.encode(receipt))

    def _refuse(self, number: int, message: str, context: str | None) -> None:
        self._counters.errors += 1
        receipt = _Receipt(
            result=f"send-error:{number}",
            error_msg=message,
            context=context,
            error_code=0,
            schema_version=0,
        )
        self._faults.receipt(self._peer, _encoder.encode(receipt))


def _text(value: _Text) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _milliseconds(text: str) -> int:
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"Text '{text}' could not be parsed at index 0")
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError as error:
        raise ValueError(f"Text '{text}' could not be parsed: {error}") from None
