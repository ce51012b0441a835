"""Results, canvas and callbacks from the receipt, on the real broker."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, chord, group

from celery_stargate import InvalidMessage, ProduceError
from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import WAIT, Rig, Worker, text

pytestmark = pytest.mark.usefixtures("worker")


@pytest.mark.smoke
def test_result_is_the_receipt_of_the_message_that_is_in_the_topic(rig: Rig) -> None:
    """`delay().get()` returns when Pulsar has the message, with its place there."""
    topic = rig.topic()
    result = rig.produce.delay("hello", topic=topic)
    receipt = result.get(timeout=WAIT)
    (message,) = rig.read(topic, 1)
    assert receipt["message_id"] == message["messageId"]
    assert receipt["context"] == result.id
    assert (receipt["status"], receipt["topic"]) == ("stored", topic)
    assert result.state == "SUCCESS"


def test_fifty_numbers_come_in_order(rig: Rig) -> None:
    """What was put in order is read in order, by a plain reader."""
    topic = rig.topic()
    results = [rig.produce.delay(str(n), topic=topic) for n in range(50)]
    receipts = [result.get(timeout=WAIT) for result in results]
    assert rig.texts(topic, 50) == [str(n) for n in range(50)]
    places = [(each["ledger_id"], each["entry_id"]) for each in receipts]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("message", "payload", "key"),
    [
        ("text", "text", None),
        (b"bytes", "bytes", None),
        (("key", "payload"), "payload", "key"),
        ({"payload": b"mapping", "key": "k", "properties": {"a": "b"}}, "mapping", "k"),
    ],
    ids=["text", "bytes", "pair", "mapping"],
)
def test_every_form_of_a_message(rig: Rig, message: Any, payload: str, key: str | None) -> None:
    """Each of the four forms arrives with its payload and key."""
    topic = rig.topic()
    rig.produce.delay(message, topic=topic).get(timeout=WAIT)
    (stored,) = rig.read(topic, 1)
    assert rig.texts(topic, 1) == [payload]
    assert stored.get("key") == key
    if isinstance(message, dict):
        assert stored["properties"] == {"a": "b"}


def test_all_fields_of_a_mapping(rig: Rig) -> None:
    """Event time and properties reach the reader; a delay is honoured by the broker."""
    topic = rig.topic()
    fields = {"payload": "p", "event_time": "2024-05-06T07:08:09+00:00", "properties": {"x": "y"}}
    rig.produce.delay(fields, topic=topic).get(timeout=WAIT)
    (stored,) = rig.read(topic, 1)
    assert stored["eventTime"].startswith("2024-05-06T07:08:09")
    assert stored["properties"] == {"x": "y"}


@pytest.mark.smoke
def test_list_is_one_task_with_all_receipts_in_order(rig: Rig) -> None:
    """A list of mixed forms gives the list of receipts, in its order."""
    topic = rig.topic()
    receipts = rig.produce.delay(["a", b"b", ("k", "c"), {"payload": "d"}], topic=topic).get(
        timeout=WAIT
    )
    stored = rig.read(topic, 4)
    assert rig.texts(topic, 4) == ["a", "b", "c", "d"]
    assert [each["message_id"] for each in receipts] == [each["messageId"] for each in stored]


def test_list_of_one_is_a_list(rig: Rig) -> None:
    """One message in a list still gives a list."""
    (receipt,) = rig.produce.delay(["only"]).get(timeout=WAIT)
    assert receipt["status"] == "stored"


def test_list_over_several_lanes(rig: Rig) -> None:
    """A list whose keys go to several lanes is one result, in the list's order."""
    messages = [(f"k{n}", str(n)) for n in range(20)]
    receipts = rig.task("lanes").delay(messages).get(timeout=WAIT)
    by_id = {each["messageId"]: each["key"] for each in rig.read(rig.topic_of("lanes"), 20)}
    assert len(rig.lanes("lanes")) > 1
    assert [by_id[each["message_id"]] for each in receipts] == [f"k{n}" for n in range(20)]


def test_ignored_result_is_published_and_not_kept(rig: Rig) -> None:
    """With `ignore_result` the message is stored, `on_ack` runs, and no result is."""
    topic, key = rig.topic(), rig.key()
    result = rig.produce.apply_async(
        ("quiet",), {"topic": topic, "on_ack": rig.record(key)}, ignore_result=True
    )
    (entry,) = rig.recorded(key)
    assert entry["argument"]["context"] == result.id
    assert rig.texts(topic, 1) == ["quiet"]
    backend: Any = rig.app.backend
    assert backend.get(backend.get_key_for_task(result.id)) is None


def test_chain_with_produce_first(rig: Rig) -> None:
    """The next task gets the receipt."""
    result = chain(rig.produce.s("first"), rig.task("place").s())()
    assert result.get(timeout=WAIT) == f"after {result.parent.id}"


@pytest.mark.smoke
def test_chain_with_produce_in_the_middle_and_last(rig: Rig) -> None:
    """A task's result is published, the receipt goes on, and the last receipt is the result."""
    topic = rig.topic()
    result = chain(
        rig.task("build").s(7),
        rig.produce.s(topic=topic),
        rig.task("place").s(),
        rig.produce.s(topic=topic),
    )()
    receipt = result.get(timeout=WAIT)
    first, second = rig.texts(topic, 2)
    assert first == "built-7"
    assert second == f"after {result.parent.parent.id}"
    assert receipt["context"] == result.id


def test_task_of_ones_own_in_a_chain(rig: Rig) -> None:
    """`chain(build_message.s(…), orders.s())` with a produce task bound to its topic."""
    receipt = chain(rig.task("build").s(12), rig.task("orders").s())().get(timeout=WAIT)
    (stored,) = rig.read(rig.topic_of("orders"), 1)
    assert receipt["message_id"] == stored["messageId"]
    assert (stored["key"], stored["properties"]) == ("12", {"n": "12"})


def test_tasks_of_ones_own_belong_to_their_app(rig: Rig, make_rig: MakeRig) -> None:
    """Two apps may each have a produce task of the same name, each with its topic."""
    name = f"acceptance.same{rig.name}"
    mine = rig.stargate.task(name, topic=rig.topic("mine"))
    other = make_rig()
    theirs = other.stargate.task(name, topic=other.topic("theirs"))
    assert (mine.topic == theirs.topic, mine.app is rig.app, theirs.app is other.app) == (
        *(False, True, True),
    )


@pytest.mark.smoke
@pytest.mark.parametrize("members", [1, 2, 100])
def test_chord_of_produce_tasks(rig: Rig, members: int) -> None:
    """The body runs once, when every member's receipt is there."""
    topic = rig.topic()
    header = [rig.produce.s(str(n), topic=topic) for n in range(members)]
    assert chord(header, rig.task("count").s())().get(timeout=WAIT) == [members, ["stored"]]
    assert sorted(rig.texts(topic, members), key=int) == [str(n) for n in range(members)]


def test_chord_with_a_produce_task_as_body(rig: Rig) -> None:
    """A body that publishes: its receipt is the chord's result."""
    topic = rig.topic()
    header = [rig.task("add").s(n, n) for n in range(3)]
    to_text = rig.app.signature("acceptance.text")
    receipt = chord(header, to_text | rig.produce.s(topic=topic))().get(timeout=WAIT)
    assert receipt["status"] == "stored"
    assert rig.texts(topic, 1) == ["[0, 2, 4]"]


def test_group(rig: Rig) -> None:
    """A group's results are the receipts, in the group's order."""
    topic = rig.topic()
    result = group(rig.produce.s(str(n), topic=topic) for n in range(5))()
    receipts = result.get(timeout=WAIT)
    assert [each["context"] for each in receipts] == [child.id for child in result.children]
    assert len(rig.texts(topic, 5)) == 5


def test_link_gets_the_receipt(rig: Rig) -> None:
    """`link=` runs after the receipt, with it."""
    key = rig.key()
    result = rig.produce.apply_async(("linked",), link=rig.record(key))
    (entry,) = rig.recorded(key)
    assert entry["argument"] == result.get(timeout=WAIT)


@pytest.mark.smoke
def test_refused_message_fails_with_pulsars_own_sentence(rig: Rig) -> None:
    """A namespace that does not exist: the result raises `ProduceError` with what Pulsar says."""
    result = rig.produce.delay("x", topic=rig.refused())
    with pytest.raises(ProduceError) as caught:
        result.get(timeout=WAIT)
    assert caught.value.status == "refused"
    assert caught.value.failure["code"] == "http-404"
    assert "Namespace not found" in caught.value.reason
    assert result.state == "FAILURE"


def test_refused_list_holds_each_messages_outcome(rig: Rig) -> None:
    """A list fails as one task, and its failure tells of every message."""
    with pytest.raises(ProduceError) as caught:
        rig.produce.delay(["a", "b"], topic=rig.refused()).get(timeout=WAIT)
    assert [each["code"] for each in caught.value.failure["outcomes"]] == ["http-404"] * 2


def test_link_error_gets_the_failure(rig: Rig) -> None:
    """`link_error=` runs with the task's request and the `ProduceError`."""
    key = rig.key()
    result = rig.produce.apply_async(
        ("x",), {"topic": rig.refused()}, link_error=rig.task("errback").s(key)
    )
    (entry,) = rig.recorded(key)
    assert (entry["id"], entry["type"]) == (result.id, "ProduceError")
    assert "Namespace not found" in entry["text"]


def test_chain_ends_at_the_failure(rig: Rig) -> None:
    """What comes after a refused message does not run, and the chain's result raises."""
    key = rig.key()
    result = chain(rig.produce.s("x", topic=rig.refused()), rig.record(key))()
    with pytest.raises(ProduceError):
        result.parent.get(timeout=WAIT)
    with pytest.raises(ProduceError):
        result.get(timeout=WAIT)
    assert rig.log.llen(key) == 0


def test_chord_with_a_refused_member_fails(rig: Rig) -> None:
    """The chord's body does not run, and waiting for it raises."""
    header = [rig.produce.s("ok"), rig.produce.s("x", topic=rig.refused())]
    with pytest.raises(Exception, match="Namespace not found"):
        chord(header, rig.task("count").s())().get(timeout=WAIT)


def test_expired_message_is_refused(rig: Rig) -> None:
    """`expires=` bounds a message of a lane as its deadline does: a number, or a datetime, of the
    call or of a task of one's own."""
    for expires in (30, datetime.now(UTC) + timedelta(seconds=30)):
        assert rig.produce.apply_async(("x",), expires=expires).get(timeout=WAIT)
    own = f"acceptance.expiring{rig.name}"
    # On a lane that no worker serves: one of another app, which has none.
    with Rig(rig.pulsar_url, rig.admin, rig.redis_url, rig.folder) as alone:
        lane = f"{alone.name}:{{{alone.topic_name}#0}}:deadlines"
        calls: list[dict[str, Any]] = [
            {"expires": 100},
            {"expires": datetime.now(UTC) + timedelta(seconds=100)},
            {"kwargs": {"delivery_timeout": timedelta(seconds=100)}},
        ]
        results = [alone.produce.apply_async(("x",), **options) for options in calls]
        results.append(alone.stargate.task(own, expires=100).delay("x"))
        found: Any = [alone.log.zscore(lane, result.id) for result in results]
        deadlines = [each / 1000 - time.time() for each in found]
    assert all(95 < each < 101 for each in deadlines), deadlines


def test_a_tuple_in_a_chain_of_two_keeps_its_key(rig: Rig) -> None:
    """The step gets the tuple itself, in the worker that ran the first task."""
    topic = rig.topic()
    receipt = chain(rig.task("pair").s(), rig.produce.s(topic=topic)).delay().get(timeout=WAIT)
    assert receipt["status"] == "stored"
    (stored,) = rig.read(topic, 1)
    assert (stored["key"], text(stored)) == ("key", "payload")


def test_two_texts_that_came_by_json_are_refused(rig: Rig) -> None:
    """In a chain of three, and by `send_task`: not published as two messages."""
    topic = rig.topic()
    steps = chain(rig.task("pair").s(), rig.task("same").s(), rig.produce.s(topic=topic))
    result = steps.delay()
    with pytest.raises(InvalidMessage, match="a list of two texts came as JSON"):
        result.parent.get(timeout=WAIT)  # type: ignore[union-attr]
    sent = rig.app.send_task(rig.produce.name, (("key", "payload"),), {"topic": topic})
    with pytest.raises(ProduceError, match="send {'key': …, 'payload': …}, or for two messages"):
        sent.get(timeout=WAIT)
    good = rig.app.send_task(
        rig.produce.name, ({"key": "key", "payload": "payload"},), {"topic": topic}
    )
    assert good.get(timeout=WAIT)["status"] == "stored"
    assert rig.texts(topic) == ["payload"]


def test_a_chord_of_two_texts_is_two_messages(rig: Rig) -> None:
    """A chord's result is a list always, and never a tuple."""
    topic = rig.topic()
    header = [rig.task("same").s("a"), rig.task("same").s("b")]
    receipts = chord(header, rig.produce.s(topic=topic)).delay().get(timeout=WAIT)
    assert [each["status"] for each in receipts] == ["stored"] * 2
    assert rig.texts(topic, 2) == ["a", "b"]


def test_json_in_a_chain(rig: Rig) -> None:
    """A task returns what is to be sent as JSON."""
    topic = rig.topic()
    steps = chain(rig.task("same").s({"json": {"a": [1]}, "key": "k"}), rig.produce.s(topic=topic))
    steps.delay().get(timeout=WAIT)
    assert rig.texts(topic, 1) == ['{"a":[1]}']


def test_bad_message_in_a_chain_is_told(rig: Rig) -> None:
    """A task whose result is no message ends the chain with a failure, and not with silence."""
    key = rig.key()
    chained = chain(rig.task("add").s(1, 2), rig.produce.s(), rig.record(key))
    result: Any = chained.apply_async(link_error=rig.task("errback").s(key))
    with pytest.raises(Exception, match="message"):
        result.parent.get(timeout=10)
    assert rig.recorded(key)[0]["type"] == "InvalidMessage"


def callback(rig: Rig, form: str, key: str) -> tuple[Any, int]:
    """A callback in one of the canvas' forms, and how many entries it leaves."""
    record = rig.record(key)
    match form:
        case "single":
            return record, 1
        case "group":
            return group(record, rig.record(key)), 2
        case "chain":
            return chain(record, rig.record(key)), 2
        case "chord":
            return chord([record, rig.record(key)], rig.record(key)), 3
    raise ValueError(form)


@pytest.mark.smoke
@pytest.mark.parametrize("form", ["single", "group", "chain", "chord"])
def test_on_ack(rig: Rig, form: str) -> None:
    """`on_ack` may be a signature, group, chain or chord; it gets the receipt as its argument."""
    key = rig.key()
    on_ack, entries = callback(rig, form, key)
    result = rig.produce.delay("x", on_ack=on_ack)
    receipt = result.get(timeout=WAIT)
    first = rig.recorded(key, entries)
    assert first[0]["argument"] == receipt
    assert len({entry["id"] for entry in first}) == entries


@pytest.mark.smoke
@pytest.mark.parametrize("form", ["single", "group", "chain", "chord"])
def test_on_error(rig: Rig, form: str) -> None:
    """`on_error` gets the failure as its argument, in the same four forms."""
    key, never = rig.key(), rig.key()
    on_error, entries = callback(rig, form, key)
    rig.produce.delay("x", topic=rig.refused(), on_error=on_error, on_ack=rig.record(never))
    found = rig.recorded(key, entries)
    assert found[0]["argument"]["status"] == "refused"
    assert "Namespace not found" in found[0]["argument"]["reason"]
    assert rig.log.llen(never) == 0


def test_on_ack_of_a_list_gets_all_receipts(rig: Rig) -> None:
    """A list triggers its callback once, with the list of receipts."""
    key = rig.key()
    receipts = rig.produce.delay(["a", "b", "c"], on_ack=rig.record(key)).get(timeout=WAIT)
    (entry,) = rig.recorded(key)
    assert entry["argument"] == receipts


def test_callback_that_publishes(rig: Rig) -> None:
    """A produce task may be a callback's next step: one publish follows another's receipt."""
    first, second = rig.topic(), rig.topic()
    on_ack = chain(rig.task("place").s(), rig.produce.s(topic=second))
    result = rig.produce.delay("x", topic=first, on_ack=on_ack)
    result.get(timeout=WAIT)
    assert rig.texts(second, 1) == [f"after {result.id}"]


def test_produce_with_callback_returns_the_context_at_once(rig: Rig) -> None:
    """`stargate.produce(msg, on_ack=sig)` records, returns the context, and the worker does it."""
    key = rig.key()
    context = rig.stargate.produce("x", on_ack=rig.record(key))
    (entry,) = rig.recorded(key)
    assert entry["argument"]["context"] == context


def test_produce_waits_for_the_receipt(rig: Rig) -> None:
    """`stargate.produce(msg)` returns the receipt that a worker process got."""
    topic = rig.topic()
    receipt = rig.stargate.produce("x", topic=topic, timeout=WAIT)
    (stored,) = rig.read(topic, 1)
    assert receipt.message_id == stored["messageId"]


def test_delay_in_a_pool_process(rig: Rig) -> None:
    """A task publishes from a child of the pool."""
    topic = rig.topic()
    context = rig.task("publish").delay("from a task", topic).get(timeout=WAIT)
    assert rig.produce.AsyncResult(context).get(timeout=WAIT)["status"] == "stored"
    assert rig.texts(topic, 1) == ["from a task"]


def test_produce_in_a_pool_process(rig: Rig) -> None:
    """A task publishes and waits in a child of the pool."""
    topic = rig.topic()
    receipt = rig.task("publish_and_wait").delay("and waits", topic).get(timeout=WAIT)
    (stored,) = rig.read(topic, 1)
    assert receipt["message_id"] == stored["messageId"]


def test_one_worker_served_them_all(worker: Worker) -> None:
    """Nothing here made the acknowledger fail, lose a lane, or repeat effects."""
    assert worker.alive
    assert worker.complaints() == []
