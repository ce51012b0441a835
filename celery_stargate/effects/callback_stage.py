"""The stage that publishes callbacks: together where that is possible, the others one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from celery_stargate.effects.attempts import Attempts
from celery_stargate.effects.callbacks import trigger, trigger_together
from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.effects.unregistered import Unregistered
from celery_stargate.effects.unstarted import UntilStarted
from celery_stargate.errors import StoreUnavailable

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["CallbackStage"]


class CallbackStage:
    """Publishes the callbacks of jobs.

    Arguments:
        app: its broker gets them.
        attempts: where what became of each is noted.
        in_worker: whether this process should know the tasks of callbacks, and warns of others.
    """

    def __init__(self, app: Celery, attempts: Attempts, *, in_worker: bool) -> None:
        self._app = app
        self._attempts = attempts
        self._unregistered = Unregistered(app) if in_worker else None
        #: Keeps each callback until its task has started; None where the settings do not ask.
        self.until_started: UntilStarted | None = None

    def perform(self, jobs: Sequence[Job]) -> None:
        """Publish the callbacks of some jobs; note in each job what became of it."""
        left, marked, kept = list(jobs), self.until_started is not None, False
        if not self._attempts.is_open(Stage.CALLBACKS):
            self._attempts.begin(Stage.CALLBACKS)
            try:
                self._keep(jobs)
            except StoreUnavailable as error:
                for job in jobs:
                    self._attempts.failed(Stage.CALLBACKS, job, error)
                return
            kept = True
            # Of two with one context only one can be told from what was published.
            named = {job.settled.record.context: job for job in jobs}
            together = trigger_together(
                self._app, named.values(), marked=marked, unregistered=self._unregistered
            )
            for context in together:
                named[context].finish(Stage.CALLBACKS)
            if together:
                self._attempts.succeeded(Stage.CALLBACKS)
                left = [job for job in jobs if Stage.CALLBACKS in job.remaining]

        def publish(job: Job) -> None:
            if not kept:
                self._keep([job])
            trigger(
                *(self._app, job.call, job.callback, job.request, job.trace),
                marked=marked,
                unregistered=self._unregistered,
            )

        self._attempts.each(Stage.CALLBACKS, left, publish)

    def _keep(self, jobs: Sequence[Job]) -> None:
        """Keep callbacks before they are published, where they are kept until they have started."""
        if self.until_started is not None:
            self.until_started.keep(jobs)
