"""Tell that a callback's task has started, in the process that runs it."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.signals import task_prerun, task_revoked

from celery_stargate.calls.runtime import Runtime
from celery_stargate.calls.starts import note_start
from celery_stargate.effects.callbacks import STARTED_HEADER

__all__ = ["StartsStep"]


class StartsStep(bootsteps.Step):
    """Let a worker notice each start of a callback's task, where callbacks are kept until then.

    Also one that owns no lanes. It is made before the pool, whose processes inherit the receiver.
    Elsewhere there is none: with any receiver of this signal Celery does more for each result.
    """

    label = "Stargate's callbacks"

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        if Runtime.of(parent.app).settings.callbacks == "until_started":
            task_prerun.connect(_note, weak=False, dispatch_uid="celery_stargate.started")
            task_revoked.connect(_note_end, weak=False, dispatch_uid="celery_stargate.started")


def _note(sender: Any = None, **_: Any) -> None:
    """Forget what was kept of a callback whose task begins."""
    _tell(sender, sender.request)


def _note_end(sender: Any = None, request: Any = None, **_: Any) -> None:
    """The same of one that was revoked, or has expired: it never begins."""
    _tell(sender, request)


def _tell(task: Any, request: Any) -> None:
    kept = getattr(request, STARTED_HEADER, None)
    # The task may belong to another app, which has no Stargate.
    if kept is not None:
        note_start(Runtime.of(task.app), kept)
