"""Fixtures of the integration tests: apps of their own on the shared Redis and Pulsar."""

from __future__ import annotations

import gc
import socket
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from celery import Celery
from redis.crc import key_slot

from celery_stargate import Stargate
from celery_stargate.lanes.scripts import LANE_PARTS, AsyncScripts, Scripts
from celery_stargate.testing import LocalPulsar
from tests.integration.rig import Triggered
from tests.servers.fixtures import PulsarAddress, ServerAddress
from tests.servers.ports import free_ports

_HERE = Path(__file__).parent


#: What Celery does, and not we: its result backends never close their sockets, and its Redis
#: backend calls what redis-py 8 calls deprecated.
_CELERYS = (
    "ignore:unclosed <socket:ResourceWarning",
    "ignore:Call to deprecated setex:DeprecationWarning",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Take no offence at Celery's own warnings."""
    if item.path.is_relative_to(_HERE):
        for each in _CELERYS:
            item.add_marker(pytest.mark.filterwarnings(each))


@pytest.fixture(scope="session", autouse=True)
def _collect() -> Iterator[None]:
    """Collect what the last test left, before pytest takes a socket in it for an error."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def _one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that each script touches one slot, on a single server too."""

    def check(name: str, keys: Sequence[str]) -> None:
        # Result rows, or the list of lanes, come after the lane's own keys. On a Cluster there are
        # no rows, and a list is in the slot of its lanes.
        own = keys
        if name == "complete":
            own = keys[: len(LANE_PARTS) + 1]
        elif name in {"put", "put_many", "retire"} or (name == "registry/announce" and keys[2:]):
            own = keys[:-2]
        slots = {key_slot(key.encode()) for key in own}
        assert len(slots) == 1, f"{name} touches {len(slots)} slots: {own}"

    def checked(plain: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Any, name: str, *rest: Any) -> Any:
            runs = [rest] if plain.__name__ == "run" else rest[0]
            for keys, _ in runs:
                check(name, keys)
            return plain(self, name, *rest)

        return run

    for kind in (Scripts, AsyncScripts):
        for method in ("run", "run_many"):
            monkeypatch.setattr(kind, method, checked(getattr(kind, method)))


class MakeApp(Protocol):
    """Make a Celery app with a Stargate."""

    def __call__(self, url: str | None = ..., **settings: Any) -> Celery:
        """Return it.

        Arguments:
            url: of Pulsar; by default the real one's.
            settings: of Stargate, without their prefix; of Celery, in ``conf``.
        """


@pytest.fixture
def prefix(redis_server: ServerAddress) -> Iterator[str]:
    """What all Redis keys of a test begin with; they are gone afterwards."""
    name = f"it-{uuid.uuid4().hex[:12]}"
    yield name
    with redis.Redis.from_url(redis_server.url) as client:
        keys = list(client.scan_iter(f"{name}*", count=1000))
        if keys:
            client.delete(*keys)


@pytest.fixture
def topic() -> str:
    """The full name of a topic that nobody used."""
    return f"persistent://public/default/integration-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections, and that nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", *free_ports(1)))
        yield held.getsockname()[1]


@pytest.fixture
def make_app(
    request: pytest.FixtureRequest, redis_server: ServerAddress, prefix: str, topic: str
) -> Iterator[MakeApp]:
    """Make apps with Redis as broker and backend, whose lanes have a short lease.

    The last one made is Celery's current one.
    """
    made: list[Celery] = []

    def make(url: str | None = "", **settings: Any) -> Celery:
        conf = settings.pop("conf", {})
        app = Celery("integration", set_as_current=True)
        app.conf.update(
            broker_url=redis_server.url,
            result_backend=redis_server.url,
            broker_transport_options={"global_keyprefix": f"{prefix}:"},
            result_backend_transport_options={"global_keyprefix": f"{prefix}:"},
            broker_connection_retry_on_startup=False,
            task_default_queue="callbacks",
        )
        if url == "":
            address: PulsarAddress = request.getfixturevalue("pulsar")
            url = address.url
        own = {
            "url": url,
            "topic": topic,
            "prefix": prefix,
            "lease": 2.0,
            "drain_timeout": 2.0,
            "produce_timeout": 20.0,
            **settings,
        }
        app.conf.update({f"stargate_{name}": value for name, value in own.items()})
        app.conf.update(conf)
        Stargate(app)
        made.append(app)
        return app

    yield make
    for app in reversed(made):
        Stargate.of(app).close()
        app.close()


@pytest.fixture
def app(make_app: MakeApp) -> Celery:
    """An app on the real Pulsar, with the usual settings."""
    return make_app()


@pytest.fixture
def stargate(app: Celery) -> Stargate:
    """The app's Stargate."""
    return Stargate.of(app)


@pytest.fixture
def triggered(app: Celery) -> Triggered:
    """The callbacks that the app published."""
    return Triggered(app)


@pytest.fixture
def local() -> Iterator[LocalPulsar]:
    """A LocalPulsar, for faults that the real broker does not have on demand."""
    with LocalPulsar() as local:
        yield local
