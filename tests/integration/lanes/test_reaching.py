"""Each way to reach one server: TLS, Unix sockets, users and credential providers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from celery_stargate import Acknowledger, ProduceError, Stargate, StoreUnavailable
from celery_stargate.lanes.configured import find_target
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.target import Target
from celery_stargate.operations.dead_views import DeadResult
from celery_stargate.support.bound import bounded
from celery_stargate.testing import LocalPulsar
from tests.contract.wire import wait_until
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.servers import redis as redis_module
from tests.servers.credentials import TLSFiles, make_tls, tls_missing_reason
from tests.servers.fixtures import require
from tests.servers.ports import ports_with_bus
from tests.servers.redis import RedisServer

USER, PASSWORD = "lanes", "p@:/%#?w"
_QUOTED = "p%40%3A%2F%25%23%3Fw"


class Provider(redis.CredentialProvider):
    """Gives the user and the password."""

    def get_credentials(self) -> tuple[str, str]:
        """Return them."""
        return USER, PASSWORD


PROVIDER = f"{__name__}:Provider"


class Reachable:
    """A server that is reached by TCP, TLS and a Unix socket."""

    def __init__(self, server: RedisServer, tls_port: int, path: Path, tls: TLSFiles) -> None:
        self.port = server.port
        self.tls_port = tls_port
        self.path = path
        self.tls = tls

    def reload(self) -> None:
        """Let it read its certificates again, and end all connections over TLS."""
        with redis.Redis(port=self.port) as client:
            files = self.tls.server_certificate, self.tls.server_key, self.tls.ca
            names = "tls-cert-file", "tls-key-file", "tls-ca-cert-file"
            pairs = [str(each) for pair in zip(names, files, strict=True) for each in pair]
            client.execute_command("CONFIG", "SET", *pairs)
            client.execute_command("CLIENT", "KILL", "USER", USER)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reachable]:
    """It has a user besides the default one, and demands a client's certificate for TLS."""
    with _reachable(tmp_path_factory.mktemp("reached"), {}) as server:
        yield server


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Reachable]:
    """Such a server that is the only node of a Cluster."""
    with _reachable(tmp_path / "node", {"cluster-enabled": "yes", "tls-cluster": "yes"}) as node:
        with redis.Redis(port=node.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: "ok" in str(client.execute_command("CLUSTER INFO")), "slots")
        yield node


@contextmanager
def _reachable(folder: Path, more: dict[str, str]) -> Iterator[Reachable]:
    require(redis_module.missing_reason())
    require(tls_missing_reason())
    tls = make_tls(folder)
    # A node of a Cluster listens above its TLS port, too.
    [port] = ports_with_bus(1)
    path = folder / "r.sock"
    config = {
        "tls-port": str(port),
        "tls-cert-file": str(tls.server_certificate),
        "tls-key-file": str(tls.server_key),
        "tls-ca-cert-file": str(tls.ca),
        "tls-auth-clients": "yes",
        "unixsocket": str(path),
    }
    with RedisServer(folder / "redis", config={**config, **more}) as server:
        with redis.Redis(port=server.port) as client:
            rules = ["on", f">{PASSWORD}", "~*", "&*", "+@all"]
            client.execute_command("ACL", "SETUSER", USER, *rules)
            client.config_set("bind", "127.0.0.1 127.0.0.2")
        yield Reachable(server, port, path, tls)


def works(target: Target, prefix: str, lane: Lane) -> str:
    """Use both clients; return the user that the server sees."""
    connections = Connections(target)
    lanes = Outbox(connections, prefix)
    put(lanes, lane, "a")
    assert lanes.backlog(lane) == 1

    async def ask() -> Any:
        client = connections.asyncio()
        try:
            return await client.acl_whoami()
        finally:
            await client.aclose()

    seen = asyncio.run(ask())
    assert connections.sync().acl_whoami() == seen
    client = connections.sync()
    client.delete(*client.keys(f"{prefix}*"))
    connections.close()
    return str(seen)


def celery(broker: str | None = None, backend: str | None = None, **conf: Any) -> Celery:
    """Return an app."""
    made = Celery("reaching", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(conf)
    return made


@pytest.mark.parametrize("place", ["setting", "backend", "broker", "options"])
def test_tls(server: Reachable, prefix: str, lane: Lane, place: str) -> None:
    """With an authority and a client's certificate of one's own, from each place."""
    tls = {
        "ssl_ca_certs": str(server.tls.ca),
        "ssl_certfile": str(server.tls.client_certificate),
        "ssl_keyfile": str(server.tls.client_key),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
    }
    url = f"rediss://{USER}:{_QUOTED}@localhost:{server.tls_port}/0"
    if place == "setting":
        query = "&".join(f"{key}={value}" for key, value in tls.items() if key != "ssl_cert_reqs")
        target = find_target(celery(), f"{url}?{query}&ssl_cert_reqs=CERT_REQUIRED", {})
    elif place == "backend":
        target = find_target(celery("amqp://", url, redis_backend_use_ssl=tls), None, {})
    elif place == "broker":
        target = find_target(celery(url, "rpc://", broker_use_ssl=tls), None, {})
    else:
        target = find_target(celery(), url.replace("rediss", "redis"), tls)
    assert works(target, prefix, lane) == USER


@pytest.mark.parametrize("scheme", ["rediss", "redisclusters"])
def test_renewed_certificates(request: pytest.FixtureRequest, tmp_path: Path, scheme: str) -> None:
    """Clients that lose their connections read the files again: no process must restart."""
    server = request.getfixturevalue("server" if scheme == "rediss" else "node")
    tls = server.tls
    target = find_target(
        celery(),
        f"{scheme}://{USER}:{_QUOTED}@localhost:{server.tls_port}/0",
        {
            "ssl_ca_certs": str(tls.ca),
            "ssl_certfile": str(tls.client_certificate),
            "ssl_keyfile": str(tls.client_key),
        },
    )
    connections = Connections(target)

    async def ask() -> None:
        client = connections.asyncio()
        try:
            assert await client.acl_whoami() == connections.sync().acl_whoami() == USER
            # Of another authority: what was good before is not any more.
            make_tls(tmp_path / "new").copy_to(tls)
            server.reload()
            assert await client.acl_whoami() == connections.sync().acl_whoami() == USER
        finally:
            await client.aclose()

    with bounded(10.0):
        asyncio.run(ask())
    connections.close()


def test_an_app_on_a_cluster_over_tls(make_app: MakeApp, node: Reachable) -> None:
    """Callers, the owner of the lanes and the commands; the broker is elsewhere."""
    tls = {
        "ssl_ca_certs": str(node.tls.ca),
        "ssl_certfile": str(node.tls.client_certificate),
        "ssl_keyfile": str(node.tls.client_key),
    }
    url = f"redisclusters://{USER}:{_QUOTED}@localhost:{node.tls_port}"
    with LocalPulsar() as local:
        app = make_app(local.url, redis_url=url, redis_options=tls, lanes=4)
        stargate = Stargate.of(app)
        with Acknowledger(app):
            task = app.tasks["celery_stargate.produce"]
            assert task.delay("a").get(timeout=20)["status"] == "stored"
            assert len(stargate.produce_many([(f"k{n}", "b") for n in range(20)], timeout=20)) == 20
            local.faults.fail_sends("PulsarClientException$NotAllowedException: no", count=1)
            with pytest.raises(ProduceError):
                task.delay("c").get(timeout=20)
        letters = stargate.dead_letters
        changes = letters.discard(list(letters.letters()))
        assert [each.result for each in changes] == [DeadResult.DONE]


def test_a_certificate_with_another_name_is_refused(
    server: Reachable, prefix: str, lane: Lane
) -> None:
    """Unless the settings say not to look."""
    tls = {
        "ssl_ca_certs": str(server.tls.ca),
        "ssl_certfile": str(server.tls.client_certificate),
        "ssl_keyfile": str(server.tls.client_key),
    }
    # The certificate is for localhost and 127.0.0.1.
    url = f"rediss://{USER}:{_QUOTED}@127.0.0.2:{server.tls_port}/0"
    with pytest.raises(StoreUnavailable, match="(?i)certificate"), bounded(2.0):
        works(find_target(celery(), url, tls), prefix, lane)
    trusting = {"ssl_cert_reqs": ssl.CERT_NONE, **tls}
    assert works(find_target(celery(), url, trusting), prefix, lane) == USER


@pytest.mark.parametrize("place", ["setting", "unix", "backend", "broker"])
def test_a_unix_socket(server: Reachable, prefix: str, lane: Lane, place: str) -> None:
    """With a database, as Celery and redis-py write it."""
    url = f"redis+socket://{server.path}?virtual_host=3"
    if place == "setting":
        target = find_target(celery(), url, {})
    elif place == "unix":
        target = find_target(celery(), f"unix://{server.path}?db=3", {})
    elif place == "backend":
        target = find_target(celery("amqp://", url), None, {})
    else:
        target = find_target(celery(url, "rpc://"), None, {})
    assert target.parameters["db"] == 3
    assert works(target, prefix, lane) == "default"


@pytest.mark.parametrize("place", ["setting", "backend", "broker", "options"])
def test_a_credential_provider(server: Reachable, prefix: str, lane: Lane, place: str) -> None:
    """From each place."""
    bare = f"redis://127.0.0.1:{server.port}/0"
    url = f"{bare}?credential_provider={PROVIDER}"
    if place == "setting":
        target = find_target(celery(), url, {})
    elif place == "backend":
        target = find_target(celery("amqp://", url), None, {})
    elif place == "broker":
        target = find_target(celery(url, "rpc://"), None, {})
    else:
        target = find_target(celery(), bare, {"credential_provider": Provider()})
    assert works(target, prefix, lane) == USER


def test_a_password_that_is_rotated(server: Reachable, prefix: str, lane: Lane) -> None:
    """A provider is asked for each connection; those there are go on meanwhile."""

    class Rotating(redis.CredentialProvider):
        password = "first"

        def get_credentials(self) -> tuple[str, str]:
            return "rotating", self.password

    provider = Rotating()
    with redis.Redis(port=server.port) as admin:
        rules = ["on", ">first", "~*", "&*", "+@all"]
        admin.execute_command("ACL", "SETUSER", "rotating", *rules)
        connections = Connections(
            find_target(
                celery(),
                f"redis://127.0.0.1:{server.port}/0",
                {"credential_provider": provider},
            )
        )
        lanes = Outbox(connections, prefix)
        put(lanes, lane, "a")
        admin.execute_command("ACL", "SETUSER", "rotating", ">second", "<first")
        provider.password = "second"
        put(lanes, lane, "b")
        admin.execute_command("CLIENT", "KILL", "USER", "rotating")
        put(lanes, lane, "c")
        assert lanes.backlog(lane) == 3
        connections.close()
        admin.delete(*admin.keys(f"{prefix}*"))
