"""Calls that are made when a transaction commits: checked now, and made with what was checked."""

from __future__ import annotations

from typing import Any

from celery import uuid

from celery_stargate.calls.arguments import Arguments, kept_arguments
from celery_stargate.calls.runtime import Runtime
from celery_stargate.model.message import check_messages

__all__ = ["OnCommit", "frozen_arguments"]


def frozen_arguments(
    task: Any, args: Any, kwargs: Any, context: str
) -> tuple[tuple[Any], dict[str, Any]]:
    """Check a call that is made later, and return its arguments as they are now.

    What the caller changes meanwhile, such as a dict that it fills anew, is not in them.

    Arguments:
        task: the produce task.
        args, kwargs: as in ``apply_async``.
        context: the id of the call.

    Raises:
        InvalidMessage, ConfigurationError: as the produce task's class says.
    """
    given, runtime = Arguments.read(args, kwargs), Runtime.of(task.app)
    # Its trace begins with the call itself: the transaction may still roll back.
    _, asked = task.checked(runtime, given, context, traced=False)
    messages, is_list = check_messages(given.message)
    kept = kept_arguments(given.topic, asked.timeout, via=given.via) | asked.callbacks.unpacked()
    return (messages if is_list else messages[0],), kept


class OnCommit:
    """What a task class like Django's adds: calls that are made when a transaction commits.

    Celery's own methods return nothing; these return the result, whose id is known at once.
    """

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``delay`` when the transaction commits, and return its result now.

        Raises:
            InvalidMessage, ConfigurationError: now, so that the transaction can roll back.
        """
        return self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Call ``apply_async`` when the transaction commits, and return its result now.

        Raises:
            InvalidMessage, ConfigurationError: now, so that the transaction can roll back.
        """
        task: Any = self
        task_id = task_id or uuid()
        args, kwargs = frozen_arguments(task, args, kwargs, task_id)
        above: Any = super()
        above.apply_async_on_commit(args, kwargs, task_id=task_id, **options)
        return task.AsyncResult(task_id)
