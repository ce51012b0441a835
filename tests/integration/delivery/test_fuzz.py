"""Whatever one key in Redis holds, the lanes beside it go on.

``STARGATE_TEST_MACHINE="x20 random"`` runs twenty times as many examples, others at each run.
"""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate import Acknowledger, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.lanes.scripts import LANE_PARTS
from celery_stargate.support.log import package_logger as logger
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.lanes.profile import chosen_settings
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress


class Long(bytes):
    """Bytes that a report does not show."""

    def __repr__(self) -> str:
        return f"Long({len(self)} times {self[:1]!r})"


#: Bytes of all kinds: none, text, no UTF-8, numbers that are none, JSON that is none, and large.
JUNK = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(b"", b"\x00", b"\xff\xfe", b"nan", b"inf", b"-1", b"1e400", b"9" * 400, b"null"),
            *(
                b"[]",
                b"{}",
                Long(b"[" * 10_000),
                b"1 1 1 0\n{}",
                b"2 1 1 0\n{}",
                b"3 1 1 0\n{}",
                b"1 -1 0 x\n",
                b"x:1",
            ),
            *(b'{"context":"\xff"}', b'{"context":7}', b'{"context":"c"}', Long(b"x" * 1_000_000)),
        ]
    ),
)
SCORE = st.sampled_from([0.0, -1.0, 1.0, 9e15, -9e15, 1e300, math.inf, -math.inf])
#: What the scripts look for in hashes and entries of streams.
NAME = st.one_of(
    JUNK,
    st.sampled_from(
        [
            *(b"last", b"sent", b"tried", b"fencing_token", b"generation", b"options"),
            *(b"completed", b"q", b"r", b"i", b"f", b"t", b"l", b"p", b"c", b"c\nleft", b"c\n0"),
            *(b"to", b"outcome", b"lane", b"free"),
        ]
    ),
)
Write = tuple[str, Any]
WRITE: st.SearchStrategy[Write] = st.one_of(
    st.tuples(st.just("string"), JUNK),
    st.tuples(st.just("list"), st.lists(JUNK, min_size=1, max_size=3)),
    st.tuples(st.just("set"), st.lists(JUNK, min_size=1, max_size=3)),
    st.tuples(st.just("hash"), st.dictionaries(NAME, JUNK, min_size=1, max_size=4)),
    st.tuples(st.just("zset"), st.dictionaries(NAME, SCORE, min_size=1, max_size=4)),
    st.tuples(
        st.just("stream"),
        st.tuples(
            st.sampled_from(["*", "1-0", "2-7", "4611686018427387904-0"]),
            st.dictionaries(NAME, JUNK, min_size=1, max_size=4),
        ),
    ),
)
#: A key of the layout: a part of a lane, of the registry, or the process's inbox.
WHERE = st.sampled_from(
    [
        *(("lane", part) for part in [*LANE_PARTS, "answers:x"]),
        *(("registry", part) for part in ("workers", "lanes", "events", "wake")),
        ("inbox", ""),
    ]
)


def write(client: redis.Redis, key: str, what: Write) -> None:
    """Write into a key of that type; where it has another type, put this one in its place."""
    try:
        _write(client, key, what)
    except redis.ResponseError as error:
        if "WRONGTYPE" in str(error):
            with client.pipeline() as pipeline:
                pipeline.delete(key)
                _write(pipeline, key, what)
                pipeline.execute()


def _write(client: redis.Redis, key: str, what: Write) -> None:
    kind, value = what
    match kind:
        case "string":
            client.set(key, value)
        case "list":
            client.rpush(key, *value)
        case "set":
            client.sadd(key, *value)
        case "hash":
            client.hset(key, mapping=value)
        case "zset":
            client.zadd(key, value)
        case _:
            client.xadd(key, value[1], id=value[0])


@dataclass
class Rig:
    """An app whose lanes are owned here, and a client that writes anything."""

    app: Celery
    client: redis.Redis
    acknowledger: Acknowledger
    prefix: str
    good: str
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def key(self, where: tuple[str, str], lane: Lane) -> str:
        """Return the full name of a key of the layout."""
        kind, part = where
        if kind == "lane":
            return lane.key(self.prefix, part)
        if kind == "inbox":
            return f"{self.prefix}:inbox:{Stargate.of(self.app).runtime.inbox.name}"
        if part == "wake":
            supervisor = self.acknowledger._delivery.supervisor  # noqa: SLF001
            assert supervisor is not None
            part = f"wake:{supervisor._name}"  # noqa: SLF001
        return RegistryKeys(self.prefix).key(part)

    def announce(self, lane: Lane) -> None:
        """Let the acknowledger take a lane."""
        registry = Stargate.of(self.app).runtime.outbox.registry
        registry.announce(lane, again=True)

    def goes_on(self) -> None:
        """Assert that another lane works, and that a waiting call of this process hears."""
        receipt: Any = Stargate.of(self.app).produce(f"{next(self.numbers)}", timeout=30)
        assert receipt.status == "stored"


@pytest.fixture
def rig(make_app: MakeApp, redis_server: ServerAddress, prefix: str, topic: str) -> Iterator[Rig]:
    """A rig over LocalPulsar."""
    with LocalPulsar() as local, redis.Redis.from_url(redis_server.url) as client:
        app = make_app(local.url, lease=1.0)
        with Acknowledger(app) as acknowledger:
            rig = Rig(app, client, acknowledger, prefix, topic)
            rig.goes_on()
            yield rig


# Hypothesis looks whether a strategy used `random`; the lanes' threads beside it do.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.timeout(1800)  # with many examples; by default it takes some ten seconds
def test_lanes_beside_anything_go_on(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Each key of the layout holds anything, before its lane is owned and while it is."""
    caplog.set_level("INFO", logger.name)
    delivery = rig.acknowledger._delivery  # noqa: SLF001
    supervisor = delivery.supervisor
    examples = 0

    @chosen_settings(60, 1)
    @given(where=WHERE, what=WRITE, owned=st.booleans(), messages=st.integers(0, 2))
    def run(where: tuple[str, str], what: Write, owned: bool, messages: int) -> None:
        nonlocal examples
        examples += 1
        lane = Lane(f"persistent://public/default/evil-{uuid.uuid4().hex}")
        task = rig.app.tasks["celery_stargate.produce"]
        for _ in range(messages):
            task.delay("evil", topic=lane.topic)
        if owned:
            rig.announce(lane)
            lease = lane.key(rig.prefix, "lease")
            wait_for(lambda: rig.client.exists(lease), 30.0, "the lane is owned")
        write(rig.client, rig.key(where, lane), what)
        rig.announce(lane)
        rig.goes_on()

    run()
    assert delivery.running
    assert delivery.supervisor is supervisor, "the acknowledger started again"
    assert sum(len(each.getMessage()) for each in caplog.records) < 2000 * examples


def test_a_new_lane_is_found_when_the_registry_was_junk(rig: Rig) -> None:
    """Its keys begin anew, and the lanes that are owned are registered again."""
    for part, what in (
        ("workers", ("zset", {f"ghost{number}": 9e15 for number in range(50)})),
        ("workers", ("string", b"x")),
        ("lanes", ("zset", {f"junk{number}": 1.0 for number in range(2000)})),
        ("lanes", ("string", b"x")),
        ("events", ("stream", ("*", {b"free": b"\xff"}))),
        ("events", ("string", b"x")),
    ):
        write(rig.client, RegistryKeys(rig.prefix).key(part), what)
        new = f"persistent://public/default/new-{uuid.uuid4().hex}"
        receipt: Any = Stargate.of(rig.app).produce("first", topic=new, timeout=30)
        assert receipt.status == "stored"
        rig.goes_on()
