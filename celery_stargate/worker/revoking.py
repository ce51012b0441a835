"""Remote control: revocations are written to the lanes, and ``inspect`` shows what waits there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.utils.functional import maybe_list
from celery.worker import control
from celery.worker.consumer.control import Control

from celery_stargate.calls.revoking import Revoker
from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.apart import EffectsApart
from celery_stargate.errors import ConfigurationError, StoreUnavailable
from celery_stargate.support.log import logger_of
from celery_stargate.worker.events import TaskEvents
from celery_stargate.worker.inspecting import ACTIVE, RESERVED, TaskInspector

__all__ = ["ControlStep"]

logger = logger_of(__name__)

#: Celery's own handlers; its decorator hides them from type checkers.
_celerys: Any = control

#: Seconds until a revocation that Redis did not take is tried again.
_RETRY = 1.0


class ControlStep(bootsteps.StartStopStep):
    """Put our handlers of remote control commands before Celery's, in this worker only.

    Celery looks handlers up by name for each command; each of ours calls Celery's.
    """

    requires = (Control,)
    label = "Stargate control"

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._consumer = parent
        self._made: Revoker | None = None

    def start(self, parent: Any) -> None:
        """Take the place of Celery's handlers, wherever the worker has remote control."""
        for step in parent.steps:
            if isinstance(step, Control):
                box: Any = getattr(step, "box")  # noqa: B009  # its types do not know it
                box.node.handlers = {**box.node.handlers, **self.handlers()}

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Return our handlers, by the name of the command."""
        return {
            "revoke": self._revoke,
            "terminate": self._terminate,
            "revoke_by_stamped_headers": self._revoke_by_stamped_headers,
            "query_task": self._query_task,
            **{name: partial(self._show, ACTIVE) for name in ("active", "dump_active")},
            **{name: partial(self._show, RESERVED) for name in ("reserved", "dump_reserved")},
        }

    def _revoke(self, state: Any, task_id: Any, **kwargs: Any) -> Any:
        """Revoke tasks by id; what may have been sent already is left to its receipt."""
        wanted = {str(each) for each in maybe_list(task_id) or ()}
        sent = self._by_id(sorted(wanted))
        if sent:
            logger.info("not revoked, because they may have been sent: %s", ", ".join(sorted(sent)))
        return _celerys.revoke(state, sorted(wanted - sent), **kwargs)

    def _terminate(self, state: Any, signal: Any, task_id: Any, **kwargs: Any) -> Any:
        return self._revoke(state, task_id, terminate=True, signal=signal)

    def _revoke_by_stamped_headers(self, state: Any, headers: Any, **kwargs: Any) -> Any:
        if isinstance(headers, list):
            headers = dict(each.split("=", 1) for each in headers)
        self._by_stamps(headers)
        return _celerys.revoke_by_stamped_headers(state, headers, **kwargs)

    def _query_task(self, state: Any, ids: Any, **kwargs: Any) -> Any:
        """Show tasks by id, those in the lanes and Celery's own."""
        wanted = [str(each) for each in maybe_list(ids) or ()]
        return {
            **self._look(lambda lanes: lanes.find(wanted), {}),
            **_celerys.query_task(state, ids),
        }

    def _show(self, kind: str, state: Any, **kwargs: Any) -> Any:
        """Show the tasks in a state, Celery's own first."""
        celerys = getattr(_celerys, kind)(state, **kwargs)
        return celerys + self._look(lambda lanes: lanes.tasks(kind), [])

    def _look(self, call: Callable[[TaskInspector], Any], nothing: Any) -> Any:
        consumer = self._consumer
        try:
            return call(TaskInspector(Runtime.of(consumer.app), consumer.hostname))
        except (ConfigurationError, StoreUnavailable) as error:
            logger.warning("what waits in the lanes cannot be shown: %s", error)
            return nothing

    def _by_id(self, contexts: list[str]) -> set[str]:
        """Write a revocation to the lanes; while Redis is away, again later."""
        try:
            return self._revoker.revoke(contexts)
        except StoreUnavailable as error:
            self._later(error, self._by_id, contexts)
        except ConfigurationError as error:
            logger.debug("no lanes to revoke in: %s", error)
        return set()

    def _by_stamps(self, headers: Any) -> None:
        try:
            self._revoker.revoke_stamped(headers)
        except StoreUnavailable as error:
            self._later(error, self._by_stamps, headers)
        except ConfigurationError as error:
            logger.debug("no lanes to revoke in: %s", error)

    def _later(self, error: StoreUnavailable, again: Callable[[Any], Any], given: Any) -> None:
        logger.warning("%s; the revocation is written again in %.0f s", error, _RETRY)
        self._consumer.timer.call_after(_RETRY, again, (given,))

    @property
    def _revoker(self) -> Revoker:
        if self._made is None:
            consumer = self._consumer
            runtime = Runtime.of(consumer.app)
            events = TaskEvents(consumer.app, lambda: consumer)
            effects = runtime.make_effects(consumer.hostname, events.done, events.wanted)
            self._made = Revoker(runtime, EffectsApart(effects, runtime.outbox))
        return self._made
