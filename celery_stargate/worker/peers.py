"""Notice another system's workers on the same prefix: each would run the other's callbacks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.support.bound import bounded
from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Peer", "Peers", "peer_of"]

logger = logger_of(__name__)

#: The time between two looks, in seconds, and for how long a worker that says nothing counts.
_EVERY, _KEPT = 30.0, 120
#: How long one look may take, in seconds.
_BOUND = 2.0


@dataclass(frozen=True)
class Peer:
    """What a worker tells the others about its app."""

    app: str
    #: A digest of the names of its tasks.
    tasks: str
    #: When it counts no more, epoch seconds of Redis.
    until: int = 0


def peer_of(app: Celery) -> Peer:
    """Return what this process's workers tell about an app: its name, and its own tasks."""
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return Peer(str(app.main), digest[:16])


class Peers:
    """Tells the other workers of a prefix about this one, and warns of those with other tasks.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with.
        worker: this one's name.
        ours: about this one.
    """

    def __init__(self, connections: Connections, prefix: str, worker: str, ours: Peer) -> None:
        self._connections = connections
        self._prefix = prefix
        self._key = RegistryKeys(prefix).key("apps")
        self._worker = worker
        self._ours = ours
        self._warned: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stargate-peers", daemon=True)

    def start(self) -> None:
        """Tell and look, now and every 30 s, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Tell and look no more."""
        self._stopped.set()
        self._thread.join(2 * _BOUND)

    def look(self) -> None:
        """Tell the others about this worker, and warn of each that has other tasks, once.

        Raises:
            RedisError, OSError: as redis-py raises them.
        """
        with bounded(_BOUND):
            client: Any = self._connections.sync()
            now = int(client.time()[0])
            ours = Peer(self._ours.app, self._ours.tasks, now + _KEPT)
            with client.pipeline(transaction=False) as pipeline:
                pipeline.hset(self._key, self._worker, msgspec.json.encode(ours))
                pipeline.expire(self._key, _KEPT)
                pipeline.hgetall(self._key)
                *_, found = pipeline.execute()
            others = {bytes(name): _read(stored) for name, stored in found.items()}
            gone = [name for name, each in others.items() if each is None or each.until < now]
            if gone:
                client.hdel(self._key, *gone)
        self._warn(
            (name.decode(errors="replace"), each)
            for name, each in others.items()
            if each is not None and each.until >= now
        )

    def _warn(self, others: Iterable[tuple[str, Peer]]) -> None:
        for name, each in others:
            if each.tasks != self._ours.tasks and each.tasks not in self._warned:
                self._warned.add(each.tasks)
                logger.warning(
                    "worker %s of the app %r has other tasks than this worker of the app %r, and "
                    "the same lanes: each does the other's callbacks. If these are two systems, "
                    "give each its own stargate_prefix; it is %r in both",
                    *(name, each.app, self._ours.app, self._prefix),
                )

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except (RedisError, OSError) as error:
                logger.debug("cannot look for workers of other apps: %s", error)
            if self._stopped.wait(_EVERY):
                return


def _read(stored: bytes) -> Peer | None:
    try:
        return msgspec.json.decode(stored, type=Peer)
    except msgspec.MsgspecError:
        return None
