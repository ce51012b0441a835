"""A web application that publishes with each request, as WSGI and as ASGI, for any server."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from celery_stargate import Stargate
from celery_stargate.contrib.asgi import ClosesAtShutdown

app = Celery("site", broker=os.environ["SITE_REDIS"], backend=os.environ["SITE_REDIS"])
app.conf.update(
    stargate_url=os.environ["SITE_PULSAR"],
    stargate_topic=os.environ["SITE_TOPIC"],
    stargate_prefix=os.environ["SITE_PREFIX"],
    stargate_lease=30,
)
stargate = Stargate(app)

if os.environ.get("SITE_EARLY"):
    # Before the server forks: what the parent owned is not its children's.
    stargate.produce("early", timeout=20)

_HEADERS = [("Content-Type", "text/plain")]


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Publish, and answer with the receipt's status and the process that has it."""
    status = stargate.produce("wsgi", timeout=20).status
    start_response("200 OK", _HEADERS)
    return [f"{status} {os.getpid()}".encode()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Do the same as ASGI, without a lifespan."""
    if scope["type"] != "http":
        raise ValueError("only HTTP")
    receipt = await stargate.aproduce("asgi", timeout=20)
    headers = [(name.encode(), value.encode()) for name, value in _HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = f"{receipt.status} {os.getpid()}".encode()
    await send({"type": "http.response.body", "body": body})


closing = ClosesAtShutdown(asgi, stargate)
