"""Which tasks have hooks of their own: methods that Celery calls around a task's end."""

from __future__ import annotations

from typing import Any

__all__ = ["ENDS_WELL", "HOOKS", "has_hooks"]

#: Those that are called where a task succeeds.
ENDS_WELL = ("__call__", "before_start", "on_success", "after_return")
#: All of them.
HOOKS = (*ENDS_WELL, "on_failure", "on_retry")


def has_hooks(task: Any, hooks: tuple[str, ...] = HOOKS) -> bool:
    """Whether a task's class has one of some hooks that is not Celery's.

    ``celery.app.trace.task_has_custom`` would not do: a worker replaces ``__call__`` of Celery's
    base class (stack protection, ``setup_worker_optimizations``), and it takes that for a custom
    one.
    """
    return any(
        not str(getattr(getattr(type(task), hook), "__module__", "")).startswith("celery.")
        for hook in hooks
    )
