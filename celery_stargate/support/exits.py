"""What users' code raises to end its program, such as `sys.exit()` in a hook, as an ordinary error.

An event loop ends on such an exception, and every lane of the process would stand still.
"""

from __future__ import annotations

import threading

from celery.exceptions import SoftTimeLimitExceeded

__all__ = ["CodeExited", "as_error"]


class CodeExited(RuntimeError):
    """Code of the project tried to end the thread that ran it."""


def as_error(error: BaseException) -> Exception:
    """Return an exception as one that an ``except Exception`` takes.

    In the main thread the program may well be meant: a signal handler raises there, Celery's for
    the soft time limit of a task, too.

    Arguments:
        error: what was raised.

    Raises:
        BaseException: the error itself, if it is to end the program's main thread, or its task.
    """
    if isinstance(error, Exception) and not isinstance(error, SoftTimeLimitExceeded):
        return error
    if threading.current_thread() is threading.main_thread():
        raise error
    if isinstance(error, Exception):
        return error
    exited = CodeExited(f"{type(error).__name__} was raised: {error}")
    exited.__cause__ = error
    return exited
