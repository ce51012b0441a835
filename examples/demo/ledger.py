"""The caller's own ledger, and its comparison with what the topic holds."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import celery_stargate
from websockets.sync.client import connect


@dataclass
class Ledger:
    """What the caller knows: each message whose ``delay()`` returned, and its receipt."""

    #: Payload -> key (empty for none), in the order of the calls.
    accepted: dict[str, str] = field(default_factory=dict)
    #: Payload -> the receipt that its result released.
    receipts: dict[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """A message as the topic holds it."""

    payload: str
    key: str
    message_id: str


@dataclass(frozen=True)
class Comparison:
    """How ledger and topic differ."""

    stored: int
    lost: int
    duplicates: int
    #: Messages in the topic that the caller never sent.
    strange: int
    #: Receipts that name a message id which the topic does not hold for that message.
    false_receipts: int
    #: Keys whose messages stand in another order than they were sent in.
    disordered: int


def compare(ledger: Ledger, topic: Sequence[Stored]) -> Comparison:
    """Hold the ledger against the topic."""
    copies = Counter(message.payload for message in topic)
    ids = {(message.payload, message.message_id) for message in topic}
    false = [
        payload
        for payload, receipt in ledger.receipts.items()
        if (payload, receipt["message_id"]) not in ids
    ]
    known = [message for message in topic if message.payload in ledger.accepted]
    return Comparison(
        stored=sum(payload in copies for payload in ledger.accepted),
        lost=sum(payload not in copies for payload in ledger.accepted),
        duplicates=sum(copies[payload] - 1 for payload in copies),
        strange=sum(payload not in ledger.accepted for payload in copies),
        false_receipts=len(false),
        disordered=_disordered(ledger, known),
    )


def _disordered(ledger: Ledger, topic: Sequence[Stored]) -> int:
    """Count the keys whose messages came in another order; a copy counts where it first stands."""
    sent: dict[str, list[str]] = {}
    for payload, key in ledger.accepted.items():
        sent.setdefault(key, []).append(payload)
    found: dict[str, dict[str, None]] = {}
    for message in topic:
        found.setdefault(message.key, {}).setdefault(message.payload)
    wrong = 0
    for key, came in found.items():
        expected = [payload for payload in sent.get(key, ()) if payload in came]
        # Without a key a message may take any lane: only lanes are ordered.
        wrong += bool(key) and expected != list(came)
    return wrong


def read_topic(url: str, topic: str) -> list[Stored]:
    """Read a whole topic with a plain WebSocket reader, no code of celery_stargate's lanes in it.

    A last message marks the end; it is published over a socket of its own.
    """
    path = topic.replace("://", "/")
    mark = "the end"
    celery_stargate.produce(f"{url}/ws/v2/producer/{path}", mark)
    found = []
    for message in _read(f"{url}/ws/v2/reader/{path}?messageId=earliest&receiverQueueSize=1000"):
        payload = base64.b64decode(message["payload"]).decode()
        if payload == mark:
            break
        found.append(Stored(payload, message.get("key") or "", message["messageId"]))
    return found


def _read(url: str) -> Iterator[dict[str, Any]]:
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost")
    proxy: Literal[True] | None = None if local else True
    with connect(url, open_timeout=45, compression=None, max_size=None, proxy=proxy) as socket:
        while True:
            message = json.loads(socket.recv(timeout=30))
            yield message
            socket.send(json.dumps({"messageId": message["messageId"]}))
