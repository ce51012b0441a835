"""``contrib/asgi.py``: the lifespan of an application that has one, and of one that has none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from celery import Celery

from celery_stargate import Stargate
from celery_stargate.contrib.asgi import ClosesAtShutdown

_Application = Callable[..., Awaitable[None]]


class Noted(Stargate):
    """A Stargate that notes in ``events`` that it was closed."""

    def __init__(self, events: list[str]) -> None:
        super().__init__(Celery("asgi", set_as_current=False))
        self.events = events

    def close(self) -> None:
        self.events.append("closed")


def live(application: _Application, events: list[str], scope: str = "lifespan") -> None:
    """Start and shut down an application as an ASGI server does; note what it sends."""
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(messages)}

    async def send(message: dict[str, str]) -> None:
        events.append(message["type"])

    asyncio.run(ClosesAtShutdown(application, Noted(events))({"type": scope}, receive, send))  # type: ignore[arg-type]


async def without(scope: Any, receive: Any, send: Any) -> None:
    """Refuse the lifespan, as Django does."""
    raise ValueError("only HTTP")


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Return at once."""


async def its_own(scope: Any, receive: Any, send: Any) -> None:
    """Have a lifespan."""
    for _ in range(2):
        message = await receive()
        await send({"type": message["type"] + ".complete"})


@pytest.mark.parametrize("application", [without, silent, its_own])
def test_it_is_closed_at_the_shutdown(application: _Application) -> None:
    """Before the server hears that the application has ended."""
    events: list[str] = []
    live(application, events)
    assert events == ["lifespan.startup.complete", "closed", "lifespan.shutdown.complete"]


def test_an_application_that_cannot_start() -> None:
    """Its error is the server's, and is not taken for an application without a lifespan."""
    events: list[str] = []

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        live(fail, events)
    assert events == []


def test_a_request_goes_through() -> None:
    """It closes nothing."""
    events: list[str] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})

    live(answer, events, "http")
    assert events == ["http.response.start"]
