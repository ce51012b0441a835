"""Pulsar's WebSocket API with nothing but ``websockets`` and ``json``."""

from __future__ import annotations

import base64
import json
from typing import Any

from websockets.asyncio.client import connect as open_socket

from benchmarks.app import Config
from benchmarks.payload import PAYLOAD
from benchmarks.site import BenchmarkError

__all__ = ["connect", "frame", "require_receipt"]


def connect(config: Config, name: str, query: str = "", **options: Any) -> Any:
    """Return a connection to a producer of a topic of this run, to be entered.

    Arguments:
        query: of its URL, with the question mark.
        options: of websockets' ``connect``.
    """
    path = config.topic(name).replace("://", "/")
    return open_socket(
        f"{config.pulsar_url}/ws/v2/producer/{path}{query}",
        compression=None,
        open_timeout=45.0,
        proxy=None,
        **options,
    )


def frame(context: str, body: str = PAYLOAD) -> bytes:
    """Return the frame of one message."""
    payload = base64.b64encode(body.encode()).decode()
    return json.dumps({"payload": payload, "context": context}).encode()


def require_receipt(reply: bytes) -> str:
    """Return the context of a receipt.

    Raises:
        BenchmarkError: Pulsar did not store it.
    """
    read = json.loads(reply)
    if read["result"] != "ok":
        raise BenchmarkError(f"Pulsar answered {read['result']}: {read.get('errorMsg')}")
    return str(read["context"])
