"""What a test makes of receipts: hold them, let them go, or fail the next messages instead."""

from __future__ import annotations

from typing import Protocol

from celery_stargate.calls.memory import Memory
from celery_stargate.testing.local_pulsar.faults import Faults

__all__ = ["MemoryReceipts", "PulsarReceipts", "Receipts"]

_EXCEPTION = "org.apache.pulsar.client.api.PulsarClientException$"
#: A code of a failure → what Pulsar answers for it.
_SEND_ERRORS = {
    "send-error:8": f"{_EXCEPTION}NotAllowedException: refused by the test",
}
_FIRST_CLOSE_CODE = 1000


class Receipts(Protocol):
    """Hold receipts, or have failures instead.

    Example:
        >>> with in_memory(app) as pulsar:
        ...     pulsar.receipts.hold()
        ...     result = produce_task.delay("one lamp", topic="orders", on_ack=paid.s())
        ...     pulsar.receipts.release()  # now `paid` runs
    """

    def hold(self) -> None:
        """Hold all receipts from now on. The messages are in their topics."""

    def release(self) -> None:
        """Let the held receipts go, in order, and hold no more."""

    def fail_next(self, code: int | str = "send-error:8", *, count: int = 1) -> None:
        """Fail the next messages.

        Args:
            code: what goes wrong:

                - `"send-error:8"`: Pulsar refuses the message, for good;
                - `"deadline"`: the message is stored, and its receipt is lost. With a
                  `LocalPulsar` it is sent again after `stargate_receipt_timeout`, unless its
                  deadline passes first;
                - an HTTP status such as `404` (a refusal) or `409` (repeated until it goes): of a
                  handshake, so of a connection that is opened after this;
                - a close code such as `1009` or `1011`: the connection closes instead of a receipt.
            count: how many times.

        Raises:
            ValueError: it cannot go wrong in this way here.
        """


class PulsarReceipts:
    """Those of a `LocalPulsar`.

    Args:
        faults: of that `LocalPulsar`.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def hold(self) -> None:
        """Hold all receipts from now on. The messages are in their topics."""
        self._faults.hold_receipts()

    def release(self) -> None:
        """Let the held receipts go, in order, and hold no more."""
        self._faults.release_receipts()

    def fail_next(self, code: int | str = "send-error:8", *, count: int = 1) -> None:
        """Fail the next messages; see `Receipts`.

        Raises:
            ValueError: there is no such fault.
        """
        if code == "deadline":
            self._faults.drop_receipts(count)
        elif isinstance(code, int) and code >= _FIRST_CLOSE_CODE:
            _once("a close code", count)
            self._faults.close_after_frames(1, code=code)
        elif isinstance(code, int):
            self._faults.refuse_handshakes(code, count=count)
        elif code in _SEND_ERRORS:
            self._faults.fail_sends(_SEND_ERRORS[code], count=count)
        else:
            known = ", ".join(repr(each) for each in ("deadline", *_SEND_ERRORS))
            raise ValueError(f"code must be one of {known} or a number, and is {code!r}")


class MemoryReceipts:
    """Those of an app in memory.

    Args:
        memory: where its messages are.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def hold(self) -> None:
        """Hold all receipts: callbacks wait for `release`, and a call that waits times out at once.

        A task whose receipt is held has no result: the state of its `EagerResult` is `IGNORED`.
        """
        self._memory.hold()

    def release(self) -> None:
        """Run the callbacks of the held receipts in this thread, in order, and hold no more.

        Raises:
            What a callback raised, after all have run; of several an `ExceptionGroup`.
        """
        self._memory.release()

    def fail_next(self, code: int | str = "send-error:8", *, count: int = 1) -> None:
        """Fail the next messages; see `Receipts`. A number is the status of a refused handshake.

        Raises:
            ValueError: the code is one that is repeated until it goes, so no caller sees it.
        """
        if isinstance(code, int):
            if code not in _FINAL_STATUSES:
                final = ", ".join(map(str, sorted(_FINAL_STATUSES)))
                raise ValueError(
                    f"{code} is repeated until it goes, and fails no message; in memory a code "
                    f"is text or one of {final}. Use the fixture stargate_pulsar for the others"
                )
            code = f"http-{code}"
        self._memory.fail_next(code, f"failed by the test with {code}", count)


#: The statuses of a refused handshake that fail a message (``pulsar/verdicts.py``).
_FINAL_STATUSES = frozenset({400, 401, 403, 404})


def _once(what: str, count: int) -> None:
    if count != 1:
        raise ValueError(f"{what} closes the connection once: count must be 1, not {count}")
