"""Signatures of callbacks, packed as JSON with frozen task ids, as records keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from celery import Task
from celery.canvas import Signature, maybe_signature
from kombu.utils import json

from celery_stargate.errors import InvalidMessage
from celery_stargate.support.decoding import UNDECODABLE

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Callbacks", "freeze_callback", "heads", "is_plain_json", "pack", "unpack"]

#: The key by which kombu's JSON marks a value of an extra type. Without it msgspec reads the same,
#: many times as fast.
_EXTRA_TYPE = '"__type__"'
_decode = msgspec.json.Decoder().decode


def pack(what: str, value: Any) -> str:
    """Return a value as JSON text, with the extra types of kombu's JSON.

    Arguments:
        what: names the value in the error.
        value: what to pack.

    Raises:
        InvalidMessage: JSON cannot represent the value.
    """
    try:
        return str(json.dumps(value))
    except (TypeError, ValueError, RecursionError, UnicodeError) as error:
        raise InvalidMessage(f"{what} cannot be carried by JSON: {error}") from None


def is_plain_json(text: str) -> bool:
    """Whether :func:`pack` packed a value without the extra types of kombu's JSON."""
    return _EXTRA_TYPE not in text


def unpack(text: str) -> Any:
    """Return the value that :func:`pack` packed."""
    if is_plain_json(text):
        try:
            return _decode(text)
        except UNDECODABLE:
            # Python's JSON also has what no other has, such as NaN; else it tells what is wrong.
            pass
    return json.loads(text)


class Callbacks(msgspec.Struct, frozen=True, gc=False):
    """The callbacks of one call, packed, with frozen task ids."""

    on_ack: str | None = None
    on_error: str | None = None

    @classmethod
    def freeze(cls, on_ack: object, on_error: object, app: Celery) -> Callbacks:
        """Check and freeze both callbacks.

        Raises:
            InvalidMessage: as :func:`freeze_callback`.
        """
        if on_ack is None and on_error is None:
            return NO_CALLBACKS
        return cls(
            freeze_callback("on_ack", on_ack, app), freeze_callback("on_error", on_error, app)
        )

    def __bool__(self) -> bool:
        return self.on_ack is not None or self.on_error is not None

    def unpacked(self) -> dict[str, Any]:
        """Return the callbacks that are set, as keyword arguments of a task."""
        given = {"on_ack": self.on_ack, "on_error": self.on_error}
        return {option: unpack(packed) for option, packed in given.items() if packed is not None}


NO_CALLBACKS = Callbacks()

#: The options of a signature that say from where a task comes.
_LINEAGE = ("root_id", "parent_id")

_BARE: dict[str, Any] = {
    "args": (),
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}


def freeze_callback(option: str, given: object, app: Celery) -> str | None:
    """Pack a callback, and choose all task ids in it now.

    A repeat after a crash then publishes the same tasks with the same ids.

    Arguments:
        option: ``on_ack`` or ``on_error``, for the error's text.
        given: a signature, group, chain or chord, the dict of one, or None.
        app: the app of the signature's tasks.

    Raises:
        InvalidMessage: it is not a signature, or JSON cannot represent it.
    """
    if given is None:
        return None
    if not isinstance(given, Signature) and not (isinstance(given, Mapping) and "task" in given):
        if isinstance(given, Task):
            # Celery wraps a function; the name of a task's class is not the name of a task.
            name = given.__name__ if hasattr(given, "__wrapped__") else "task"
            raise InvalidMessage(
                f"{option} is the task {given.name!r}; give its signature, {name}.s()"
            )
        raise InvalidMessage(
            f"{option} must be a signature, such as task.s(), a group, chain or chord, "
            f"not {type(given).__name__}"
        )
    # A dict written by hand may lack fields that every signature has.
    packed = pack(option, {**_BARE, **given})
    try:
        signature: Any = maybe_signature(unpack(packed), app=app)
        if signature.get("subtask_type") is not None:
            signature.freeze()
            return pack(option, _open_lineage(signature))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Raised by Celery's canvas or kombu's JSON for input that they did not write.
        raise InvalidMessage(
            f"{option} is no signature that Celery can read back ({type(error).__name__})"
        ) from None
    if not (
        isinstance(signature["task"], str)
        and isinstance(signature["args"], list)
        and isinstance(signature["kwargs"], dict)
        and isinstance(signature["options"], dict)
    ):
        raise InvalidMessage(
            f"{option} is no signature that Celery can read back (task, args, kwargs or options)"
        )
    # Its id is derived from the context when it is published.
    return packed


def _open_lineage(signature: Any) -> Any:
    """Take the roots and parents out of a frozen canvas that it does not know yet; return it.

    A group that is frozen notes that it has none, and Celery would keep to that when the group is
    published from a task.
    """
    options, given = signature["options"], signature["kwargs"]
    for name in _LINEAGE:
        if options.get(name) is None:
            options.pop(name, None)
    parts = [options.get("chord")]
    if signature.get("subtask_type") is not None:
        parts += [*_list(given.get("tasks")), *_list(given.get("header")), given.get("body")]
    for part in parts:
        if isinstance(part, Mapping):
            _open_lineage(part)
    return signature


def _list(tasks: Any) -> list[Any]:
    """Return the tasks of a chain or group, or the header of a chord, as a list."""
    return [tasks] if isinstance(tasks, Mapping) else list(tasks or ())


def heads(signature: Any) -> list[Any]:
    """Return the tasks of a canvas that start first: those that its trigger is the parent of.

    Arguments:
        signature: a signature, group, chain or chord, as read back from its JSON.
    """
    given = signature["kwargs"]
    match signature.get("subtask_type"):
        case "chain":
            first = given["tasks"][:1]
        case "group":
            first = given["tasks"]
        case "chord":
            first = _list(given["header"])
        case _:
            return [signature]
    return [head for each in first for head in heads(each)]
