"""The four pools of Celery's worker: each runs a broad round."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import chain, chord, group

from celery_stargate import ProduceError
from tests.acceptance.rig import WAIT, Rig, Worker, eventually

POOLS = ["prefork", "solo", "threads", "gevent"]


@pytest.fixture(scope="module", params=POOLS)
def pooled(rig: Rig, request: pytest.FixtureRequest) -> Iterator[Worker]:
    """A worker of each pool in turn."""
    with rig.worker(pool=request.param, concurrency=4) as worker:
        yield worker
        # Warm shutdown is a part of the round: nothing may be left behind.
        worker.terminate()
        assert worker.wait_for_end(), worker.log()
        assert worker.complaints() == []


@pytest.mark.usefixtures("pooled")
class TestRound:
    """What each pool must be able to do."""

    def test_results(self, rig: Rig) -> None:
        """A single message, a list, and many in order."""
        topic = rig.topic()
        assert rig.produce.delay("one", topic=topic).get(timeout=WAIT)["status"] == "stored"
        assert len(rig.produce.delay(["a", "b"], topic=topic).get(timeout=WAIT)) == 2
        results = [rig.produce.delay(str(n), topic=topic) for n in range(200)]
        assert {each.get(timeout=WAIT)["status"] for each in results} == {"stored"}
        assert rig.texts(topic, 203) == ["one", "a", "b", *map(str, range(200))]

    def test_canvas(self, rig: Rig) -> None:
        """Chain, chord, group and link go on from the receipt."""
        key, topic = rig.key(), rig.topic()
        middle = chain(rig.task("build").s(1), rig.produce.s(topic=topic), rig.task("place").s())()
        body = chord([rig.produce.s(str(n), topic=topic) for n in range(10)], rig.task("count").s())
        together = group(rig.produce.s(str(n), topic=topic) for n in range(3))()
        rig.produce.apply_async(("linked",), {"topic": topic}, link=rig.record(key))
        assert body().get(timeout=WAIT) == [10, ["stored"]]
        assert middle.get(timeout=WAIT) == f"after {middle.parent.id}"
        assert len(together.get(timeout=WAIT)) == 3
        assert rig.recorded(key)[0]["argument"]["topic"] == topic

    def test_callbacks(self, rig: Rig) -> None:
        """`on_ack`, `on_error` and `link_error`, and the error in the result."""
        acked, failed, linked = rig.key(), rig.key(), rig.key()
        callbacks = {"on_ack": rig.record(acked), "on_error": rig.record(failed)}
        receipt = rig.produce.delay("x", **callbacks).get(timeout=WAIT)
        refused = rig.produce.apply_async(
            ("x",),
            {"topic": rig.refused(), **callbacks},
            link_error=rig.task("errback").s(linked),
        )
        with pytest.raises(ProduceError, match="Namespace not found"):
            refused.get(timeout=WAIT)
        assert rig.recorded(acked)[0]["argument"] == receipt
        assert rig.recorded(failed)[0]["argument"]["context"] == refused.id
        assert rig.recorded(linked)[0]["id"] == refused.id

    def test_by_the_broker(self, rig: Rig) -> None:
        """`via="broker"`, by name, and with a countdown."""
        topic = rig.topic()
        results = [
            rig.produce.delay("via", topic=topic, via="broker"),
            rig.app.send_task(rig.produce.name, ("named",), {"topic": topic}),
            rig.produce.apply_async(("later",), {"topic": topic}, countdown=0.5),
        ]
        assert [each.get(timeout=WAIT)["status"] for each in results] == ["stored"] * 3
        assert sorted(rig.texts(topic, 3)) == ["later", "named", "via"]

    def test_publishing_from_tasks(self, rig: Rig) -> None:
        """Tasks in the pool publish, and wait for receipts."""
        topic = rig.topic()
        waits = [rig.task("publish_and_wait").delay(str(n), topic) for n in range(4)]
        sent = rig.task("publish").delay("sent", topic).get(timeout=WAIT)
        assert [each.get(timeout=WAIT)["status"] for each in waits] == ["stored"] * 4
        assert rig.produce.AsyncResult(sent).get(timeout=WAIT)["status"] == "stored"
        assert sorted(rig.texts(topic, 5)) == ["0", "1", "2", "3", "sent"]

    def test_no_context_is_left(self, rig: Rig) -> None:
        """All that was recorded is finished: the lane is empty after a round."""
        topic = rig.topic()
        rig.produce.delay(["a", "b"], topic=topic).get(timeout=WAIT)
        assert eventually(lambda: rig.pending(topic) == 0)
