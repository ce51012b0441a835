"""Effects: what follows an outcome. Results are stored, callbacks published, callers notified."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from celery_stargate.effects.callbacks import callback_id, trigger, trigger_together
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.tracer import OutcomeTracer
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Settled
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.log import logger

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.lanes.outbox import Outbox

__all__ = ["Effects", "callback_id"]


class Effects:
    """Does the effects of settled contexts, in the calling thread.

    Arguments:
        app: the Celery app whose backend and broker get them.
        lanes: where waiting processes are notified; None if only this call waits.
        hostname: the worker's name, for results and events; None outside a worker.
        on_done: called with each context whose effects are done.
        done_matters: whether ``on_done`` has anything to do now; by default it always has.
        beside_lanes: whether the app's results are stored in the Redis that holds the lanes, or
            nowhere.
    """

    def __init__(
        self,
        app: Celery,
        lanes: Outbox | None,
        hostname: str | None = None,
        on_done: Callable[[Settled], None] | None = None,
        *,
        done_matters: Callable[[], bool] = lambda: True,
        beside_lanes: bool = False,
    ) -> None:
        self._app = app
        self._lanes = lanes
        self._hostname = hostname
        self._on_done = on_done
        self._done_matters = done_matters
        self._beside_lanes = beside_lanes
        self._local = threading.local()

    def run(self, settled: Iterable[Settled]) -> list[str]:
        """Do the effects of some contexts, and return the contexts for which they are done.

        All results are stored first, then callbacks are published and callers notified. Results and
        callbacks go together where that is possible, but each context fails for itself: it is
        logged and left out, stays due, and its effects are repeated later.
        """
        stored = self._store_all(settled)
        whole = [each for each in stored if each.record.parent is None]
        triggered = trigger_together(self._app, whole)
        done: list[str] = []
        for each in stored:
            context = each.record.context
            if self._attempt(partial(self._announce, triggered=context in triggered), each):
                done.append(context)
        return done

    def at_once(self, given: Iterable[tuple[Entry, Outcome]]) -> list[Decision]:
        """Decide for each outcome what is left to do in the step that settles it.

        Arguments:
            given: log entries with their outcomes.

        Returns:
            For each: the row that the step is to store; ``NOTHING`` if nothing follows; ``FULL`` if
            :meth:`run` is to do the effects afterwards.
        """
        rows: ResultRows | None = None
        if self._beside_lanes and (self._on_done is None or not self._done_matters()):
            rows = self._here.rows
            rows.begin()
        return [self._decide(rows, entry, outcome) for entry, outcome in given]

    def fail(self, task: str, request: str, failure: Failure, on_error: str | None = None) -> None:
        """Store and tell the failure of a task whose message never came into a lane.

        Arguments:
            task: the name of the task.
            request: its packed request.
            failure: the failure; its context is the task's id.
            on_error: the packed signature to publish.

        Raises:
            Whatever the backend or the broker raises.
        """
        self._here.tracer.trace(task, failure.context, request, failure)
        call = CallOutcomes(failure.context, is_list=False, outcomes=(failure,))
        trigger(self._app, call, on_error, request)

    @property
    def _here(self) -> _ThreadState:
        """What this thread needs, made with the thread's own backend."""
        if not hasattr(self._local, "state"):
            self._local.state = _ThreadState(self._app, self._hostname)
        state: _ThreadState = self._local.state
        return state

    def _decide(self, rows: ResultRows | None, entry: Entry, outcome: Outcome) -> Decision:
        if not isinstance(outcome, Receipt):
            return Remaining.FULL
        if entry.follow_up is FollowUp.NOTHING:
            return Remaining.NOTHING
        if entry.follow_up is FollowUp.MORE or rows is None:
            return Remaining.FULL
        try:
            return rows.decide_early(entry.task, entry.follow_up, outcome)
        except Exception:
            logger.exception("the result of context %s will be stored by itself", outcome.context)
            return Remaining.FULL

    def _store_all(self, settled: Iterable[Settled]) -> list[Settled]:
        """Store results; return the contexts for which that is done."""
        here = self._here
        here.rows.begin()
        stored: list[Settled] = []
        batched: list[Settled] = []
        for each in settled:
            kept = len(here.batch)
            if self._attempt(self._store, each):
                (batched if len(here.batch) > kept else stored).append(each)
        try:
            here.batch.flush()
        except Exception:
            logger.exception("the results of %d contexts will be stored again", len(batched))
            here.batch.drop()
        else:
            stored += batched
        return stored

    def _attempt(self, effect: Callable[[Settled], None], settled: Settled) -> bool:
        try:
            effect(settled)
        except Exception:
            logger.exception(
                "the effects of context %s failed and will be repeated", settled.record.context
            )
            return False
        return True

    def _store(self, settled: Settled) -> None:
        """Store the result of a context's task, or add its row to the batch."""
        record = settled.record
        if record.task is None:
            return
        here = self._here
        outcome: Any = settled.failure if settled.failed else settled.result
        decision: Decision = Remaining.FULL
        if not settled.failed:
            decision = here.rows.decide(record, outcome)
        if decision is Remaining.FULL:
            here.tracer.trace(record.task, record.context, record.request, outcome)
        elif decision is not Remaining.NOTHING:
            here.batch.keep(decision)

    def _announce(self, settled: Settled, *, triggered: bool = False) -> None:
        """Publish a context's callback and tell all who wait for its outcome."""
        record = settled.record
        if record.parent is not None:
            self._settle_parent(record.parent, settled)
            return
        if not triggered:
            trigger(self._app, settled.call, settled.callback, record.request)
        if record.inbox is not None:
            self._require_lanes().inboxes.notify(record.inbox, settled.call)
        if self._on_done is not None:
            self._on_done(settled)

    def _settle_parent(self, parent: tuple[str, str, int], settled: Settled) -> None:
        """Settle one place of a list that spans lanes; for the last place do the list's effects."""
        name, context, place = parent
        lane = Lane.parse(name)
        outcome = settled.failure if settled.failed else settled.outcomes[0]
        lanes = self._require_lanes()
        of_list = msgspec.structs.replace(outcome, context=context)
        _, whole = lanes.settle(lane, of_list, place=place, anyone=True)
        if whole is not None:
            self._store(whole)
            self._here.batch.flush()
            self._announce(whole)
            lanes.finish(lane, [context])

    def _require_lanes(self) -> Outbox:
        if self._lanes is None:
            raise RuntimeError("these effects have no lanes, so no process can be notified")
        return self._lanes


class _ThreadState:
    """What one thread needs to do effects; Celery's backends belong to a thread each."""

    def __init__(self, app: Celery, hostname: str | None) -> None:
        self.batch = ResultBatch(app.backend)
        self.rows = ResultRows(app, self.batch)
        self.tracer = OutcomeTracer(app, hostname, self.batch)
