"""A user of Redis with exactly the rights that docs/redis.md lists."""

from __future__ import annotations

import re
import threading
from importlib.resources import files
from pathlib import Path
from typing import Self

import pytest
import redis

from celery_stargate import Acknowledger, Receipt, Stargate
from celery_stargate.calls.peers import Peers, peer_of
from celery_stargate.calls.revoking import Revoker
from celery_stargate.delivery import keeper
from celery_stargate.lanes.lane import Lane
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for
from tests.servers import cluster as cluster_module
from tests.servers import redis as redis_module
from tests.servers.cluster import ClusterServers
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer

_SCRIPTS = Path(str(files("celery_stargate.lanes"))) / "lua"
_PAGE = Path(__file__).parents[3] / "docs" / "redis.md"
USER, PASSWORD = "stargate", "pw"
PREFIX = "stargate"
#: Those of connecting: a server asks nobody's leave for the first two, and the others depend on
#: the URL and on the version of redis-py.
OPTIONAL = {"auth", "hello", "select", "client|setname", "client|setinfo", "acl"}


def documented() -> list[str]:
    """Return the rules of the page."""
    found = re.search(r"ACL SETUSER stargate (.*?)\n```", _PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1].replace("\\\n", " ").split()


def of_a_cluster() -> list[str]:
    """Return the rules that the page adds for a Cluster."""
    found = re.search(r"The user needs (.*?) besides", _PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return re.findall(r"`(\+[^`]+)`", found[1])


def commands_of(rules: list[str]) -> set[str]:
    """Return the commands that rules allow."""
    return {rule[1:] for rule in rules if rule.startswith("+")}


def commands_of_scripts() -> set[str]:
    """Return the commands that the scripts call."""
    calls = re.compile(r"redis\.p?call\('(\w+)'")
    texts = [path.read_text("utf-8") for path in _SCRIPTS.rglob("*.lua")]
    return {name.lower() for text in texts for name in calls.findall(text)}


class Monitor:
    """Notes the commands of a server, those inside of scripts too."""

    def __init__(self, server: RedisServer) -> None:
        self.commands: set[str] = set()
        self.keys: set[str] = set()
        self._server = server
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._note, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        with redis.Redis(port=self._server.port) as client:
            client.echo("the end")
        self._thread.join(10)

    def _note(self) -> None:
        with redis.Redis(port=self._server.port) as client, client.monitor() as monitor:
            self._ready.set()
            while True:
                words = monitor.next_command()["command"].split(" ")
                name = words[0].lower()
                if name == "echo":
                    return
                if name in ("client", "script"):
                    name = f"{name}|{words[1].lower()}"
                self.commands.add(name)


def smoke(make_app: MakeApp, local: LocalPulsar, url: str, topic: str) -> None:
    """Do what applications do: calls of each kind, callbacks, deadlines, and an idle lane."""
    app = make_app(
        local.url,
        redis_url=url,
        prefix=PREFIX,
        lease=1.0,
        idle_timeout=1.0,
        topics={"many": {"topic": f"{topic}-many", "lanes": 2}},
        topic=topic,
    )
    stargate = Stargate.of(app)
    task = app.tasks["celery_stargate.produce"]
    with Acknowledger(app) as acknowledger:
        assert task.delay("a").get(timeout=20)["status"] == "stored"
        assert task.delay(["a", "b"]).get(timeout=20)
        assert isinstance(stargate.produce("b", timeout=20), Receipt)
        assert len(stargate.produce_many(["c"] * 20, timeout=20, topic="many")) == 20
        assert stargate.produce([("k1", "x"), ("k2", "x"), ("k3", "x")], topic="many", timeout=20)
        stargate.produce("d", on_ack=app.signature("callback"))
        future = acknowledger.produce("own", timeout=20)
        assert acknowledger.ack(Receipt(context="own"))
        assert future.result(timeout=20)
        late = acknowledger.produce("late", timeout=0.2)
        with pytest.raises(Exception, match="late"):
            late.result(timeout=20)
        revoker = Revoker(stargate.runtime)
        revoker.revoke(["nobody's"])
        assert revoker.is_revoked("nobody's")
        revoker.revoke_stamped({"tenant": "gone"})
        stamped = {"stamped_headers": ["tenant"], "stamps": {"tenant": "gone"}}
        revoker.check_stamps("nobody's", [Lane(topic)], stamped)
        peers = Peers(stargate.lanes.registry, PREFIX, "worker", peer_of(app))
        peers.look()
        # Until the lane is empty, and forgotten.
        client = stargate.runtime.connections.sync()
        wait_for(lambda: client.get(Lane(topic).key(PREFIX, "lease")) is None)
    stargate.close()


@pytest.fixture(autouse=True)
def _unused_lanes_are_forgotten_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usually after an hour."""
    monkeypatch.setattr(keeper, "RETIRE_AFTER", 1.0)


def test_the_rights_that_the_page_lists_are_those_that_the_code_needs(
    make_app: MakeApp, local: LocalPulsar, tmp_path: Path, topic: str
) -> None:
    """No command less, and none more; no key outside of the prefix."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path / "redis") as server:
        with redis.Redis(port=server.port) as admin:
            rules = ["on", f">{PASSWORD}", f"~{PREFIX}:*", "+@all"]
            admin.execute_command("ACL", "SETUSER", USER, *rules)
        with Monitor(server) as monitor:
            smoke(make_app, local, f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0", topic)
    # A script may come to a command that the smoke does not; an unused connection is tried, and a
    # lane that is gone from the list is looked for, where the time is right for it.
    needed = (monitor.commands | commands_of_scripts() | {"ping", "exists"}) - OPTIONAL
    listed = commands_of(documented()) - OPTIONAL
    assert sorted(listed - needed) == [], "listed, and not needed"
    assert sorted(needed - listed) == [], "needed, and not listed"


@pytest.mark.smoke
def test_a_user_with_those_rights_can_do_all_of_it(
    make_app: MakeApp, local: LocalPulsar, tmp_path: Path, topic: str
) -> None:
    """And the server's log of refusals stays empty."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path / "redis") as server, redis.Redis(port=server.port) as admin:
        rules = [rule.replace(">PASSWORD", f">{PASSWORD}") for rule in documented()]
        admin.execute_command("ACL", "SETUSER", USER, *rules)
        smoke(make_app, local, f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0", topic)
        refused = [each["object"] for each in admin.acl_log()]
    assert_nothing_refused(refused)


def test_a_user_with_those_rights_on_a_cluster(
    make_app: MakeApp, local: LocalPulsar, tmp_path: Path, topic: str
) -> None:
    """With the few more that the page lists there; no node knows a script before."""
    require(cluster_module.missing_reason())
    rules = [rule.replace(">PASSWORD", f">{PASSWORD}") for rule in documented()]
    with ClusterServers(tmp_path, replicas=0) as servers:
        for node in servers.nodes:
            with redis.Redis(port=node.port) as admin:
                admin.execute_command("ACL", "SETUSER", USER, *rules, *of_a_cluster())
        url = servers.url.replace("://", f"://{USER}:{PASSWORD}@")
        smoke(make_app, local, url, topic)
        for node in servers.nodes:
            with redis.Redis(port=node.port) as admin:
                assert_nothing_refused([each["object"] for each in admin.acl_log()])


def assert_nothing_refused(refused: list[str]) -> None:
    """What a server's log of refusals holds is of no account."""
    # redis-py names itself where the server knows the command; a refusal is nothing to it.
    assert set(refused) <= {"client|setinfo"}
