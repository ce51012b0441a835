"""Contexts: the ids of calls. Pulsar echoes them, and Celery shows them."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator

from celery_stargate.errors import InvalidMessage

__all__ = [
    "MAX_CONTEXT_SIZE",
    "attempt_context",
    "check_context",
    "is_among",
    "new_context",
    "new_contexts",
]

#: How many bytes a context may have as UTF-8. Celery's ids have 36, and result backends in
#: databases keep 155 or 255. Pulsar echoes a context in each receipt, and the client closes the
#: connection on a reply above 64 KiB: a context of that size would block its lane.
MAX_CONTEXT_SIZE = 512

_RETRY = ".retry-"

#: The hexadecimal digit of a random UUID that says which variant it is, by a random digit.
_VARIANT = {f"{digit:x}": f"{digit & 3 | 8:x}" for digit in range(16)}
#: For how many ids random bytes are fetched at once.
_AT_ONCE = 64


def new_context() -> str:
    """Return a new id that nobody else has: a random UUID, as ``str(uuid.uuid4())`` is.

    It makes no object of the standard library's class, which takes most of the time of that.

    Example:
        >>> uuid.UUID(new_context()).version
        4
    """
    return _uuid(os.urandom(16).hex())


def new_contexts() -> Iterator[str]:
    """Return new ids without an end, each as :func:`new_context` makes them."""
    while True:
        digits = os.urandom(16 * _AT_ONCE).hex()
        for begin in range(0, len(digits), 32):
            yield _uuid(digits[begin : begin + 32])


def _uuid(digits: str) -> str:
    variant = _VARIANT[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def attempt_context(task_id: str, retries: int) -> str:
    """Return the context of an attempt: lanes know the ids of earlier attempts for a while.

    Arguments:
        task_id: of the task.
        retries: how many attempts came before.
    """
    return f"{task_id}{_RETRY}{retries}" if retries else task_id


def is_among(context: str, task_ids: Container[str]) -> bool:
    """Whether a context is one of some tasks, or a later attempt of one."""
    if context in task_ids:
        return True
    task_id, found, number = context.rpartition(_RETRY)
    return bool(found) and number.isdecimal() and task_id in task_ids


def check_context(context: object) -> None:
    """Check the id of a call: a context or a Celery task id.

    Raises:
        InvalidMessage: it is not text, is empty, is longer than 512 bytes as UTF-8, or contains an
            unprintable character (such as a tab, a line end, NUL or a lone surrogate).
    """
    if not isinstance(context, str):
        raise InvalidMessage(
            f"a context (task_id) must be text, not {type(context).__name__}; use str(…)"
        )
    if not context:
        raise InvalidMessage("a context (task_id) must not be empty")
    # Each character has 1 to 4 bytes, so most contexts need not be encoded.
    if len(context) * 4 > MAX_CONTEXT_SIZE:
        size = len(context.encode("utf-8", "replace"))
        if size > MAX_CONTEXT_SIZE:
            raise InvalidMessage(
                f"a context (task_id) has {size} bytes and the limit is {MAX_CONTEXT_SIZE}; use a "
                "shorter id, such as a hash of it"
            )
    if not context.isprintable():
        raise InvalidMessage(
            "a context (task_id) contains an unprintable character; use printable text"
        )
