"""Decide what is left to do for a receipt: nothing, a result row, or all effects."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery_stargate.effects.results.eligible import Eligibility
from celery_stargate.effects.results.template import Fill, ResultTemplate, request_of
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.lanes.record import Record
from celery_stargate.model.follow_up import (
    Decision,
    FollowUp,
    Remaining,
    ResultRow,
    is_plain_id,
    read_request,
)
from celery_stargate.model.outcome import Receipt

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ResultRows"]


class ResultRows:
    """Makes the rows of result-only receipts; writing them is the caller's part.

    Arguments:
        app: the app of the tasks.
        batch: its backend makes the rows that a template cannot make.
        monotonic: the clock, in seconds, by which settings and tasks are checked again.
    """

    def __init__(
        self, app: Celery, batch: ResultBatch, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._batch = batch
        self._eligibility = Eligibility(app, monotonic)
        #: By whether a result has a group, and a parent; None where there can be no template.
        self._templates: dict[tuple[bool, bool], ResultTemplate | None] = {}
        #: What fills in each template for this batch.
        self._fills: dict[tuple[bool, bool], Fill | None] = {}

    def begin(self) -> None:
        """Begin a batch of contexts: check again what is result-only, and fix ``date_done``."""
        checked = self._eligibility.begin()
        if checked:
            self._templates = {}
        self._templates = {
            kind: each for kind, each in self._templates.items() if each is not None and each.lasts
        }
        self._fills = {}

    def decide(self, record: Record, result: Any, *, counted: bool = False) -> Decision:
        """Decide about the result of a settled context's task.

        Arguments:
            record: the context's record.
            result: the receipt, or the list of receipts, as the task returns it.
            counted: whether the caller counts the task for its chord, if it has one.

        Raises:
            What the backend raises when it cannot encode the result.
        """
        task = None if record.task is None else self._eligibility.task(record.task)
        request = read_request(record.request)
        if task is None or request is None or request.retries:
            return Remaining.FULL
        if request.goes_on and not (counted and request.counts):
            return Remaining.FULL
        ignored = request.ignore_result
        if ignored is None:
            ignored = task.ignore_result
        elif task.ignore_result and not ignored:
            # The versions of Celery differ in which of the two counts.
            return Remaining.FULL
        if ignored:
            return Remaining.NOTHING
        if not self._eligibility.stores_rows:
            return Remaining.FULL
        row = self._from_template(record.context, result, request.group, request.parent_id)
        if row is None:
            row = self._from_celery(
                record.context, result, request_of(request.group, request.parent_id)
            )
        return Remaining.NOTHING if row is None else row

    def decide_early(self, task: str, follow_up: FollowUp, receipt: Receipt) -> Decision:
        """Decide about the result of a context that is not settled yet, without its record.

        Arguments:
            task: the name of the task, from the log entry.
            follow_up: from the log entry.
            receipt: the receipt.

        Returns:
            What is left to do in the step that settles the context, or ``FULL`` to do its effects
            afterwards.

        Raises:
            What the backend raises when it cannot encode a result.
        """
        if follow_up not in (FollowUp.RESULT, FollowUp.IGNORED):
            return Remaining.FULL
        found = self._eligibility.task(task)
        if found is None or not is_plain_id(receipt.context):
            return Remaining.FULL
        if follow_up is FollowUp.IGNORED or self._eligibility.stores_nowhere:
            return Remaining.NOTHING
        if found.ignore_result or not self._eligibility.stores_at_url:
            return Remaining.FULL
        return self._from_template(receipt.context, receipt.to_dict()) or Remaining.FULL

    def decide_known(self, record: Record, receipt: Receipt) -> Decision:
        """Decide about the result of a context that is not settled yet, by its record.

        Arguments:
            record: of a context with one message, of which neither a callback goes on nor a waiting
                call.
            receipt: the receipt.

        Returns, and raises:
            As :meth:`decide_early`.
        """
        if record.task is None or record.is_list:
            return Remaining.FULL
        if not (self._eligibility.stores_at_url or self._eligibility.stores_nowhere):
            return Remaining.FULL
        return self.decide(record, receipt.to_dict())

    def _from_template(
        self, context: str, result: Any, group: str | None = None, parent: str | None = None
    ) -> ResultRow | None:
        if not all(each is None or is_plain_id(each) for each in (context, group, parent)):
            return None
        # Celery leaves out what is empty.
        kind = bool(group), bool(parent)
        if kind not in self._fills:
            if kind not in self._templates:
                self._templates[kind] = ResultTemplate.of(self._batch, *kind)
            template = self._templates[kind]
            date = self._app.now().isoformat()
            self._fills[kind] = None if template is None else template.at(date)
        fill = self._fills[kind]
        return None if fill is None else fill(context, result, group, parent)

    def _from_celery(self, context: str, result: Any, request: Any) -> ResultRow | None:
        """Let Celery's backend make a row; None if it stores nothing."""
        kept = len(self._batch)
        self._batch.backend.mark_as_done(context, result, request)
        return self._batch.take_last() if len(self._batch) > kept else None
