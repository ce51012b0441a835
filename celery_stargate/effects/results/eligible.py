"""Which results are result-only: Celery's tracer would store them and do nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from celery.loaders.base import BaseLoader

from celery_stargate.effects.results.hooks import ENDS_WELL, has_hooks
from celery_stargate.effects.results.write import has_receivers
from celery_stargate.effects.tracer import OutcomeTask, run

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Eligibility"]

#: Methods that a loader may have to act around tasks.
_LOADER_HOOKS = ("on_task_init", "on_process_cleanup")
#: Seconds between two checks of settings, loader and tasks: they cost more than storing one result.
_CHECK_EVERY = 1.0


class Eligibility:
    """Knows which tasks have result-only receipts.

    A receipt is result-only if no signal receiver would hear of the task, no link, chain or chord
    goes on from it, and neither the task nor the loader has hooks of its own.

    Arguments:
        app: the app of the tasks.
        monotonic: the clock, in seconds, by which tasks, settings and the loader are checked again.
    """

    def __init__(self, app: Celery, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._tasks: dict[str, OutcomeTask | None] = {}
        self._check()
        self.begin()

    def begin(self) -> bool:
        """Begin a batch: check signal receivers, and now and then the rest.

        Returns:
            Whether the rest was checked, so that anything derived from it must be made again.
        """
        checked = self._monotonic() >= self._check_at
        if checked:
            self._check()
        self._any = self._possible and not has_receivers(
            signals.task_prerun, signals.task_postrun, signals.task_success
        )
        return checked

    def task(self, name: str) -> OutcomeTask | None:
        """Return a task whose receipts are result-only; None if it is another one or not known."""
        if not self._any:
            return None
        if name not in self._tasks:
            task = self._app.tasks.get(name)
            eligible = isinstance(task, OutcomeTask) and self._is_eligible(task)
            self._tasks[name] = task if eligible else None  # type: ignore[assignment]
        return self._tasks[name]

    def _check(self) -> None:
        """Check what hardly ever changes while a worker runs."""
        app = self._app
        self._check_at = self._monotonic() + _CHECK_EVERY
        self._tasks = {}
        backend = app.backend
        #: Whether results are stored nowhere.
        self.stores_nowhere = isinstance(backend, DisabledBackend)
        #: Whether a row is all that is stored; or nothing is.
        self.stores_rows = self.stores_nowhere or isinstance(backend, RedisBackend)
        #: Whether rows are stored in the Redis of the backend's URL; Sentinel's backend finds its
        #: Redis in another way.
        self.stores_at_url = type(backend) is RedisBackend
        self._possible = (
            # A backend of the user's own may do more at the end of a task.
            type(backend).__module__.startswith("celery.")
            and not _overrides(app.loader, BaseLoader, _LOADER_HOOKS)
            and not app.conf.result_extended
            and not app.conf.worker_deduplicate_successful_tasks
        )

    def _is_eligible(self, task: OutcomeTask) -> bool:
        return (
            getattr(task.run, "__func__", None) is run
            and not has_hooks(task, ENDS_WELL)
            and not task.track_started
            and task.backend is self._app.backend
        )


def _overrides(given: Any, base: type, hooks: tuple[str, ...]) -> bool:
    """Whether an object's class overrides any of these methods of its base."""
    return any(getattr(type(given), hook) is not getattr(base, hook) for hook in hooks)
