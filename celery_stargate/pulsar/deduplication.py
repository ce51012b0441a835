"""Check that the broker deduplicates a topic, before a lane relies on it.

The broker's admin API tells, if the service URL has it and the token may read it. Otherwise a
probe shows it: one message is sent twice under one sequence id, to a separate topic in the same
namespace.

Source: Pulsar's "Message deduplication" page; ``deduplicationStatus`` of a topic's stats in the
admin API of 4.0.
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec

from celery_stargate.model.frame import encode_frame
from celery_stargate.model.message import Message
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.message_id import MessageId
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.replies import decode_reply
from celery_stargate.pulsar.sentences import plain
from celery_stargate.pulsar.sequence import DeduplicationUnavailable
from celery_stargate.support.daemon_call import call_in_daemon
from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["PROBE", "MakeProducer", "require_deduplication"]

#: Makes a producer for a topic with its options and further query parameters. It is not open yet.
MakeProducer = Callable[[Topic, ProducerOptions, Mapping[str, str]], Producer]

#: The name of the topic that gets the probe messages.
PROBE = "stargate-deduplication-probe"

#: How long one admin API call or one probe receipt may take, in seconds.
_TIMEOUT = 10.0
_MAX_ANSWER = 4 * 1024 * 1024


async def require_deduplication(
    endpoint: Endpoint, topic: Topic, options: ProducerOptions, make: MakeProducer
) -> None:
    """Return if the broker deduplicates messages for a topic; raise otherwise.

    Arguments:
        topic: the topic that the lane sends to; for a partitioned topic, the partition.
        options: the topic's options.
        make: makes the producers for the probe.

    Raises:
        DeduplicationUnavailable: it does not, or the topic's partitions are not those of
            ``stargate_partitions``, or neither the admin API nor the probe can tell.
        HandshakeRefused: the topic itself is refused, or the broker cannot be asked now.
        LinkBroken: the broker cannot be asked now; try again later.
        ConfigurationError: the token or a TLS file is not usable.
    """
    await _require_partitions(endpoint, topic, options)
    status, stats = await _ask(endpoint, f"{topic.path}/stats")
    if status == 404:
        # The topic does not exist yet. Its first producer creates it.
        await _open_and_close(make(topic, options, {}))
        status, stats = await _ask(endpoint, f"{topic.path}/stats")
    match stats.get("deduplicationStatus"):
        case "Enabled":
            return
        case "Disabled":
            raise DeduplicationUnavailable.not_deduplicated(topic)
    await _probe(topic, options, make, f"its admin API answered with HTTP {status}")


async def _require_partitions(endpoint: Endpoint, topic: Topic, options: ProducerOptions) -> None:
    """Raise if the topic's partitions are not those of its options, as far as the admin API tells.

    A producer of a partition that the topic does not have makes a topic of that name, which nobody
    reads, and gets receipts for it.
    """
    if options.partitions is None:
        if (await _ask(endpoint, f"{topic.path}/partitions"))[1].get("partitions"):
            raise DeduplicationUnavailable.partitioned(topic)
        return
    whole, index = topic.whole()
    # Asked as Pulsar's own clients do: a broker that makes missing topics with partitions does so.
    path = f"{whole.path}/partitions?checkAllowAutoCreation=true"
    found = (await _ask(endpoint, path))[1].get("partitions")
    if isinstance(found, int) and index >= found:
        raise DeduplicationUnavailable.without_partition(whole, found, options.partitions)


async def _ask(endpoint: Endpoint, path: str) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status of an admin API call, 0 without an answer, and the JSON.

    It follows no redirect, so that the token reaches only the configured host.
    """
    if endpoint.tls_server_name is not None:
        return 0, {}
    headers = await endpoint.fetch_headers()
    context = endpoint.tls()
    with suppress(OSError, HTTPException, *UNDECODABLE):
        # http.client bounds each read, and not all of them: an answer may come byte by byte.
        return await call_in_daemon(
            partial(_get, endpoint.url, path, headers, context), _TIMEOUT, (endpoint.url, path)
        )
    return 0, {}


def _get(
    url: str, path: str, headers: dict[str, str], context: ssl.SSLContext | None
) -> tuple[int, dict[str, Any]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = (
        HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT)
        if context is None
        else HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT, context=context)
    )
    try:
        connection.request("GET", f"{parts.path}/admin/v2/{path}", headers=headers)
        # An answer without a length has the socket, which its end would leave open.
        with closing(connection.getresponse()) as answer:
            body = answer.read(_MAX_ANSWER)
    finally:
        connection.close()
    if answer.status != 200:
        return answer.status, {}
    return 200, msgspec.json.decode(body, type=dict[str, Any])


async def _open_and_close(producer: Producer) -> None:
    try:
        await producer.open()
    finally:
        await producer.close()


async def _probe(topic: Topic, options: ProducerOptions, make: MakeProducer, why: str) -> None:
    """Send one message twice under one sequence id, and check that the second is not stored."""
    place = replace(topic, name=PROBE)
    query = {
        "producerName": f"stargate-probe-{uuid.uuid4().hex}",
        "initialSequenceId": "-1",
        "sendTimeoutMillis": "0",
    }
    try:
        await _send_one(make(place, ProducerOptions(), query))
        again = await _send_one(make(place, ProducerOptions(), query))
    except HandshakeRefused as refused:
        if refused.permanent:
            # A token that is not taken, say, is refused for the topic itself. Then that is why.
            await _open_and_close(make(topic, options, {}))
            raise DeduplicationUnavailable(
                f"cannot check whether the broker deduplicates {topic}: {why}, and the probe topic "
                f"{place} is refused: {refused.sentence}. Allow one of the two, or use "
                "stargate_delivery='at_least_once'",
                code="no-deduplication",
            ) from None
        raise
    if again.ledger >= 0:
        raise DeduplicationUnavailable.not_deduplicated(topic)


async def _send_one(producer: Producer) -> MessageId:
    frame = encode_frame(Message(payload=b"does this broker deduplicate?"), "probe", 1024)
    try:
        await producer.open()
        await producer.send(frame)
        async with asyncio.timeout(_TIMEOUT):
            frame, *_ = await anext(producer.replies())
        reply = decode_reply(frame)
        if reply.result != "ok":
            raise LinkBroken(f"the probe got {plain(reply.result)}: {plain(reply.error)}")
        return MessageId.decode(reply.message_id or "")
    except TimeoutError:
        raise LinkBroken(f"the probe got no receipt in {_TIMEOUT:g} s") from None
    except ValueError as error:
        raise LinkBroken(f"the probe got {error}") from None
    finally:
        await producer.close()
