"""Write the results of a whole batch to the Redis result backend in one round trip."""

from __future__ import annotations

import weakref
from typing import Any

from celery import signals
from celery.backends.redis import RedisBackend

__all__ = ["ResultBatch", "heard_of", "may_batch"]


class _Keeping:
    """Stand before a key-value backend, and keep what it is to store.

    ``get`` and ``set`` are the hooks of such a backend
    (``celery.backends.base.KeyValueStoreBackend``); everything else is Celery's.
    """

    def get(self, _key: Any) -> None:
        # Asked whether a success is stored already: the same receipt again changes nothing.
        return None

    def set(self, key: Any, value: Any, expires: Any = None, **_policy: Any) -> None:
        state: Any = self
        state.kept.append((key, value, state.expires if expires is None else expires))


class ResultBatch:
    """A Redis result backend that keeps what it is to store until it is flushed.

    Arguments:
        backend: the app's backend, for this thread.
    """

    def __init__(self, backend: Any) -> None:
        base = type(backend)
        self._pending: list[tuple[Any, Any, Any]] = []
        #: The backend for a task's tracer.
        self.backend: Any = object.__new__(type(f"Batched{base.__name__}", (_Keeping, base), {}))
        self.backend.__dict__.update(backend.__dict__, kept=self._pending)

    def __len__(self) -> int:
        return len(self._pending)

    def keep(self, key: Any, value: Any, expires: Any) -> None:
        """Keep a result, as the backend would write it.

        Arguments:
            expires: seconds; None for ever.
        """
        self._pending.append((key, value, expires))

    def take_last(self) -> tuple[Any, Any, Any]:
        """Take out what was kept last: key, value, and seconds until it expires."""
        return self._pending.pop()

    def flush(self) -> None:
        """Store what was kept, and tell those who wait.

        Raises:
            What the backend raises when its retries are used up; then all is kept.
        """
        if self._pending:
            self.backend.ensure(self._write, ())
            self._pending.clear()

    def drop(self) -> None:
        """Forget what was kept."""
        self._pending.clear()

    def _write(self) -> None:
        with self.backend.client.pipeline(transaction=False) as pipeline:
            # Its methods for these two commands would take as long again as all the rest of this.
            run = pipeline.execute_command
            for key, value, expires in self._pending:
                run("SET", key, value, *(("EX", expires) if expires else ()))
                run("PUBLISH", key, value)
            pipeline.execute()


def may_batch(backend: Any, request: dict[str, Any]) -> bool:
    """Whether the result of a receipt may be stored a moment later than Celery would.

    It may where nobody could look at it before: nothing goes on from it (a link, a chain, a
    chord), and no signal's receiver hears of it, but for Celery's own.
    """
    return (
        isinstance(backend, RedisBackend)
        and not (request.get("callbacks") or request.get("chain") or request.get("chord"))
        and not heard_of(signals.task_success, signals.task_postrun)
    )


def heard_of(*given: Any) -> bool:
    """Whether any of some signals has a receiver that is not Celery's own."""
    for signal in given:
        for _, receiver in signal.receivers or ():
            found = receiver() if isinstance(receiver, weakref.ReferenceType) else receiver
            own = str(getattr(found, "__module__", "")).startswith("celery.")
            if found is not None and not own:
                return True
    return False
