"""Tasks of a chord's header, counted after their results are stored."""

from __future__ import annotations

from typing import Any

from celery import _state

__all__ = ["ChordPart"]


class ChordPart:
    """A task of a chord's header whose result is kept, and which is to be counted after that.

    Celery counts a task when its result is stored: the last one reads the results of all.

    Arguments:
        task: which it is.
        request: of the task.
        given, options: what its backend's ``on_chord_part_return`` gets beside the request.
    """

    def __init__(self, task: Any, request: Any, *given: Any, **options: Any) -> None:
        self._task = task
        self._request = request
        self._given, self._options = given, options

    def count(self, backend: Any) -> None:
        """Let Celery count the task, and publish the chord's body if it is the last one.

        It is the current task meanwhile, as in its tracer: it is the parent of the body.

        Arguments:
            backend: the app's.

        Raises:
            What the backend or the broker raises.
        """
        stack: Any = _state._task_stack  # type: ignore[attr-defined]  # noqa: SLF001  # the tracer's
        stack.push(self._task)
        self._task.request_stack.push(self._request)
        try:
            backend.on_chord_part_return(self._request, *self._given, **self._options)
        finally:
            self._task.request_stack.pop()
            stack.pop()
