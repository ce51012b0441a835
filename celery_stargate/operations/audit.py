"""Who changed what: each action of an operator is logged, and kept in Redis for a while."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any

import msgspec
from redis.exceptions import OutOfMemoryError

from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.support.log import logger_of

__all__ = ["Action", "Audit", "operator"]

logger = logger_of(__name__)

#: About how many actions are kept.
_KEPT = 1000


class Action(msgspec.Struct, frozen=True):
    """One action of an operator."""

    #: Epoch seconds, by Redis' clock.
    at: float
    who: str
    what: str
    #: What it was done to, and with which result.
    details: dict[str, Any]


def operator() -> str:
    """Return who runs this process: the user and the host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a user id without a name.
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


class Audit:
    """The actions of operators, in a stream beside the registry.

    Every method raises what redis-py raises when Redis is unavailable.

    Arguments:
        redis: a sync client.
        registry: the keys beside which the stream is.
        by: who acts, where that is not who runs this process, such as the user of a web page.
    """

    def __init__(self, redis: Any, registry: RegistryKeys, by: str | None = None) -> None:
        self._redis = redis
        self._by = by
        self._key = registry.key("actions")

    def note(self, what: str, details: Mapping[str, Any]) -> None:
        """Note an action, in Redis and in the log; where Redis is full, in the log only.

        Arguments:
            what: the name of the command.
            details: JSON types only; no payload, no secret.
        """
        who = operator() if self._by is None else f"{self._by}, {operator()}"
        logger.info("%s by %s: %s", what, who, details)
        noted: Any = {"who": who, "what": what, "details": msgspec.json.encode(details)}
        try:
            self._redis.xadd(self._key, noted, maxlen=_KEPT, approximate=True)
        except OutOfMemoryError as error:
            # It may be just what makes room.
            logger.warning("%s is not noted in Redis, which is full: %s", what, error)

    def last(self, count: int) -> list[Action]:
        """Return the last actions, the newest first."""
        found: Any = self._redis.xrevrange(self._key, count=count)
        return [
            Action(
                int(entry.split(b"-")[0]) / 1000,
                stored[b"who"].decode(),
                stored[b"what"].decode(),
                msgspec.json.decode(stored[b"details"]),
            )
            for entry, stored in found
        ]
