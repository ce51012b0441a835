"""Effectively once: names, numbers, replays."""

from __future__ import annotations

from celery_stargate.testing import MessageId
from tests.contract.wire import Broker, Socket, frame, ids, new_topic, payload

NOT_STORED = MessageId(-1, -1)


def named(broker: Broker, topic: str, initial: int | None = None, **query: object) -> Socket:
    """A producer with the lane's name."""
    if initial is not None:
        query["initialSequenceId"] = initial
    return broker.producer(topic, producerName="lane", sendTimeoutMillis=0, **query)


def stored(broker: Broker, topic: str, count: int) -> list[bytes]:
    """What the topic holds."""
    return [payload(message) for message in broker.read_back(topic, count)]


def test_a_replay_stores_nothing_twice(broker: Broker) -> None:
    """What the broker had is ok, ledger -1; what it had not is stored."""
    topic = new_topic()
    with named(broker, topic, -1) as producer:
        ids(producer.ask(*(frame(b"%d" % n) for n in range(3))))
    with named(broker, topic, -1) as producer:
        receipts = producer.ask(*(frame(b"%d" % n, context=str(n)) for n in range(5)))
    assert [receipt["context"] for receipt in receipts] == ["0", "1", "2", "3", "4"]
    found = ids(receipts)
    assert found[:3] == [NOT_STORED] * 3
    assert all(one.ledger >= 0 for one in found[3:])
    assert stored(broker, topic, 5) == [b"0", b"1", b"2", b"3", b"4"]


def test_numbers_start_after_initial_sequence_id(broker: Broker) -> None:
    """Going on from the last one stores; a step back does not; a gap is no matter."""
    topic = new_topic()
    with named(broker, topic, -1) as producer:
        ids(producer.ask(frame(b"0"), frame(b"1")))
    with named(broker, topic, 1) as producer:
        assert ids(producer.ask(frame(b"2")))[0].ledger >= 0
    with named(broker, topic, 0) as producer:
        assert ids(producer.ask(frame(b"1"), frame(b"2"))) == [NOT_STORED] * 2
    with named(broker, topic, 99) as producer:
        assert ids(producer.ask(frame(b"100")))[0].ledger >= 0
    assert stored(broker, topic, 4) == [b"0", b"1", b"2", b"100"]


def test_a_false_ok(broker: Broker) -> None:
    """A name that comes back with too low a number: new messages are dropped, and said ok."""
    topic = new_topic()
    with named(broker, topic, 10) as producer:
        ids(producer.ask(frame(b"old")))
    with named(broker, topic, -1) as producer:
        assert ids(producer.ask(frame(b"new"))) == [NOT_STORED]
    assert stored(broker, topic, 1) == [b"old"]


def test_without_initial_sequence_id_a_replay_is_stored_twice(broker: Broker) -> None:
    """A named producer goes on from the broker's last number."""
    topic = new_topic()
    for _ in range(2):
        with named(broker, topic) as producer:
            assert ids(producer.ask(frame(b"again")))[0].ledger >= 0
    assert stored(broker, topic, 2) == [b"again"] * 2


def test_names_do_not_meet(broker: Broker) -> None:
    """Each name has its own numbers."""
    topic = new_topic()
    for name in ("one", "two"):
        with broker.producer(topic, producerName=name, initialSequenceId=-1) as producer:
            assert ids(producer.ask(frame()))[0].ledger >= 0


def test_an_error_7_takes_no_number(broker: Broker) -> None:
    """So that a refused message shifts all those after it."""
    topic = new_topic()
    with named(broker, topic, -1) as producer:
        producer.ask(frame(b"0"), '{"payload": "@@@@"}', frame(b"2"))
    with named(broker, topic, 1) as producer:
        # Number 2 was not used: the frame behind the error had number 1.
        assert ids(producer.ask(frame(b"3")))[0].ledger >= 0
    with named(broker, topic, -1) as producer:
        found = ids(producer.ask(*(frame() for _ in range(4))))
    assert found[:3] == [NOT_STORED] * 3
    assert found[3].ledger >= 0


def test_a_batch_over_old_and_new_is_dropped_whole(broker: Broker) -> None:
    """Why batching and effectively once never go together: the new ones are lost, and said ok."""
    topic = new_topic()
    with named(broker, topic, -1) as producer:
        ids(producer.ask(frame(b"0"), frame(b"1")))
    batching = {
        "batchingEnabled": "true",
        "batchingMaxMessages": 4,
        "batchingMaxPublishDelay": 10_000,
    }
    with named(broker, topic, -1, **batching) as producer:
        found = ids(producer.ask(*(frame(b"%d" % n) for n in range(4))))
    assert {one.ledger for one in found} == {-1}
    assert stored(broker, topic, 2) == [b"0", b"1"]


def test_a_batch_of_new_ones_has_batch_indices(broker: Broker) -> None:
    """One entry, numbered inside."""
    topic = new_topic()
    batching = {
        "batchingEnabled": "true",
        "batchingMaxMessages": 3,
        "batchingMaxPublishDelay": 10_000,
    }
    with broker.producer(topic, **batching) as producer:
        found = ids(producer.ask(*(frame(b"%d" % n) for n in range(3))))
    assert {one.entry for one in found} == {0}
    assert [one.batch_index for one in found] == [0, 1, 2]
    assert stored(broker, topic, 3) == [b"0", b"1", b"2"]


def test_control_without_deduplication_a_replay_is_stored_twice(broker: Broker) -> None:
    """The control of all the above."""
    broker.admin.create_namespace("public/no-deduplication")
    broker.admin.set_namespace_deduplication("public/no-deduplication", False)
    topic = new_topic().replace("public/default", "public/no-deduplication")
    for _ in range(2):
        with named(broker, topic, -1) as producer:
            assert ids(producer.ask(frame(b"twice")))[0].ledger >= 0
    assert stored(broker, topic, 2) == [b"twice"] * 2
