"""Topics of all sorts: partitioned, not persistent, terminated, deleted, unloaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from celery_stargate.model.hashing import partition_of
from celery_stargate.pulsar.verdicts import Verdict, classify_handshake
from celery_stargate.testing import MessageId
from tests.contract.wire import Broker, frame, ids, new_topic, payload, producer_path
from tests.servers.admin import AdminError


def test_a_message_that_is_not_persistent(broker: Broker) -> None:
    """Ledger 0, entry 0: accepted, and not durable."""
    with broker.producer(new_topic("non-persistent")) as producer:
        assert ids(producer.ask(frame(), frame())) == [MessageId(0, 0)] * 2


def test_a_message_that_is_not_persistent_reaches_who_is_there(broker: Broker) -> None:
    """And nobody else."""
    topic = new_topic("non-persistent")
    with broker.producer(topic) as producer:
        ids(producer.ask(frame(b"nobody")))
        with broker.consumer(topic) as consumer:
            ids(producer.ask(frame(b"you")))
            assert payload(consumer.receive()) == b"you"


KEYS = [*(f"k{n}" for n in range(6)), "", "ü", "𝄞", "a longer key", "a", "abc"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # Not Murmur3, as one might think: the builder's default is Java's own hash.
        ({}, [2, 0, 1, 2, 0, 1]),
        ({"hashingScheme": "JavaStringHash"}, [2, 0, 1, 2, 0, 1]),
        ({"hashingScheme": "Murmur3_32Hash"}, [1, 2, 1, 0, 1, 0]),
    ],
)
def test_keys_choose_partitions(broker: Broker, query: dict[str, str], expected: list[int]) -> None:
    """By their hash; the id tells the partition."""
    topic = new_topic()
    broker.admin.create_partitioned_topic(topic, 3)
    with broker.producer(topic, **query) as producer:
        receipts = producer.ask(*(frame(key=key, context=key) for key in KEYS))
    where = {
        receipt["context"]: MessageId.decode(receipt["messageId"]).partition for receipt in receipts
    }
    assert [where[f"k{n}"] for n in range(6)] == expected
    assert where == {key: partition_of(key, 3, query.get("hashingScheme")) for key in KEYS}


def test_without_a_key_one_partition_gets_all(broker: Broker) -> None:
    """`SinglePartition` is the default; round robin is the other."""
    topic = new_topic()
    broker.admin.create_partitioned_topic(topic, 3)
    assert broker.admin.partitions(topic) == 3
    with broker.producer(topic) as producer:
        found = ids(producer.ask(*(frame() for _ in range(6))))
        assert len({one.partition for one in found}) == 1
    with broker.producer(topic, messageRoutingMode="RoundRobinPartition") as producer:
        found = ids(producer.ask(*(frame() for _ in range(6))))
        assert sorted(one.partition for one in found) == [0, 0, 1, 1, 2, 2]


def test_each_partition_has_its_own_numbers(broker: Broker) -> None:
    """A producer of one partition is a producer of a plain topic: its ids name no partition."""
    topic = new_topic()
    broker.admin.create_partitioned_topic(topic, 2)
    for partition in range(2):
        part = f"{topic}-partition-{partition}"
        with broker.producer(part, producerName="lane", initialSequenceId=-1) as producer:
            (found,) = ids(producer.ask(frame(b"%d" % partition)))
            assert found.ledger >= 0
            assert found.partition == -1
            (message,) = broker.read_back(part, 1)
            # Who reads it is told.
            assert MessageId.decode(message["messageId"]).partition == partition
        with broker.producer(part, producerName="lane", initialSequenceId=-1) as producer:
            assert ids(producer.ask(frame()))[0].ledger == -1


def test_a_partition_that_is_not_there_is_refused_for_good(broker: Broker) -> None:
    """Even though plain topics are made when named. It is a 404; with Pulsar 3.0 it is a 500."""
    topic = new_topic()
    broker.admin.create_partitioned_topic(topic, 2)
    refused = broker.refusal(producer_path(f"{topic}-partition-7"))
    assert refused.status in (404, 500)
    assert classify_handshake(refused.status, refused.sentence) is Verdict.PERMANENT


def test_a_terminated_topic(broker: Broker) -> None:
    """Error 8 on the socket that is there, 503 for the next."""
    topic = new_topic()
    with broker.producer(topic) as producer:
        ids(producer.ask(frame(b"last")))
        last = broker.admin.terminate(topic)
        assert last["entryId"] == 0
        for context in ("late", "later"):
            (receipt,) = producer.ask(frame(context=context))
            assert receipt["result"] == "send-error:8"
            assert receipt["context"] == context
            assert receipt["errorMsg"].startswith(
                "org.apache.pulsar.client.api.PulsarClientException$TopicTerminatedException"
            )
            assert "messageId" not in receipt
    refused = broker.refusal(producer_path(topic))
    assert refused.status == 503
    assert "Topic was already terminated" in refused.sentence
    assert len(broker.read_back(topic, 1)) == 1


def test_an_unload_is_not_seen(broker: Broker) -> None:
    """The service connects again behind the socket; the numbers stay."""
    topic = new_topic()
    with broker.producer(topic, producerName="lane", initialSequenceId=-1) as producer:
        (first,) = ids(producer.ask(frame(b"1")))
        broker.admin.unload(topic)
        (second,) = ids(producer.ask(frame(b"2")))
        assert second > first
    with broker.producer(topic, producerName="lane", initialSequenceId=-1) as producer:
        assert ids(producer.ask(frame(b"1")))[0].ledger == -1
    assert [payload(message) for message in broker.read_back(topic, 2)] == [b"1", b"2"]


def test_a_deleted_topic(broker: Broker) -> None:
    """Not while somebody is connected, unless forced; a producer then makes it anew."""
    topic = new_topic()
    with broker.producer(topic) as producer:
        ids(producer.ask(frame(b"gone")))
        with pytest.raises(AdminError) as caught:
            broker.admin.delete(topic, force=False)
        assert caught.value.status == 412
        broker.admin.delete(topic)
        ids(producer.ask(frame(b"new")))
    assert [payload(message) for message in broker.read_back(topic, 1)] == [b"new"]


MISSING = "persistent://public/default/there-is-none"


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda broker: broker.admin.stats(MISSING), 404),
        (lambda broker: broker.admin.partitions(MISSING), 404),
        (lambda broker: broker.admin.terminate(MISSING), 404),
        (lambda broker: broker.admin.delete(MISSING), 404),
        (lambda broker: broker.admin.topics("public/none"), 404),
        (lambda broker: broker.admin.create_topic("persistent://public/none/topic"), 404),
        (lambda broker: broker.admin.create_namespace("nobody/namespace"), 404),
    ],
)
def test_admin_calls_that_fail(
    broker: Broker, call: Callable[[Broker], object], status: int
) -> None:
    """With a status and a reason."""
    with pytest.raises(AdminError) as caught:
        call(broker)
    assert caught.value.status == status
    assert "reason" in caught.value.reason


def test_partitions_of_a_topic_that_would_be_made(broker: Broker) -> None:
    """Asked as a client does that is about to use the topic; that makes none here."""
    topic = new_topic()
    path = topic.replace("://", "/") + "/partitions?checkAllowAutoCreation=true"
    assert broker.admin.call("GET", path)["partitions"] == 0
    with pytest.raises(AdminError, match="404"):
        broker.admin.partitions(topic)
    broker.admin.create_partitioned_topic(topic, 2)
    assert broker.admin.call("GET", path)["partitions"] == 2


def test_admin_calls(broker: Broker) -> None:
    """What tests read off a topic."""
    topic, admin = new_topic(), broker.admin
    admin.create_topic(topic)
    for again in (admin.create_topic, lambda name: admin.create_partitioned_topic(name, 2)):
        with pytest.raises(AdminError) as caught:
            again(topic)
        assert caught.value.status == 409
    assert topic in admin.topics("public/default")
    assert admin.partitions(topic) == 0
    assert admin.healthy()
    with broker.producer(topic, producerName="me") as producer:
        found = ids(producer.ask(frame(), frame()))
        assert [one["producerName"] for one in admin.stats(topic)["publishers"]] == ["me"]
    last = admin.last_message_id(topic)
    assert (last["ledgerId"], last["entryId"]) == (found[-1].ledger, found[-1].entry)
    assert last["partitionIndex"] == -1
    stats = admin.internal_stats(topic)
    assert stats["entriesAddedCounter"] == 2
    assert stats["lastConfirmedEntry"] == f"{found[-1].ledger}:{found[-1].entry}"
    admin.create_subscription(topic, "s", position="earliest")
    assert admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 2
