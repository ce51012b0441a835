"""Store the results of receipts past Celery's tracer, where it would do nothing but store them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.trace import logger as trace_logger
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from celery.loaders.base import BaseLoader

from celery_stargate.effects.results.template import Fill, ResultTemplate, request_of
from celery_stargate.effects.results.write import ResultBatch, heard_of
from celery_stargate.effects.tracer import OutcomeTask, run
from celery_stargate.lanes.record import Record
from celery_stargate.model.follow_up import FollowUp, Request, ResultRow, is_plain_id, read_request
from celery_stargate.model.outcome import Receipt

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ResultOnly"]

#: What a task may have done around its ``run``.
_TASK_HOOKS = ("__call__", "before_start", "on_success", "after_return")
_LOADER_HOOKS = ("on_task_init", "on_process_cleanup")
#: To look at all this for a message that comes alone would cost more than to store its result.
_LOOK_EVERY = 1.0


class ResultOnly:
    """Stores plain results: those for which Celery's tracer has nothing to do but to store them.

    Nobody hears of them (a signal's receiver, the log), nothing goes on from them (a link, a chain,
    a chord), and neither the task nor the loader has work of its own around a task.

    Arguments:
        app: the app of the tasks.
        batch: keeps the results until they are written.
        monotonic: the clock by which tasks, settings and the loader are looked at again.
    """

    def __init__(
        self, app: Celery, batch: ResultBatch, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._batch = batch
        self._monotonic = monotonic
        self._tasks: dict[str, OutcomeTask | None] = {}
        #: The form, where there is one; and what fills it in for this batch, once that was tried.
        self._form: ResultTemplate | None = None
        self._fill: Fill | None = None
        self._formed = False
        self._look()
        self.begin()

    def begin(self) -> None:
        """Begin a batch of contexts: see who could hear of it, and of what date it is."""
        if self._monotonic() >= self._look_at:
            self._look()
        self._any = (
            self._possible
            and not heard_of(signals.task_prerun, signals.task_postrun, signals.task_success)
            and not trace_logger.isEnabledFor(logging.INFO)
        )
        self._fill, self._formed = None, False
        if self._form is not None and not self._form.lasts:
            self._form = None

    def _look(self) -> None:
        """Look at what hardly ever changes while a worker runs."""
        app = self._app
        self._look_at = self._monotonic() + _LOOK_EVERY
        self._tasks, self._form = {}, None
        backend = app.backend
        self._stores = isinstance(backend, RedisBackend | DisabledBackend)
        self._stores_nowhere = isinstance(backend, DisabledBackend)
        # Sentinel's, and others to come, find their Redis otherwise than by a URL.
        self._stores_in_redis = type(backend) is RedisBackend
        #: Whether there are plain results, as far as that goes.
        self._possible = (
            # A backend of somebody's own may do more at the end of a task.
            type(backend).__module__.startswith("celery.")
            and not _own(app.loader, BaseLoader, _LOADER_HOOKS)
            and not app.conf.result_extended
            and not app.conf.worker_deduplicate_successful_tasks
        )

    def store(self, record: Record, result: Any) -> bool:
        """Store a receipt's result if it is a plain one.

        Returns:
            Whether it was; if not, nothing was done.

        Raises:
            What the backend raises, when it cannot encode the result.
        """
        task = self._task(record.task) if self._any and record.task is not None else None
        if task is None:
            return False
        request = read_request(record.request)
        if request is None or request.goes_on:
            return False
        ignored = request.ignore_result
        if ignored is None:
            ignored = task.ignore_result
        elif task.ignore_result and not ignored:
            # Celery's versions differ in which of both counts.
            return False
        if not ignored:
            if not self._stores:
                return False
            self._store(record.context, result, request)
        return True

    def at_once(self, name: str, follow_up: FollowUp, receipt: Receipt) -> ResultRow | bool:
        """Return the result of a task's call, where it is a plain one.

        Nothing is kept for it: it is to be stored in the step that settles.

        Arguments:
            name: the task's.

        Returns:
            What is to be stored; True where nothing is; False where it is no plain one.

        Raises:
            What the backend raises, when it cannot encode a result.
        """
        known = self._any and follow_up in (FollowUp.RESULT, FollowUp.IGNORED)
        task = self._task(name) if known else None
        if task is None or not is_plain_id(receipt.context):
            return False
        if follow_up is FollowUp.IGNORED or self._stores_nowhere:
            return True
        if task.ignore_result or not self._stores_in_redis:
            return False
        fill = self._filler()
        return False if fill is None else fill(receipt.context, receipt.to_dict())

    def _store(self, context: str, result: Any, request: Request) -> None:
        if request.group is None and request.parent_id is None and is_plain_id(context):
            fill = self._filler()
            if fill is not None:
                self._batch.keep(*fill(context, result))
                return
        about = request_of(request.group, request.parent_id)
        self._batch.backend.mark_as_done(context, result, about)

    def _filler(self) -> Fill | None:
        """Return what fills in the form of this batch; None where there is none."""
        if not self._formed:
            if self._form is None:
                self._form = ResultTemplate.of(self._batch)
            self._formed = True
            if self._form is not None:
                self._fill = self._form.at(self._app.now().isoformat())
        return self._fill

    def _task(self, name: str) -> OutcomeTask | None:
        """Return a task whose results may be plain."""
        if name not in self._tasks:
            task = self._app.tasks.get(name)
            plain = isinstance(task, OutcomeTask) and self._may_be_plain(task)
            self._tasks[name] = task if plain else None  # type: ignore[assignment]
        return self._tasks[name]

    def _may_be_plain(self, task: OutcomeTask) -> bool:
        return (
            getattr(task.run, "__func__", None) is run
            and all(_is_celerys(getattr(type(task), hook)) for hook in _TASK_HOOKS)
            and not task.track_started
            and task.backend is self._app.backend
        )


def _is_celerys(method: Any) -> bool:
    """Whether a method is Celery's own.

    A worker puts another ``__call__`` into Celery's base class, its stack protection
    (``celery.app.trace.setup_worker_optimizations``); ``task_has_custom`` takes it for the task's.
    """
    return str(getattr(method, "__module__", "")).startswith("celery.")


def _own(given: Any, base: type, hooks: tuple[str, ...]) -> bool:
    """Whether an object has any of some methods that are not its base's."""
    return any(getattr(type(given), hook) is not getattr(base, hook) for hook in hooks)
