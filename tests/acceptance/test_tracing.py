"""One trace over several processes: the caller, an owner that dies, the next one, and its pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celery_stargate.testing import LocalPulsar
from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import Rig, eventually
from tests.acceptance.spans import spans_in, trace_here
from tests.acceptance.tasks import SPANS


@pytest.fixture
def local() -> Iterator[LocalPulsar]:
    """A Pulsar whose receipts can be held."""
    with LocalPulsar() as local:
        yield local


@pytest.fixture
def rig(make_rig: MakeRig, local: LocalPulsar) -> Rig:
    """Each process of the pool runs one task, and ends."""
    return make_rig(stargate_url=local.url, worker_max_tasks_per_child=1)


def test_a_trace_outlives_an_owner_and_the_processes_of_its_pool(
    rig: Rig, local: LocalPulsar
) -> None:
    key, acked = rig.key(), rig.key()
    env = {SPANS: key}

    def named(operation: str) -> list[dict[str, Any]]:
        return [
            each for each in spans_in(rig.log, key) if each["name"].partition(" ")[0] == operation
        ]

    instrumentor = trace_here(rig.redis_url, key)
    try:
        local.faults.hold_receipts()
        with rig.worker(env=env) as dies:
            result = rig.produce.delay("message", on_ack=rig.record(acked))
            local.wait_for_messages(rig.topic_name, 1, 30.0)
            dies.kill()
        local.faults.clear()
        with rig.worker(env=env) as worker:
            [got] = rig.recorded(acked)
            assert eventually(lambda: named("process")), worker.log()
            main = worker.pid
    finally:
        instrumentor.uninstrument()
    assert got["argument"]["context"] == result.id
    [create], [send], [settle], [process] = map(named, ("create", "send", "settle", "process"))
    assert len({each["trace"] for each in (create, send, settle, process)}) == 1
    # Nobody lived to see the answer to the first send. The second owner sent again.
    assert local.payloads(rig.topic_name) == [b"message"] * 2
    assert send["pid"] == settle["pid"] == main
    assert process["pid"] not in (main, create["pid"])
    assert process["attributes"]["messaging.message.id"] == got["argument"]["message_id"]
