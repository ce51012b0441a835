"""Effects: what follows an outcome. The result is stored, callbacks are published, waiters told.

Celery's own tracer does the result, ``link``, ``link_error``, chains and chords, so that every
result backend, signal and option means here what it means for any task
(``celery.app.trace.build_tracer``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.task import Context
from celery.app.trace import build_tracer

from celery_stargate.effects.callbacks import callback_id, trigger, trigger_together
from celery_stargate.effects.results.eligible import ResultOnly
from celery_stargate.effects.results.write import ResultBatch, may_batch
from celery_stargate.effects.signatures import unpack
from celery_stargate.effects.tracer import OUTCOME, OutcomeTask, acting_as
from celery_stargate.errors import ProduceError
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, Settled, settled_to_wire
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import FollowUp, ResultRow
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.support.log import logger

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.lanes.outbox import Outbox

__all__ = ["Effects", "callback_id"]


class Effects:
    """Does the effects of settled contexts, in the calling thread.

    Arguments:
        app: the Celery app whose backend and broker get them.
        lanes: where waiting processes are told; None where nobody outside this call waits.
        hostname: the worker's name, for results and events.
        on_done: called with each context whose effects were done.
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
        """Do the effects of some contexts, each for itself; return those that are done.

        First all results are stored, then callbacks are published and waiters told. What can go
        together goes together, and fails by itself: one that raised is logged and left out, stays
        due, and is done again later.
        """
        stored: list[Settled] = []
        batched: list[Settled] = []
        plain = self._plain
        plain.begin()
        for each in settled:
            kept = len(self._batch)
            if self._attempt(partial(self._store, plain=plain), each):
                (batched if len(self._batch) > kept else stored).append(each)
        try:
            self._batch.flush()
        except Exception:
            logger.exception("the results of %d contexts will be stored again", len(batched))
            self._batch.drop()
        else:
            stored += batched
        whole = [each for each in stored if each.record.parent is None]
        triggered = trigger_together(self._app, whole)
        done: list[str] = []
        for each in stored:
            context = each.record.context
            if self._attempt(partial(self._announce, triggered=context in triggered), each):
                done.append(context)
        return done

    def at_once(self, given: Iterable[tuple[Entry, Outcome]]) -> list[ResultRow | bool]:
        """Say of which outcomes all that follows can be done in the step that settles them.

        Arguments:
            given: messages with their outcomes.

        Returns:
            Of each: the result that the step is to store; True where nothing is to be done; False
            where its effects are to be done afterwards, by :meth:`run`.
        """
        plain: ResultOnly | None = None
        if self._beside_lanes and (self._on_done is None or not self._done_matters()):
            plain = self._plain
            plain.begin()
        found: list[ResultRow | bool] = []
        for entry, outcome in given:
            how: ResultRow | bool = False
            if isinstance(outcome, Receipt):
                if entry.follow_up is FollowUp.NOTHING:
                    how = True
                elif entry.follow_up is not FollowUp.MORE and plain is not None:
                    how = self._at_once(plain, entry, outcome)
            found.append(how)
        return found

    def _at_once(self, plain: ResultOnly, entry: Entry, receipt: Receipt) -> ResultRow | bool:
        try:
            return plain.at_once(entry.task, entry.follow_up, receipt)
        except Exception:
            logger.exception("the result of context %s will be stored by itself", receipt.context)
            return False

    def _attempt(self, effect: Callable[[Settled], None], settled: Settled) -> bool:
        try:
            effect(settled)
        except Exception:
            logger.exception(
                "the effects of context %s failed and will be repeated", settled.record.context
            )
            return False
        return True

    def _store(self, settled: Settled, plain: ResultOnly | None = None) -> None:
        record = settled.record
        if record.task is None:
            return
        if settled.failed:
            self._trace(record, settled.failure)
        else:
            result = settled.result
            if plain is None or not plain.store(record, result):
                self._trace(record, result)

    def _announce(self, settled: Settled, *, triggered: bool = False) -> None:
        record = settled.record
        if record.parent is not None:
            self._settle_parent(record, settled)
            return
        if not triggered:
            self.trigger(settled)
        if record.inbox is not None:
            self._require_lanes().notify(record.inbox, settled_to_wire(settled))
        if self._on_done is not None:
            self._on_done(settled)

    def _require_lanes(self) -> Outbox:
        if self._lanes is None:
            raise RuntimeError("effects outside the lanes have nobody to tell")
        return self._lanes

    def _settle_parent(self, record: Record, settled: Settled) -> None:
        assert record.parent is not None
        name, context, place = record.parent
        lane = Lane.parse(name)
        outcome = settled.failure if settled.failed else settled.outcomes[0]
        named = type(outcome)(**{**_fields(outcome), "context": context})
        lanes = self._require_lanes()
        _, complete = lanes.settle(lane, named, place=place, anyone=True)
        if complete is not None:
            self._store(complete)
            self._batch.flush()
            self._announce(complete)
            lanes.finish(lane, [context])

    def fail(self, task: str, request: str, failure: Failure, on_error: str | None = None) -> None:
        """Tell a task's failure that never got as far as a lane.

        Raises:
            Whatever the backend or the broker raises.
        """
        record = Record(failure.context, task=task, request=request, on_error=on_error)
        self._trace(record, failure)
        self.trigger(Settled(record, (failure,)))

    def _trace(self, record: Record, outcome: Any) -> None:
        request = {
            "delivery_info": {"priority": None, "redelivered": False},
            **(unpack(record.request) if record.request is not None else {}),
            "is_eager": False,
            "hostname": self._hostname,
            OUTCOME: outcome,
        }
        assert record.task is not None
        if isinstance(outcome, Failure) and outcome.code == "revoked":
            self._revoke(record, Context(request), outcome)
            return
        if isinstance(outcome, Failure):
            tracer = self._tracer(record.task, "failed")
        elif may_batch(self._app.backend, request):
            tracer = self._tracer(record.task, "batched")
        else:
            tracer = self._tracer(record.task, "stored")
        with acting_as(self._app):
            traced = tracer(record.context, (), {}, request)
        if isinstance(outcome, Failure):
            told = getattr(traced.info, "retval", None)
            stored = isinstance(told, ProduceError)
            if not stored:
                # The backend was away while the failure was stored, and the tracer stored that.
                raise RuntimeError(f"the failure was not stored: {told!r}")

    def _revoke(self, record: Record, request: Context, failure: Failure) -> None:
        """Tell that a task was revoked, as ``celery.worker.request`` does for one in the pool."""
        task: Any = self._task(record.task or OutcomeTask.default_name)
        store = not (request.ignore_result or task.ignore_result)
        task.backend.mark_as_revoked(
            record.context, failure.reason, request=request, store_result=store
        )
        signals.task_revoked.send(
            sender=task, request=request, terminated=False, signum=None, expired=False
        )

    @property
    def _batch(self) -> ResultBatch:
        """The batch of this thread, over the thread's own backend."""
        if not hasattr(self._local, "batch"):
            self._local.batch = ResultBatch(self._app.backend)
        batch: ResultBatch = self._local.batch
        return batch

    @property
    def _plain(self) -> ResultOnly:
        """The plain results of this thread."""
        if not hasattr(self._local, "plain"):
            self._local.plain = ResultOnly(self._app, self._batch)
        plain: ResultOnly = self._local.plain
        return plain

    def _tracer(self, name: str, way: str) -> Callable[..., Any]:
        """Return Celery's tracer for a task whose message is ``stored`` or ``failed``.

        For a receipt it propagates: where the backend or the broker is away, the error must come
        back to us to be tried again, and not be stored as the task's failure. ``batched``, it is
        the same tracer with a backend that keeps the result until the batch is flushed.
        """
        tracers: dict[tuple[str, str], Callable[..., Any]]
        tracers = self._local.__dict__.setdefault("tracers", {})
        if (name, way) not in tracers:
            task: Any = self._task(name)
            if way == "batched" and task.backend is self._app.backend:
                task = type(task)()
                task.backend = self._batch.backend
            tracers[name, way] = build_tracer(
                name,
                task,
                self._app.loader,
                self._hostname,
                app=self._app,
                propagate=way != "failed",
            )
        return tracers[name, way]

    def _task(self, name: str) -> OutcomeTask:
        task: Any = self._app.tasks.get(name)
        if isinstance(task, OutcomeTask):
            return task
        logger.warning(
            "task %s is not registered here as a produce task; its outcome is told all the same",
            name,
        )
        return self._app.tasks[OutcomeTask.default_name]  # type: ignore[return-value]

    def trigger(self, settled: Settled) -> None:
        """Publish ``on_ack`` or ``on_error``, whichever the outcome calls for."""
        trigger(self._app, settled)


def _fields(outcome: Any) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in outcome.__struct_fields__}
