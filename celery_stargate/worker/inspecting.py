"""What ``celery inspect`` shows of the produce tasks that wait in a worker's lanes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from celery_stargate.calls.revoking import attempts_of
from celery_stargate.calls.runtime import Runtime
from celery_stargate.lanes.view import LaneView, Waiting
from celery_stargate.model.follow_up import RECEIVED_AT, RECORDED_AT, request_fields
from celery_stargate.support.processes import name_prefix

__all__ = ["ACTIVE", "RESERVED", "TaskInspector"]

ACTIVE, RESERVED = "active", "reserved"

#: How many tasks one answer shows of the lanes, at most: it is one message of the broker.
_LIMIT = 100


class TaskInspector:
    """Shows the produce tasks in the lanes that this process owns.

    A task whose message may have been sent is *active*, any other is *reserved*.

    Every method raises :class:`StoreUnavailable` if Redis did not answer in bounded time.

    Arguments:
        runtime: of the app.
        hostname: the worker's name.
        owner: what the names of this process's owners begin with.
    """

    def __init__(self, runtime: Runtime, hostname: str, owner: str = "") -> None:
        self._runtime = runtime
        self._hostname = hostname
        self._owner = owner or name_prefix()
        self._view = LaneView(runtime.connections, runtime.settings.keyspace)

    def tasks(self, state: str) -> list[dict[str, Any]]:
        """Return up to 100 tasks in a state, as ``Request.info`` shows them."""
        found: list[dict[str, Any]] = []
        for lane in self._lanes():
            for each in self._view.waiting(lane, _LIMIT):
                if each.record.task is not None and _state_of(each) == state:
                    found.append(self._info(each))
                if len(found) == _LIMIT:
                    return found
        return found

    def find(self, ids: Iterable[str]) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return state and description of those of some tasks that are there."""
        wanted = attempts_of(self._runtime.app, ids)
        return {
            wanted[each.record.context]: (_state_of(each), self._info(each))
            for lane in self._lanes()
            for each in self._view.find(lane, list(wanted))
            if each.record.task is not None
        }

    def _lanes(self) -> Any:
        _, lanes = self._runtime.outbox.registry.survey()
        return self._view.owned(lanes, self._owner)

    def _info(self, waiting: Waiting) -> dict[str, Any]:
        record = waiting.record
        request = request_fields(record.request)
        return {
            # A later attempt of a task is in its lane under a name of its own.
            "id": request.get("id") or record.context,
            "name": request.get("shadow") or record.task,
            "args": request.get("argsrepr", ""),
            "kwargs": request.get("kwargsrepr", ""),
            "type": record.task,
            "hostname": self._hostname,
            "time_start": request.get(RECORDED_AT) or request.get(RECEIVED_AT),
            "acknowledged": True,
            "delivery_info": request.get("delivery_info"),
            "worker_pid": os.getpid(),
        }


def _state_of(waiting: Waiting) -> str:
    return ACTIVE if waiting.sent else RESERVED
