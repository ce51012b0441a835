"""Which workers own lanes, and which do not start at all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from celery_stargate import ProduceTimeout
from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import WAIT, eventually


@pytest.mark.parametrize("how", ["option", "setting"])
def test_worker_that_is_no_producer(make_rig: MakeRig, how: str) -> None:
    """`--without-stargate` and `stargate_worker = False`: the worker runs tasks, puts what comes
    by the broker into its lane, and owns none; a producer worker then does."""
    rig = make_rig()
    topic, via_topic = rig.topic(), rig.topic()
    args = ("--without-stargate",) if how == "option" else ()
    conf = {"stargate_worker": False} if how == "setting" else {}
    with rig.worker(pool="solo", args=args, conf=conf) as plain:
        by_lane = rig.produce.delay("lane", topic=topic)
        by_broker = rig.produce.delay("broker", topic=via_topic, via="broker")
        assert rig.task("add").delay(2, 3).get(timeout=WAIT) == 5
        assert eventually(lambda: rig.pending(via_topic) == 1)
        assert (rig.owner(topic), rig.owner(via_topic)) == (None, None)
        inspect: Any = rig.app.control.inspect([plain.hostname], timeout=5)
        stats = inspect.stats()[plain.hostname]
        assert stats.get("stargate", {"running": False}) == {"running": False}
        with rig.worker(pool="solo"):
            assert by_lane.get(timeout=WAIT)["status"] == "stored"
            assert by_broker.get(timeout=WAIT)["status"] == "stored"


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        ({"stargate_tpoic": "x"}, "there is no setting stargate_tpoic; did you mean"),
        ({"stargate_lease": "ten"}, "stargate_lease must be seconds"),
        ({"stargate_url": None}, "stargate_url is not set"),
        ({"stargate_url": "http://localhost:8080"}, "stargate_url must be of the form ws://"),
        ({"stargate_topics": {"a": {"topic": "a", "lans": 4}}}, "no option 'lans'"),
        (
            {"stargate_redis_url": "amqp://x"},
            "stargate_redis_url must be redis://, rediss://, unix://",
        ),
    ],
    ids=["name", "type", "no-url", "scheme", "topic-option", "redis"],
)
def test_wrong_setting(make_rig: MakeRig, conf: dict[str, Any], sentence: str) -> None:
    """A worker with a wrong setting does not start, and says which and why."""
    rig = make_rig()
    code, output = rig.run_worker_to_its_end(rig.worker(pool="solo", conf=conf))
    assert code != 0, output
    assert "ConfigurationError" in output
    assert sentence in output
    assert "ready." not in output


def test_one_that_is_no_producer_needs_no_url(make_rig: MakeRig) -> None:
    """Without the acknowledger a worker runs with no `stargate_url`."""
    rig = make_rig()
    args = ("--without-stargate",)
    with rig.worker(pool="solo", args=args, conf={"stargate_url": None}):
        assert rig.task("add").delay(2, 3).get(timeout=WAIT) == 5


def test_produce_needs_no_worker(make_rig: MakeRig) -> None:
    """With nobody but the caller alive, `stargate.produce` owns lanes itself, and publishes what
    was left there, too."""
    rig = make_rig()
    topic = rig.topic()
    left = rig.produce.delay("left", topic=topic)
    receipt = rig.stargate.produce("mine", topic=topic, timeout=20)
    (first, second) = rig.read(topic, 2)
    assert receipt.message_id == second["messageId"]
    assert left.get(timeout=WAIT)["message_id"] == first["messageId"]
    rig.stargate.close()
    assert rig.owner(topic) is None


#: Celery's Redis backend calls what redis-py has deprecated; here it runs in the test's process.
old_setex = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@old_setex
def test_result_of_a_message_whose_deadline_passed(make_rig: MakeRig) -> None:
    """`delay().get()` with a deadline and nobody else alive: the waiter itself sees to it."""
    rig = make_rig()
    began = time.monotonic()
    result = rig.produce.delay("x", delivery_timeout=1)
    with pytest.raises(ProduceTimeout) as caught:
        result.get(timeout=15)
    assert caught.value.status == "refused"
    assert time.monotonic() - began < 10


@old_setex
def test_list_whose_deadline_passed(make_rig: MakeRig) -> None:
    """The same for a list that several lanes hold: each message's outcome is told."""
    rig = make_rig()
    messages = [(f"k{n}", "x") for n in range(6)]
    result = rig.task("lanes").delay(messages, delivery_timeout=1)
    with pytest.raises(ProduceTimeout) as caught:
        result.get(timeout=20)
    assert [each["code"] for each in caught.value.failure["outcomes"]] == ["deadline"] * 6
