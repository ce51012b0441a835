"""What a callback inherits from the task whose outcome triggers it, as Celery's links do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery_stargate.effects.headers import user_headers
from celery_stargate.effects.signatures import heads, unpack
from celery_stargate.effects.tracer import CALL
from celery_stargate.model.follow_up import RECEIVED_AT, RECORDED_AT

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Inherited", "inherited"]


@dataclass(frozen=True, slots=True)
class Inherited:
    """Options of ``apply_async``, and stamps."""

    options: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, Any] = field(default_factory=dict)

    def apply_to(self, callback: Any) -> dict[str, Any]:
        """Stamp a callback, and return the options that it does not have of its own.

        Arguments:
            callback: a signature, group, chain or chord; it keeps stamps of its own.
        """
        given = callback["options"]
        own = given.get("stamped_headers") or ()
        stamps = {header: value for header, value in self.stamps.items() if header not in own}
        if stamps:
            callback.stamp(None, append_stamps=False, **stamps)
        if "parent_id" in self.options and callback.get("subtask_type") is not None:
            # Celery gives it to the tasks of a group only.
            for head in heads(callback):
                head["options"].setdefault("parent_id", self.options["parent_id"])
        options = {name: value for name, value in self.options.items() if name not in given}
        if "headers" in self.options and given.get("headers"):
            options["headers"] = {**self.options["headers"], **given["headers"]}
        if callback.get("subtask_type") == "chord":
            # A chord would give the rest to its body alone.
            options = {name: options[name] for name in ("parent_id", "root_id") if name in options}
        return options


_NOTHING = Inherited()


def inherited(app: Celery, context: str, request: str | None) -> Inherited:
    """Return what the callback of a task's call inherits.

    Arguments:
        app: its ``task_inherit_parent_priority`` counts.
        context: the id of the task.
        request: its packed request; None for a call without a task.
    """
    if request is None:
        return _NOTHING
    fields: dict[str, Any] = unpack(request)
    for own in (RECORDED_AT, RECEIVED_AT, CALL):
        # Celery would take these for headers of the user.
        fields.pop(own, None)
    get = fields.get
    options: dict[str, Any] = {"parent_id": context, "root_id": get("root_id") or context}
    if given := user_headers(fields):
        options["headers"] = given
    if get("replaced_task_nesting"):
        options["replaced_task_nesting"] = get("replaced_task_nesting")
    priority = (get("delivery_info") or {}).get("priority")
    if priority is not None and app.conf.task_inherit_parent_priority:
        options["priority"] = priority
    stamps = get("stamps") or {}
    headers = get("stamped_headers") or ()
    return Inherited(options, {header: stamps[header] for header in headers if header in stamps})
