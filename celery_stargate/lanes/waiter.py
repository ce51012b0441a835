"""What waits in an event loop for the result of a put."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["FirstNumber", "Waiter"]


class Waiter:
    """Waits for the result of a put. It gets one result; what comes later changes nothing.

    Arguments:
        on_its_way: whether the put is on its way; one that no longer is will not be sent.
    """

    __slots__ = ("on_its_way", "on_told")

    def __init__(self, *, on_its_way: bool = True) -> None:
        self.on_its_way = on_its_way
        #: Called with None or the error before the waiter goes on, which raises what this raises.
        self.on_told: Callable[[BaseException | None], object] | None = None

    def recorded(self, first: int) -> None:
        """Take the context's first number, as ``Outbox.put`` returns it."""
        if self.on_its_way:
            raised = self.end(None)
            if raised is None:
                self.go_on(first)
            else:
                self.fail(raised)

    def failed(self, error: BaseException) -> None:
        """Take an error: what ``Outbox.put`` raises, or that the event loop ends."""
        if self.on_its_way:
            self.fail(self.end(error) or error)

    def end(self, error: BaseException | None) -> BaseException | None:
        """Note that the put is no longer on its way; return what :attr:`on_told` raises."""
        self.on_its_way = False
        if self.on_told is not None:
            try:
                self.on_told(error)
            except BaseException as raised:  # noqa: BLE001  # only this waiter may get it
                return raised
        return None

    def go_on(self, first: int) -> None:
        """Go on: the context is recorded."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Raise an error in the call that waits."""
        raise NotImplementedError


class FirstNumber(Waiter):
    """Waits for the first number of a context, and for nothing else."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        super().__init__()
        self._future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Return the number.

        Raises:
            As ``Outbox.put``.
        """
        try:
            return await self._future
        finally:
            self.on_its_way = False

    def go_on(self, first: int) -> None:
        """Return it."""
        if not self._future.done():
            self._future.set_result(first)

    def fail(self, error: BaseException) -> None:
        """Raise why there is none."""
        if isinstance(error, asyncio.CancelledError):
            self._future.cancel()
        elif not self._future.done():
            self._future.set_exception(error)
