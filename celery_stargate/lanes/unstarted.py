"""Callbacks that were published and whose tasks have not started: kept until then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from celery_stargate.lanes.connections import Connections, store_errors
from celery_stargate.lanes.registry import RegistryKeys, is_wrong_type
from celery_stargate.lanes.scripts import Argument, Scripts
from celery_stargate.support.bound import call_bound
from celery_stargate.support.log import logger_of

__all__ = ["Overdue", "UnstartedCallbacks"]

logger = logger_of(__name__)

#: How many callbacks one call claims at most: a script must not hold Redis for long.
_COUNT = 100


class Overdue(NamedTuple):
    """What a look for overdue callbacks found."""

    #: Task id and body of those to publish again.
    again: dict[str, bytes]
    #: The task ids of those that were given up, and are forgotten.
    given_up: list[str]


class UnstartedCallbacks:
    """The callbacks of all lanes of one prefix, by their task ids.

    Every method raises :class:`StoreUnavailable` if Redis did not answer within the bound around
    the call, or within 5 s where there is none.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with (``stargate_prefix``).
    """

    def __init__(self, connections: Connections, prefix: str) -> None:
        self._connections = connections
        self._scripts = Scripts(connections)
        keys = RegistryKeys(prefix)
        self._keys = [keys.key("unstarted"), keys.key("unstarted-callbacks")]

    def keep(self, bodies: Mapping[str, bytes], after: float) -> None:
        """Keep callbacks; to be called before they are published.

        Arguments:
            bodies: what is needed to publish each again, by task id.
            after: seconds until they are published again.
        """
        arguments: list[Argument] = [round(after * 1000)]
        for task_id, body in bodies.items():
            arguments += (task_id, body)
        self._run("keep", arguments)

    def started(self, *task_ids: str) -> None:
        """Forget callbacks whose tasks have started; at least one."""
        when, kept = self._keys
        with (
            call_bound(),
            store_errors(),
            self._connections.sync().pipeline(transaction=False) as pipeline,
        ):
            pipeline.zrem(when, *task_ids)
            pipeline.hdel(kept, *task_ids)
            pipeline.execute()

    def overdue(self, after: float, bound: float) -> Overdue:
        """Claim up to 100 callbacks whose tasks have not started in time.

        Arguments:
            after: seconds until they are published once more, at least.
            bound: seconds after which a callback is given up.
        """
        reply = self._run("overdue", [round(after * 1000), round(bound * 1000), _COUNT])
        found: dict[str, bytes] = {
            task_id.decode("utf-8", "replace"): body
            for task_id, body in zip(reply[::2], reply[1::2], strict=True)
        }
        again = {task_id: body for task_id, body in found.items() if body}
        return Overdue(again, [task_id for task_id in found if task_id not in again])

    def _run(self, name: str, arguments: list[Argument]) -> Any:
        with call_bound(), store_errors():
            try:
                return self._scripts.run(f"registry/{name}", self._keys, arguments)
            except Exception as error:
                if not is_wrong_type(error):
                    raise
                types: list[Argument] = ["zset", "hash"]
                if self._scripts.run("registry/heal", self._keys, types):
                    logger.error("a key of the unstarted callbacks was of a wrong type; it is lost")
                return self._scripts.run(f"registry/{name}", self._keys, arguments)
