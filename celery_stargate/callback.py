"""Callbacks: the signatures that a receipt or a failure triggers, as they are kept in a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery.canvas import Signature, maybe_signature
from kombu.utils import json

from .errors import InvalidMessage

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["freeze_callback", "pack", "unpack"]


def pack(what: str, value: Any) -> str:
    """Return a value as JSON text, with the types that kombu's JSON knows.

    Raises:
        InvalidMessage: JSON cannot carry it; the text begins with ``what``.
    """
    try:
        return str(json.dumps(value))
    except (TypeError, ValueError, RecursionError, UnicodeError) as error:
        raise InvalidMessage(f"{what} cannot be carried by JSON: {error}") from None


def unpack(text: str) -> Any:
    """Return what :func:`pack` packed."""
    return json.loads(text)


def freeze_callback(option: str, given: object, app: Celery) -> str | None:
    """Return a callback as it is kept: its JSON, all task ids in it decided now.

    So that a repeat after a crash publishes the same tasks with the same ids.

    Arguments:
        option: ``on_ack`` or ``on_error``, for the error.
        given: a signature, group, chain or chord, the dict of one, or None.

    Raises:
        InvalidMessage: it is no signature, or JSON cannot carry it.
    """
    if given is None:
        return None
    if not isinstance(given, Signature) and not (isinstance(given, Mapping) and "task" in given):
        raise InvalidMessage(
            f"{option} must be a signature, such as task.s(), a group, chain or chord, "
            f"not {type(given).__name__}"
        )
    packed = pack(option, given)
    signature = maybe_signature(unpack(packed), app=app)
    if signature.get("subtask_type") is None:
        # Its id is made of the context when it is triggered.
        return packed
    signature.freeze()
    return pack(option, signature)
