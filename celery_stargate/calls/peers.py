"""Notice processes on the same prefix that disagree about tasks, lanes, or which Pulsar it is."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from celery_stargate.errors import StargateError, StoreUnavailable
from celery_stargate.lanes.record import RECORD_VERSION
from celery_stargate.lanes.registry import CallerRegistry
from celery_stargate.model.settings import Settings
from celery_stargate.support.bound import bounded
from celery_stargate.support.decoding import UNDECODABLE
from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Peer", "Peers", "PeersThread", "caller_of", "peer_of"]

logger = logger_of(__name__)

#: The time between two looks, in seconds, and for how long a process that says nothing counts.
_EVERY, _KEPT = 30.0, 120
#: How long one look may take, in seconds.
_BOUND = 1.0
#: The port of a service URL that names none.
_PORTS = {"ws": 80, "wss": 443}


class Peer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a process tells the others about itself."""

    #: The name of its app.
    app: str
    #: A digest of the names of its tasks; empty for a caller, which need not import all of them.
    tasks: str = ""
    #: When it counts no more, epoch seconds of Redis.
    until: int = 0
    #: For each topic of its settings: the number of lanes, the partitions, and the delivery.
    topics: dict[str, tuple[int, int | None, str]] = {}
    #: The version of the records that it writes.
    records: int | None = None
    #: Its host, where its name does not tell.
    host: str = ""
    #: Host, port and path of the Pulsar of its settings.
    pulsar: str = ""


def peer_of(app: Celery, settings: Settings | None = None) -> Peer:
    """Return what a worker tells about its app: its name, its own tasks, and its settings."""
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return Peer(
        app=str(app.main),
        tasks=digest[:16],
        topics={} if settings is None else _topics(settings),
        records=RECORD_VERSION,
        pulsar="" if settings is None else _pulsar(settings),
    )


def caller_of(app: Celery, settings: Settings) -> tuple[str, Peer]:
    """Return what a process that calls tells about its app, and under which name.

    All that are alike have one name: there may be thousands.
    """
    peer = Peer(
        app=str(app.main),
        topics=_topics(settings),
        records=RECORD_VERSION,
        host=socket.gethostname(),
        pulsar=_pulsar(settings),
    )
    return f"callers-{hashlib.sha256(msgspec.json.encode(peer)).hexdigest()[:16]}", peer


def _topics(settings: Settings) -> dict[str, tuple[int, int | None, str]]:
    found: dict[str, tuple[int, int | None, str]] = {}
    names: list[str | None] = list(settings.topics)
    if settings.topic is not None:
        names.append(None)
    for name in names:
        topic, options = settings.resolve(name)
        found[str(topic)] = options.lane_count, options.partitions, options.delivery
    return found


def _pulsar(settings: Settings) -> str:
    """Return host, port and path of the service URL, and nothing that may be a secret.

    Behind a proxy, two Pulsars may differ in the path alone.
    """
    parts = urlsplit(settings.url or "")
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(":")
    if not host:
        return ""
    if parts.port is None:
        host = f"{host}:{_PORTS[parts.scheme]}"
    return f"{host}{parts.path}"


class Peers:
    """Tells the other processes of a prefix about this one, and warns of those that disagree.

    Arguments:
        registry: where they are told.
        prefix: what all keys begin with.
        name: this one's.
        ours: about this one.
        monotonic: the clock, in seconds, by which it is time to look again.
    """

    def __init__(
        self,
        registry: CallerRegistry,
        prefix: str,
        name: str,
        ours: Peer,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._prefix = prefix
        self._name = name
        self._ours = ours
        self._monotonic = monotonic
        self._look_at = 0.0
        self._warned: set[object] = set()

    def look_now_and_then(self) -> None:
        """Look, unless this was done within the last minute. Nothing is raised."""
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _KEPT / 2
        try:
            self.look()
        except StargateError as error:
            logger.debug("cannot look for processes that disagree: %s", error)

    def look(self) -> None:
        """Tell the others about this process, and warn once of each that disagrees.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        ours = msgspec.structs.replace(self._ours, until=0)
        with bounded(_BOUND):
            now, found = self._registry.tell_peers(
                self._name,
                lambda now: msgspec.json.encode(msgspec.structs.replace(ours, until=now + _KEPT)),
                _KEPT,
                lambda stored, now: (each := _read(stored)) is None or each.until < now,
            )
        for name, stored in found.items():
            each = _read(stored)
            if each is not None and each.until >= now and name != self._name:
                self._compare(name, each)

    def _compare(self, name: str, peer: Peer) -> None:
        who = f"{'a caller on ' + peer.host if peer.host else 'worker ' + name} ({peer.app!r})"
        ours = self._ours
        if peer.tasks and ours.tasks and peer.tasks != ours.tasks:
            self._warn(
                peer.tasks,
                "worker %s of the app %r has other tasks than this worker of the app %r, and the "
                "same lanes: each does the other's callbacks. If these are two systems, give each "
                "its own stargate_prefix; it is %r in both",
                *(name, peer.app, ours.app, self._prefix),
            )
        if peer.pulsar and ours.pulsar and peer.pulsar != ours.pulsar:
            self._warn(
                ("pulsar", peer.pulsar),
                "%s publishes to Pulsar at %s, and this process to %s: a message goes where the "
                "owner of its lane publishes. If these are not the same Pulsar, give both the same "
                "stargate_url, or each system its own stargate_prefix; it is %r in both",
                *(who, peer.pulsar, ours.pulsar, self._prefix),
            )
        for topic, text in _differences(ours.topics, peer.topics):
            self._warn((topic, text), "%s disagrees about topic %s: %s", *(who, topic, text))
        if peer.records is not None and peer.records != ours.records:
            self._warn(
                ("records", peer.records),
                "%s writes records of version %d, and this process of version %s: an older process "
                "leaves newer records alone. Deploy one version of celery-stargate everywhere",
                *(who, peer.records, ours.records),
            )

    def _warn(self, key: object, text: str, *arguments: object) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(text, *arguments)


def _differences(
    ours: Mapping[str, tuple[int, int | None, str]],
    theirs: Mapping[str, tuple[int, int | None, str]],
) -> Iterable[tuple[str, str]]:
    """Return topics about which two processes disagree, with what to do about it."""
    for topic in ours.keys() & theirs.keys():
        (lanes, partitions, delivery), (its_lanes, its_partitions, its_delivery) = (
            ours[topic],
            theirs[topic],
        )
        if lanes != its_lanes:
            text = (
                f"it has {its_lanes} lanes, and this process has {lanes}, so messages of one key "
                "may go into two lanes and lose their order. Give both the same stargate_lanes"
            )
            yield topic, text
        if partitions != its_partitions:
            text = (
                f"its partitions are {its_partitions}, and {partitions} here. Give both the same "
                "stargate_partitions"
            )
            yield topic, text
        if delivery != its_delivery:
            text = (
                f"its delivery is {its_delivery}, and {delivery} here; that of the lane's owner "
                "counts. Give both the same stargate_delivery"
            )
            yield topic, text


class PeersThread:
    """Tells and looks, now and every 30 s, in a thread of a worker.

    Arguments:
        peers: does it.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stargate-peers", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Tell and look no more."""
        self._stopped.set()
        self._thread.join(2 * _BOUND)

    def _watch(self) -> None:
        while True:
            try:
                self._peers.look()
            except StoreUnavailable as error:
                logger.debug("cannot look for processes that disagree: %s", error)
            if self._stopped.wait(_EVERY):
                return


def _read(stored: Any) -> Peer | None:
    try:
        return msgspec.json.decode(stored, type=Peer)
    except UNDECODABLE:
        return None
