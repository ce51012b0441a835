"""ASGI: close a Stargate when an application ends that has no lifespan, such as Django's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from celery_stargate.app import Stargate

__all__ = ["ClosesAtShutdown"]

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Application: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_ENDED = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class ClosesAtShutdown:
    """An ASGI application around another one, which closes a Stargate when the server shuts down::

        application = ClosesAtShutdown(get_asgi_application(), stargate)

    The application's own lifespan goes on, if it has one; the Stargate is closed after it. Where
    the framework takes a lifespan, :meth:`Stargate.lifespan` is simpler.

    Arguments:
        application: any ASGI 3 application.
        stargate: to close.
    """

    def __init__(self, application: _Application, stargate: Stargate) -> None:
        self._application = application
        self._stargate = stargate

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def _live(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Pass the lifespan on, or play it where the application has none."""
        heard = told = False

        async def hear() -> MutableMapping[str, Any]:
            nonlocal heard
            heard = True
            return await receive()

        async def tell(message: MutableMapping[str, Any]) -> None:
            nonlocal told
            told = True
            if message["type"] in _ENDED:
                await self._stargate.aclose()
            await send(message)

        try:
            await self._application(scope, hear, tell)
        except Exception:
            # That is how an application says that it has no lifespan.
            if heard or told:
                raise
        if heard or told:
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stargate.aclose()
        await send({"type": "lifespan.shutdown.complete"})
