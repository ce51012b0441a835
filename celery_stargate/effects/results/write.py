"""Celery's Redis backend as a maker of result rows, and the pipeline that writes them."""

from __future__ import annotations

import weakref
from typing import Any

from celery import _state, signals
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError

from celery_stargate.effects.results.chords import ChordPart
from celery_stargate.effects.results.hooks import ENDS_WELL, has_hooks
from celery_stargate.model.follow_up import ResultRow

__all__ = ["ResultBatch", "has_receivers", "may_batch"]

#: Whose receivers need not hear of produce tasks: ours look at callbacks.
_DEAF = ("celery.", "celery_stargate.worker.", "celery_stargate.instrumentation.")


class _Keeping:
    """Stand before a key-value backend, and keep the rows that it is to store.

    ``get`` and ``set`` are the hooks of such a backend
    (``celery.backends.base.KeyValueStoreBackend``); everything else is Celery's.
    """

    def get(self, _key: Any) -> None:
        # Celery asks whether a success is stored already. The same receipt again changes nothing.
        return None

    def set(self, key: Any, value: Any, expires: Any = None, **_policy: Any) -> None:
        state: Any = self
        seconds = state.expires if expires is None else expires
        state.kept.append(ResultRow(bytes_to_str(key), value, int(seconds or 0)))

    def on_chord_part_return(self, request: Any, *given: Any, **options: Any) -> None:
        # The last task of a chord's header reads the results of the others.
        state: Any = self
        state.parts.append(ChordPart(_state.get_current_task(), request, *given, **options))


class ResultBatch:
    """Result rows of one thread, and a backend that adds what it is to store to them.

    Arguments:
        backend: the app's backend, for this thread.
    """

    def __init__(self, backend: Any) -> None:
        base = type(backend)
        self._rows: list[ResultRow] = []
        self._parts: list[ChordPart] = []
        #: For a task's tracer: Celery's backend, but what it stores is kept here.
        self.backend: Any = object.__new__(type(f"Batched{base.__name__}", (_Keeping, base), {}))
        self.backend.__dict__.update(backend.__dict__, kept=self._rows, parts=self._parts)

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, row: ResultRow) -> None:
        """Keep a row until the batch is flushed."""
        self._rows.append(row)

    def take_last(self) -> ResultRow:
        """Take the row that was kept last out of the batch."""
        return self._rows.pop()

    def take_part(self) -> ChordPart | None:
        """Take the task that is to be counted for its chord, where the last one traced is such."""
        return self._parts.pop() if self._parts else None

    def flush(self) -> dict[int, ResponseError]:
        """Store and publish the rows, in one round trip.

        Returns:
            The rows that Redis refused, by their place, with the error; the others are stored.

        Raises:
            What the backend raises when its retries are used up, and what Redis answers while it
            cannot store anything; the rows are kept then.
        """
        refused: dict[int, ResponseError] = {}
        if self._rows:
            refused = self.backend.ensure(self._write, ())
            if len(refused) == len(self._rows):
                raise next(iter(refused.values()))
            self._rows.clear()
        return refused

    def drop(self) -> None:
        """Forget what is kept."""
        self._rows.clear()
        self._parts.clear()

    def _write(self) -> dict[int, ResponseError]:
        with self.backend.client.pipeline(transaction=False) as pipeline:
            # The pipeline's own methods for these two commands would double the cost.
            run = pipeline.execute_command
            for key, value, expires in self._rows:
                run("SET", key, value, *(("EX", expires) if expires else ()))
                run("PUBLISH", key, value)
            # SET and PUBLISH of each row, in turn.
            replies = pipeline.execute(raise_on_error=False)
        refused = {}
        for place, reply in enumerate(replies[::2]):
            if isinstance(reply, ResponseError):
                refused[place] = reply
            elif isinstance(reply, Exception):
                raise reply
        return refused


def may_batch(task: Any, request: dict[str, Any]) -> bool:
    """Whether the result of a receipt may be stored a moment later than Celery would.

    It may if nobody could look at it before: nothing goes on from it (a link, a chain, a chord),
    the task has no hooks of its own, and no signal has a receiver, other than Celery's own. A
    backend of the user's own stores each result itself.
    """
    backend = task.app.backend
    return (
        isinstance(backend, RedisBackend)
        and type(backend).__module__.startswith("celery.")
        and not (request.get("callbacks") or request.get("chain") or request.get("chord"))
        and not has_receivers(signals.task_prerun, signals.task_success, signals.task_postrun)
        and not has_hooks(task, ENDS_WELL)
    )


def has_receivers(*given: Any, deaf: tuple[str, ...] = _DEAF) -> bool:
    """Whether any of some signals has a receiver, for all senders or for one.

    Arguments:
        deaf: what the modules of those begin with that do not count: Celery's own, and ours.
    """
    for signal in given:
        for _, receiver in signal.receivers or ():
            found = receiver() if isinstance(receiver, weakref.ReferenceType) else receiver
            module = str(getattr(found, "__module__", ""))
            if found is not None and not module.startswith(deaf):
                return True
    return False
