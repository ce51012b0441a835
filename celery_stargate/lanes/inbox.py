"""Inboxes: how the outcome of a call reaches the process that waits for it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError, ResponseError

from celery_stargate.lanes.connections import Connections, store_errors, stream_entries
from celery_stargate.lanes.scripts import AsyncScripts, Scripts
from celery_stargate.lanes.wire import encode_call
from celery_stargate.model.buckets import bucket_tag
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.adaptive_limit import AdaptiveLimit
from celery_stargate.support.bound import call_bound
from celery_stargate.support.log import logger_of

__all__ = [
    "READ_COUNT",
    "InboxEntry",
    "Inboxes",
    "bucket_of",
    "forget_inboxes",
    "inbox_key",
    "new_inbox",
    "read_inbox",
]

logger = logger_of(__name__)

#: Seconds for which an inbox that nobody reads is kept.
_KEPT = 3600
#: How many entries one read returns at most; each may tell a hundred calls.
READ_COUNT = 10
#: The end of the name of an inbox of which an entry may tell many calls; those of versions before
#: 0.2 end otherwise.
_TAKES_MANY = "+"
_HEAL = "registry/heal"
_REPLACED = "the inbox %s is no stream in Redis; it is deleted, and begins anew"


def new_inbox(prefix: str, bucket: int) -> str:
    """Return the name of a new inbox.

    Arguments:
        prefix: what all keys begin with.
        bucket: of the lanes whose outcomes it gets. On a Cluster an inbox is beside its lanes, so
            that a shard that is down holds up nobody who does not wait for its lanes.
    """
    name = f"{uuid.uuid4().hex}{_TAKES_MANY}"
    return f"{bucket}-{name}" if "{" in prefix else name


class InboxEntry(NamedTuple):
    """One entry of an inbox, as it was found: whoever opens it judges it."""

    #: The entry's id in the stream.
    entry: str
    #: Of each call that it tells, the address (the inbox, and the call in it, as
    #: :attr:`Record.inbox` names them), and the outcome, as
    #: :func:`~celery_stargate.lanes.wire.decode_call` reads it. Bytes of an address that are no
    #: UTF-8 are replaced, so that it is nobody's.
    told: Sequence[tuple[str, bytes]]


class Inboxes:
    """The inboxes of all waiting processes: a stream in Redis for each.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with.
    """

    def __init__(self, connections: Connections, prefix: str) -> None:
        self._connections = connections
        self._prefix = prefix
        self._scripts = Scripts(connections)
        self._count = AdaptiveLimit(READ_COUNT)

    def notify(self, address: str, call: CallOutcomes) -> None:
        """Put what became of a call into the inbox of the process that waits for it.

        Arguments:
            address: the inbox, a slash, and the waiting call in it.

        Raises:
            StoreUnavailable: Redis did not answer within 5 s.
        """
        key = self._key(address.partition("/")[0])
        with store_errors():
            try:
                self._put(key, address, call)
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                self._replace(key)
                self._put(key, address, call)

    def subscribe(self, inbox: str, handled: Sequence[str], timeout: float) -> list[InboxEntry]:
        """Wait for outcomes in an inbox.

        It is read from its beginning each time, and not from the last id: an id far ahead, or an
        inbox that begins anew, would hide all that comes later.

        Arguments:
            inbox: its name.
            handled: the ids of entries that were handled; they are deleted first.
            timeout: seconds to wait at most.

        Returns:
            Up to 10 entries, fewer after a read that failed; none when the time is over.

        Raises:
            StoreUnavailable: Redis did not answer within 5 s.
        """
        key = self._key(inbox)
        with store_errors(), self._connections.sync().pipeline(transaction=False) as pipeline:
            _ask(pipeline, key, handled, timeout, self._count)
            try:
                *_, streams = pipeline.execute()
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                self._replace(key)
                return []
            except (RedisError, OSError):
                self._count.failed()
                raise
        self._count.succeeded()
        return _entries(streams)

    def forget(self, inboxes: Sequence[str]) -> None:
        """Delete inboxes that nobody reads any more; what is put there later begins one anew.

        Raises:
            StoreUnavailable: Redis did not answer within the bound of the call.
        """
        client = self._connections.sync()
        with call_bound(), store_errors(), client.pipeline(transaction=False) as pipeline:
            for each in inboxes:
                pipeline.delete(self._key(each))
            pipeline.execute()

    def _put(self, key: str, address: str, call: CallOutcomes) -> None:
        with self._connections.sync().pipeline(transaction=False) as pipeline:
            pipeline.xadd(key, {"to": address, "outcome": encode_call(call)})
            pipeline.expire(key, _KEPT)
            pipeline.execute()

    def _replace(self, key: str) -> None:
        """Delete an inbox that is no stream: nothing could be put into it, or read from it.

        Redis looks and deletes in one step. Meanwhile an owner may have begun it anew, and have put
        an outcome into it.
        """
        if self._scripts.run(_HEAL, [key], ["stream"]):
            logger.error(_REPLACED, key)

    def _key(self, inbox: str) -> str:
        return inbox_key(self._prefix, inbox)


async def read_inbox(
    redis: AsyncRedis,
    prefix: str,
    inbox: str,
    handled: Sequence[str],
    timeout: float,
    count: AdaptiveLimit,
) -> list[InboxEntry]:
    """Wait for outcomes in an inbox, as :meth:`Inboxes.subscribe` does, in an event loop.

    Arguments:
        count: how many entries to read at most; :data:`READ_COUNT` at first. A slow line may not
            carry as many.

    Raises:
        RedisError, OSError: as redis-py raises them.
    """
    key = inbox_key(prefix, inbox)
    async with redis.pipeline(transaction=False) as pipeline:
        _ask(pipeline, key, handled, timeout, count)
        try:
            *_, streams = await pipeline.execute()
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            if await AsyncScripts(redis).run(_HEAL, [key], ["stream"]):
                logger.error(_REPLACED, key)
            return []
        except (RedisError, OSError):
            count.failed()
            raise
    count.succeeded()
    return _entries(streams)


async def forget_inboxes(redis: AsyncRedis, prefix: str, inboxes: Sequence[str]) -> None:
    """Delete inboxes, as :meth:`Inboxes.forget` does, in an event loop.

    Raises:
        RedisError, OSError: as redis-py raises them.
    """
    async with redis.pipeline(transaction=False) as pipeline:
        for each in inboxes:
            pipeline.delete(inbox_key(prefix, each))
        await pipeline.execute()


def inbox_key(prefix: str, inbox: str) -> str:
    """Return the key of an inbox.

    Arguments:
        prefix: what all keys begin with.
        inbox: its name, as :func:`new_inbox` made it.
    """
    if "{" not in prefix:
        return f"{prefix}:inbox:{inbox}"
    plain, tag = bucket_tag(prefix, bucket_of(inbox))
    return f"{plain}:{{{tag}}}:inbox:{inbox}"


def bucket_of(inbox: str) -> int:
    """Return the bucket of an inbox on a Cluster.

    Arguments:
        inbox: its name, or an address in it.
    """
    bucket = inbox.partition("-")[0]
    return int(bucket) if bucket.isdecimal() else 0


def _ask(
    pipeline: Any, key: str, handled: Sequence[str], timeout: float, count: AdaptiveLimit
) -> None:
    if handled:
        pipeline.xdel(key, *handled)
    pipeline.xread({key: "0-0"}, count=count.now, block=max(1, round(timeout * 1000)))


def _entries(streams: Any) -> list[InboxEntry]:
    return [
        _entry(entry, fields) for _, entries in stream_entries(streams) for entry, fields in entries
    ]


def _entry(entry: bytes, fields: Mapping[Any, Any] | None) -> InboxEntry:
    found = fields or {b"": b""}
    if b"to" in found:
        found = {found[b"to"]: found.get(b"outcome", b"")}
    told = [(address.decode("utf-8", "replace"), wire) for address, wire in found.items()]
    return InboxEntry(entry.decode(), told)
