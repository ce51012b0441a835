"""What the caller knows, compared with what the topic holds."""

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
    """Each message whose ``delay()`` returned, and its receipt."""

    #: Payload -> key (empty if none), in the order of the calls.
    accepted: dict[str, str] = field(default_factory=dict)
    #: Payload -> the receipt that its result returned.
    receipts: dict[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """A message as the topic holds it."""

    payload: str
    key: str
    message_id: str


@dataclass(frozen=True)
class Comparison:
    """The differences between ledger and topic."""

    stored: int
    lost: int
    duplicates: int
    #: Messages in the topic that the caller never sent.
    strange: int
    #: Receipts whose message id is not that of the message in the topic.
    false_receipts: int
    #: Keys whose messages are not in the order of the calls.
    disordered: int


def compare(ledger: Ledger, topic: Sequence[Stored]) -> Comparison:
    """Compare the ledger with the topic."""
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
    """Count the keys whose messages are out of order; of copies the first one counts."""
    sent: dict[str, list[str]] = {}
    for payload, key in ledger.accepted.items():
        sent.setdefault(key, []).append(payload)
    found: dict[str, dict[str, None]] = {}
    for message in topic:
        found.setdefault(message.key, {}).setdefault(message.payload)
    wrong = 0
    for key, came in found.items():
        expected = [payload for payload in sent.get(key, ()) if payload in came]
        # A message without a key may take any lane, and only lanes are ordered.
        wrong += bool(key) and expected != list(came)
    return wrong


def read_topic(url: str, topic: str) -> list[Stored]:
    """Read a whole topic with a plain WebSocket reader, without code of the lanes.

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
