"""Call Redis again until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from celery_stargate import observers
from celery_stargate.lanes.connections import UNAVAILABLE
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["Retry"]

logger = logger_of(__name__)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Retry:
    """Repeats calls of one lane while Redis is not available.

    Arguments:
        lane: its name, for the log.
        uniform: draws the jitter between two tries.
    """

    def __init__(self, lane: str, uniform: Callable[[float, float], float]) -> None:
        self._lane = lane
        self._uniform = uniform

    async def until_available(
        self,
        call: Callable[_Arguments, Awaitable[_Result]],
        /,
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Return what a call returns, as soon as Redis answers it.

        A call whose reply was lost is repeated: one that must not run twice carries a token.

        Raises:
            Whatever the call raises, except :data:`~celery_stargate.lanes.connections.UNAVAILABLE`.
        """
        backoff: Backoff | None = None
        while True:
            try:
                return await call(*args, **kwargs)
            except UNAVAILABLE as error:
                if backoff is None:
                    # Hardly any call needs them.
                    backoff, log_now = Backoff(longest=1.0, uniform=self._uniform), Seldom()
                wait = backoff.next()
                failed = error
                observers.tell(lambda each: each.redis_failed(failed))  # noqa: B023
                if log_now():
                    logger.warning(
                        "Redis does not answer; it is tried again: %s", error, lane=self._lane
                    )
                await asyncio.sleep(wait)
