"""What somebody else writes into Redis: nothing of it runs, and none of it stops other lanes."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from celery_stargate import Acknowledger, Stargate
from celery_stargate.calls.peers import Peers, peer_of
from celery_stargate.calls.revoking import Revoker
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.lanes.scripts import DEAD_PARTS, LANE_PARTS
from celery_stargate.testing import LocalPulsar
from celery_stargate.worker.inspecting import TaskInspector
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.delivery.test_fuzz import Rig, write
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress


class _Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that nobody may read; the control reads it."""
    path = tmp_path / "it ran"
    made = pickle.dumps(_Bomb(path))
    yield made
    assert not path.exists(), "somebody unpickled it"
    pickle.loads(made)
    assert path.exists()


@pytest.fixture
def rig(make_app: MakeApp, redis_server: ServerAddress, prefix: str, topic: str) -> Iterator[Rig]:
    """An app whose lanes are owned here, over LocalPulsar."""
    with LocalPulsar() as local, redis.Redis.from_url(redis_server.url) as client:
        app = make_app(local.url, lease=1.0)
        with Acknowledger(app) as acknowledger:
            rig = Rig(app, client, acknowledger, prefix, topic)
            rig.goes_on()
            yield rig


def same_supervisor(rig: Rig) -> Any:
    """Return the supervisor, to see that it is the same one later."""
    return rig.acknowledger._delivery.supervisor  # noqa: SLF001


def hostile(bomb: bytes) -> list[bytes]:
    """Return what is tried in each place."""
    return [
        bomb,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"\x00" * 1_000_000,
        b'!!python/object/apply:os.system ["true"]',
        b'{"py/object": "os.system", "__reduce__": ["os", "system"], "__type__": "datetime"}',
        b"1 1 1 0\n" + bomb,
        b"1 1 1 0\n" + b'{"context":' + b"[" * 100_000,
        b"\xff\xfe\xfd",
    ]


def of_type(kind: str, value: bytes) -> Any:
    """Return a value as ``write`` takes it for a type of key."""
    match kind:
        case "hash":
            return {value[:200]: value, b"options": value, b"last": value, b"sent": value}
        case "zset":
            return {value: 1.0, value + b"#0": 9e15}
        case "stream":
            return ("*", {b"f": value, b"c": value, b"l": value, b"to": value, b"outcome": value})
        case "list" | "set":
            return [value]
        case _:
            return value


TYPES = {
    "log": "stream",
    "quarantine": "stream",
    "contexts": "hash",
    "outcomes": "hash",
    "meta": "hash",
    "reserved": "hash",
    "dead_letters": "hash",
    "dead_bodies": "hash",
    "dead_counts": "hash",
    "lease": "string",
}


def test_hostile_values_in_each_key_of_a_lane(rig: Rig, bomb: bytes) -> None:
    """Before its owner comes and while it is there; the type is the one that the key has."""
    supervisor = same_supervisor(rig)
    task = rig.app.tasks["celery_stargate.produce"]
    for value in hostile(bomb):
        lane = Lane(f"persistent://public/default/evil-{uuid.uuid4().hex}")
        for part in (*LANE_PARTS, *DEAD_PARTS):
            kind = TYPES.get(part, "zset")
            write(rig.client, lane.key(rig.prefix, part), (kind, of_type(kind, value)))
        rig.announce(lane)
        rig.goes_on()
        other = Lane(f"persistent://public/default/evil-{uuid.uuid4().hex}")
        assert task.delay("x", topic=other.topic).get(timeout=20)["status"] == "stored"
        for part in ("log", "contexts", "outcomes", "meta", "due", "deadlines"):
            kind = TYPES.get(part, "zset")
            write(rig.client, other.key(rig.prefix, part), (kind, of_type(kind, value)))
        rig.announce(other)
        rig.goes_on()
    assert same_supervisor(rig) is supervisor, "the acknowledger started again"


def test_hostile_members_of_the_registry(rig: Rig, bomb: bytes) -> None:
    """Names of lanes and workers, wake-ups, settings of peers, and the inbox."""
    supervisor = same_supervisor(rig)
    keys = RegistryKeys(rig.prefix)
    stargate = Stargate.of(rig.app)
    for value in hostile(bomb):
        for key, kind in keys.types.items():
            write(rig.client, key, (kind, of_type(kind, value)))
        wake = keys.key(f"wake:{supervisor._name}")  # noqa: SLF001
        write(rig.client, wake, ("list", [value]))
        write(
            rig.client,
            f"{rig.prefix}:inbox:{stargate.runtime.inbox.name}",
            ("stream", ("*", {b"to": value, b"outcome": value})),
        )
        rig.goes_on()
        # A process that looks whether the others have its settings.
        Peers(stargate.lanes.registry, rig.prefix, "worker", peer_of(rig.app)).look()
        new = Lane(f"persistent://public/default/new-{uuid.uuid4().hex}")
        receipt: Any = stargate.produce("first", topic=new.topic, timeout=30)
        assert receipt.status == "stored"
    assert same_supervisor(rig) is supervisor, "the acknowledger started again"


DEEP = "[" * 100_000
#: Fields of a record of the right form, with values that no caller writes.
FORGED: list[dict[str, Any]] = [
    {"task": "no.such.task", "request": "{}"},
    {"task": "celery.backend_cleanup", "request": '{"id":5,"stargate_call":7}'},
    {"task": "\r\nERROR forged", "request": "{}"},
    *({"task": "celery_stargate.produce", "request": each} for each in ("", "5", "[]", DEEP, "{")),
    {"task": "celery_stargate.produce", "request": '{"__type__":"datetime","__value__":5}'},
    {"task": "celery_stargate.produce", "request": '{"stamped_headers":5,"stamps":7}'},
    {"task": "celery_stargate.produce", "request": '{"stamped_headers":[{}],"stamps":{}}'},
    *({"on_ack": each} for each in ("", "null", "[]", "5", '"x"', DEEP, '{"task":5}', "\x00")),
    {"on_ack": '{"task":"no.such.task","args":[],"kwargs":{},"options":{}}'},
    {"on_ack": '{"task":"a","args":7,"kwargs":[],"options":{"queue":{"x":1},"exchange":5}}'},
    {"on_ack": '{"task":"celery.chain","subtask_type":"chain","kwargs":{"tasks":[1]},"args":[]}'},
    {"on_ack": '{"task":"celery.chord","subtask_type":"os","kwargs":{},"args":[],"options":{}}'},
    *({"inbox": each} for each in ("", "/", "a/b", "99999999999999999999-x/1", "\n\x00*?[a]/x")),
    {"parent": ("persistent://a/b/c#0", "list", 0)},
    {"parent": ("x", "\x00", -5)},
    {"parent": (DEEP, DEEP, 2**31)},
    {"trace": {"traceparent": "x" * 10_000, "tracestate": "\r\n"}},
    {"replayed": (-1, -1)},
    {"incarnation": "../../x", "on_ack": '{"task":"a"}'},
]


def test_forged_records_of_the_right_form(rig: Rig, run: Run) -> None:
    """Their messages are sent, what follows is given up; the lanes, the questions of operators,
    ``celery inspect`` and revocations go on."""
    supervisor = same_supervisor(rig)
    runtime = Stargate.of(rig.app).runtime
    lane = Lane(f"persistent://public/default/forged-{uuid.uuid4().hex}")
    for fields in FORGED:
        context = uuid.uuid4().hex
        runtime.outbox.put(lane, Record(context, **fields), [("", _frame(context))], timeout=600)
    rig.announce(lane)
    rig.goes_on()
    log = lane.key(rig.prefix, "log")
    wait_for(lambda: rig.client.xlen(log) == 0, 30.0, "all are sent")
    rig.goes_on()
    for command in ("status", "lanes", "pending", "workers"):
        assert run(command, "--json", app=rig.app).code == 0
    assert same_supervisor(rig) is supervisor


def test_forged_records_hide_no_others(
    make_app: MakeApp, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody owns the lane: what looks at all records finds the good ones beside them."""
    app = make_app("ws://127.0.0.1:1")
    stargate = Stargate.of(app)
    runtime = stargate.runtime
    lane = Lane(f"persistent://public/default/forged-{uuid.uuid4().hex}")
    for fields in FORGED:
        context = uuid.uuid4().hex
        runtime.outbox.put(lane, Record(context, **fields), [("", _frame(context))], timeout=600)
    stamped = msgspec.json.encode({"stamped_headers": ["tenant"], "stamps": {"tenant": ["gone"]}})
    good = Record("good", task="celery_stargate.produce", request=stamped.decode())
    runtime.outbox.put(lane, good, [("", _frame("good"))], timeout=600)
    runtime.outbox.registry.announce(lane)
    pending = [each["context"] for each in run("pending", "--json", "--limit", "0", app=app).lines]
    assert "good" in pending
    assert len(pending) == len(FORGED) + 1
    inspector = TaskInspector(runtime, "here")
    monkeypatch.setattr(inspector, "_lanes", lambda: [lane])
    assert "good" in {each["id"] for each in inspector.tasks("reserved")}
    assert "good" in inspector.find(["good"])
    Revoker(runtime).revoke_stamped({"tenant": "gone"})
    pending = [each["context"] for each in run("pending", "--json", "--limit", "0", app=app).lines]
    assert "good" not in pending


def _frame(context: str) -> bytes:
    return b'{"payload":"eA==","context":"%s"}' % context.encode()
