"""Readers and consumers: as much as tests read back with."""

from __future__ import annotations

import time
from collections import Counter

from tests.contract.versions import SINCE_4
from tests.contract.wire import (
    Broker,
    consumer_path,
    frame,
    ids,
    new_topic,
    payload,
    receive_from,
    wait_until,
)


def fill(broker: Broker, topic: str, count: int) -> list[str]:
    """Store messages 0, 1, …; their ids."""
    with broker.producer(topic) as producer:
        receipts = producer.ask(*(frame(b"%d" % n) for n in range(count)))
    ids(receipts)
    return [receipt["messageId"] for receipt in receipts]


def test_a_reader_starts_after_an_id(broker: Broker) -> None:
    """The message itself is not read again."""
    topic = new_topic()
    found = fill(broker, topic, 4)
    with broker.reader(topic, messageId=found[1]) as reader:
        assert [payload(message) for message in reader.receive_many(2)] == [b"2", b"3"]
        assert reader.silent()


def test_a_reader_starts_at_the_end_by_default(broker: Broker) -> None:
    """Only what comes later."""
    topic = new_topic()
    fill(broker, topic, 1)
    with broker.reader(topic) as reader, broker.producer(topic) as producer:
        ids(producer.ask(frame(b"late")))
        assert payload(reader.receive()) == b"late"


def test_a_reader_wants_answers(broker: Broker) -> None:
    """After `receiverQueueSize` messages without one it waits; each answer frees one place."""
    topic = new_topic()
    fill(broker, topic, 6)
    with broker.reader(topic, messageId="earliest", receiverQueueSize=2) as reader:
        first = reader.receive_many(2)
        assert reader.silent()
        reader.acknowledge(first[0])
        assert payload(reader.receive()) == b"2"
        assert reader.silent()


def test_a_reader_of_a_topic_with_partitions(broker: Broker) -> None:
    """All of them."""
    topic = new_topic()
    broker.admin.create_partitioned_topic(topic, 2)
    with broker.producer(topic) as producer:
        ids(producer.ask(*(frame(key=f"k{n}") for n in range(8))))
    back = broker.read_back(topic, 8)
    assert sorted(message["key"] for message in back) == [f"k{n}" for n in range(8)]


@SINCE_4
def test_a_consumer_acknowledges(broker: Broker) -> None:
    """What was not acknowledged comes again to the next one."""
    topic = new_topic()
    fill(broker, topic, 3)
    with broker.consumer(topic, subscriptionInitialPosition="Earliest") as consumer:
        messages = consumer.receive_many(3)
        assert [payload(message) for message in messages] == [b"0", b"1", b"2"]
        consumer.acknowledge(messages[0])
        consumer.acknowledge(messages[2])
        # No acknowledgement is answered; the subscription's backlog tells.
        wait_for_backlog(broker, topic, 1)
    with broker.consumer(topic) as consumer:
        assert payload(consumer.receive()) == b"1"
        assert consumer.silent()


def wait_for_backlog(broker: Broker, topic: str, count: int) -> None:
    """Until a subscription has that many messages left."""

    def reached() -> bool:
        return bool(broker.admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == count)

    wait_until(reached, f"a backlog of {count}")


def test_a_negative_acknowledgement_brings_it_again(broker: Broker) -> None:
    """After its delay, with a count."""
    topic = new_topic()
    query = {"subscriptionType": "Shared", "negativeAckRedeliveryDelay": 100}
    with (
        broker.consumer(topic, **query) as consumer,
        broker.producer(topic) as producer,
    ):
        ids(producer.ask(frame(b"0"), frame(b"1")))
        first, second = consumer.receive_many(2)
        assert first["redeliveryCount"] == 0
        consumer.acknowledge(second)
        consumer.negative(first)
        again = consumer.receive()
        assert again["messageId"] == first["messageId"]
        assert again["redeliveryCount"] == 1


@SINCE_4
def test_a_negative_acknowledgement_brings_all_again(broker: Broker) -> None:
    """Where one consumer gets them all: what it has not acknowledged comes again, in order."""
    topic = new_topic()
    fill(broker, topic, 4)
    query = {"subscriptionInitialPosition": "Earliest", "negativeAckRedeliveryDelay": 100}
    with broker.consumer(topic, **query) as consumer:
        messages = consumer.receive_many(4)
        consumer.acknowledge(messages[0])
        # Pulsar's client gathers acknowledgements: it could ask for all again before it sends one.
        wait_for_backlog(broker, topic, 3)
        consumer.negative(messages[2])
        again = consumer.receive_many(3)
        assert [payload(message) for message in again] == [b"1", b"2", b"3"]


def test_what_is_acknowledged_does_not_come_again(broker: Broker) -> None:
    """Whatever is said of it afterwards."""
    topic = new_topic()
    query = {"subscriptionType": "Shared", "negativeAckRedeliveryDelay": 0}
    with broker.consumer(topic, **query) as consumer, broker.producer(topic) as producer:
        ids(producer.ask(frame(b"0")))
        message = consumer.receive()
        consumer.acknowledge(message)
        wait_for_backlog(broker, topic, 0)
        consumer.negative(message)
        assert consumer.silent()


def test_a_consumer_unsubscribes(broker: Broker) -> None:
    """The subscription goes with what it had not delivered."""
    topic = new_topic()
    query = {"subscriptionType": "Shared"}
    with broker.consumer(topic, **query) as consumer, broker.producer(topic) as producer:
        ids(producer.ask(frame(b"now"), frame(b"late", deliverAfterMs=600_000)))
        assert payload(consumer.receive()) == b"now"
        consumer.send({"type": "unsubscribe"})
        wait_until(
            lambda: broker.admin.stats(topic)["subscriptions"] == {}, "the subscription is gone"
        )


def test_one_of_several_consumers_cannot_unsubscribe(broker: Broker) -> None:
    """It is closed; the other one goes on."""
    topic = new_topic()
    query = {"subscriptionType": "Shared"}
    with (
        broker.consumer(topic, **query) as one,
        broker.consumer(topic, **query) as two,
        broker.producer(topic) as producer,
    ):
        one.send({"type": "unsubscribe"})
        assert one.closed_with() is None
        ids(producer.ask(frame(b"on")))
        assert payload(two.receive()) == b"on"


def test_a_command_without_an_id(broker: Broker) -> None:
    """Closes the consumer, and says why."""
    with broker.consumer(new_topic()) as consumer:
        consumer.send({})
        end = consumer.closed_with()
        assert end is not None
        assert end[0] == 1011
        assert '"src" is null' in end[1]


@SINCE_4
def test_a_deleted_topic_takes_its_subscriptions_along(broker: Broker) -> None:
    """What they had not acknowledged does not come again."""
    topic = new_topic()
    fill(broker, topic, 2)
    query = {"subscriptionInitialPosition": "Earliest"}
    with broker.consumer(topic, **query) as consumer:
        consumer.receive_many(2)
    broker.admin.delete(topic)
    fill(broker, topic, 1)
    with broker.consumer(topic, **query) as consumer:
        assert payload(consumer.receive()) == b"0"
        assert consumer.silent()


def test_shared_consumers_share(broker: Broker) -> None:
    """Each message goes to one of them; how many each gets is not promised."""
    topic = new_topic()
    query = {"subscriptionType": "Shared", "receiverQueueSize": 2}
    with (
        broker.consumer(topic, **query) as one,
        broker.consumer(topic, **query) as two,
        broker.producer(topic) as producer,
    ):
        ids(producer.ask(*(frame(b"%d" % n) for n in range(20))))
        # One that acknowledges nothing gets no more than its window: the other gets some, too.
        held = [one.receive(), two.receive()]
        for socket, message in zip((one, two), held, strict=True):
            socket.acknowledge(message)
        first, second = receive_from((one, two), 18)
        got = Counter(payload(message) for message in held + first + second)
        assert got == Counter(b"%d" % n for n in range(20))


def test_key_shared_consumers_share_by_key(broker: Broker) -> None:
    """All messages of a key go to one of them, in order."""
    topic = new_topic()
    query = {"subscriptionType": "Key_Shared"}
    with (
        broker.consumer(topic, consumerName="one", **query) as one,
        broker.consumer(topic, consumerName="two", **query) as two,
        broker.producer(topic) as producer,
    ):
        ids(producer.ask(*(frame(b"%d" % n, key=f"key-{n % 8}") for n in range(40))))
        got = receive_from((one, two), 40)
        keys = [{message["key"] for message in mine} for mine in got]
        assert keys[0].isdisjoint(keys[1])
        seen: dict[str, list[int]] = {}
        for message in got[0] + got[1]:
            seen.setdefault(message["key"], []).append(int(payload(message)))
        assert seen == {f"key-{n}": list(range(n, 40, 8)) for n in range(8)}


def test_an_exclusive_subscription_has_one_consumer(broker: Broker) -> None:
    """The second gets a 409, and so does one of another type."""
    topic = new_topic()
    with broker.consumer(topic):
        refused = broker.refusal(consumer_path(topic))
        assert refused.status == 409
        assert "Exclusive consumer is already connected" in refused.sentence
        refused = broker.refusal(consumer_path(topic, subscriptionType="Shared"))
        assert refused.status == 409
        assert "Subscription is of different type" in refused.sentence


@SINCE_4
def test_a_failover_consumer_takes_over(broker: Broker) -> None:
    """With what the first had not acknowledged."""
    topic = new_topic()
    query = {"subscriptionType": "Failover", "subscriptionInitialPosition": "Earliest"}
    fill(broker, topic, 2)
    with broker.consumer(topic, consumerName="a", **query) as first:
        assert len(first.receive_many(2)) == 2
        with broker.consumer(topic, consumerName="b", **query) as second:
            first.close()
            assert [payload(message) for message in second.receive_many(2)] == [b"0", b"1"]


@SINCE_4
def test_a_full_window_waits(broker: Broker) -> None:
    """As a reader's."""
    topic = new_topic()
    fill(broker, topic, 10)
    query = {"subscriptionInitialPosition": "Earliest", "receiverQueueSize": 4}
    with broker.consumer(topic, **query) as consumer:
        messages = consumer.receive_many(4)
        assert consumer.silent()
        consumer.acknowledge(messages[0])
        assert payload(consumer.receive()) == b"4"


@SINCE_4
def test_pull_mode(broker: Broker) -> None:
    """Nothing comes without a permit; one without a number closes the socket."""
    topic = new_topic()
    fill(broker, topic, 3)
    query = {"subscriptionInitialPosition": "Earliest", "pullMode": "true"}
    with broker.consumer(topic, **query) as consumer:
        assert consumer.silent()
        consumer.send({"type": "permit", "permitMessages": 2})
        messages = consumer.receive_many(2)
        assert [payload(message) for message in messages] == [b"0", b"1"]
        # An answer is no permit here.
        consumer.acknowledge(messages[0])
        assert consumer.silent()
        consumer.send({"type": "permit"})
        assert consumer.closed_with() is None


def test_garbage_closes_a_consumer_and_a_reader(broker: Broker) -> None:
    """Without a close frame: the code that the broker would send is not a legal one."""
    topic = new_topic()
    for socket in (broker.consumer(topic), broker.reader(topic)):
        with socket:
            socket.send("garbage")
            assert socket.closed_with() is None


def test_the_end_of_a_topic(broker: Broker) -> None:
    """Asked by a command."""
    topic = new_topic()
    with broker.consumer(topic) as consumer, broker.reader(topic) as reader:
        for socket in (consumer, reader):
            socket.send({"type": "isEndOfTopic"})
            assert socket.receive() == {"endOfTopic": False}


def test_delayed_delivery(broker: Broker) -> None:
    """For shared subscriptions only; `deliverAfterMs` wins over `deliverAt`, and neither counts
    when it is not positive. The broker may be a tick, a second, too early."""
    topic = new_topic()
    now = int(time.time() * 1000)
    with (
        broker.consumer(topic, "shared", subscriptionType="Shared") as shared,
        broker.consumer(topic, "exclusive") as exclusive,
        broker.producer(topic) as producer,
    ):
        ids(
            producer.ask(
                frame(b"late", deliverAfterMs=2_500, deliverAt=1),
                frame(b"now", deliverAt=-1, deliverAfterMs=-1),
                frame(b"later", deliverAt=now + 3_000_000),
            )
        )
        arrived: dict[bytes, float] = {}
        while len(arrived) < 2:
            message = payload(shared.receive())
            arrived[message] = time.time() * 1000 - now
        # A broker that is held up for longer than the delay has both to deliver at once.
        assert arrived.keys() == {b"now", b"late"}
        assert arrived[b"late"] >= 2_500 - 1_000
        assert [payload(message) for message in exclusive.receive_many(3)] == [
            b"late",
            b"now",
            b"later",
        ]
        assert shared.silent()
