"""Which upgrade requests are refused, with which status and words."""

from __future__ import annotations

import uuid
from urllib.parse import quote

import pytest

from celery_stargate import InvalidMessage
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.verdicts import Verdict, classify_handshake
from tests.contract.versions import SINCE_4
from tests.contract.wire import Broker, consumer_path, frame, ids, new_topic, producer_path


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"hashingScheme": "murmur3_32hash"}, "No enum constant"),
        ({"compressionType": "lz4"}, "Invalid compressionType lz4"),
        ({"compressionType": ""}, "Invalid compressionType"),
        ({"messageRoutingMode": "nowhere"}, "Invalid messageRoutingMode nowhere"),
        ({"sendTimeoutMillis": "soon"}, 'For input string: "soon"'),
        ({"sendTimeoutMillis": "-5"}, "sendTimeout needs to be >= 0"),
        ({"initialSequenceId": "abc"}, 'For input string: "abc"'),
        ({"initialSequenceId": ""}, 'For input string: ""'),
        ({"producerName": ""}, "producerName cannot be blank"),
        ({"batchingEnabled": "true", "maxPendingMessages": "x"}, 'For input string: "x"'),
        ({"batchingEnabled": "true", "maxPendingMessages": "-1"}, "needs to be >= 0"),
        ({"batchingEnabled": "true", "batchingMaxMessages": "x"}, 'For input string: "x"'),
        ({"batchingEnabled": "true", "batchingMaxPublishDelay": "x"}, 'For input string: "x"'),
    ],
)
def test_a_wrong_query_parameter_is_a_400(
    broker: Broker, query: dict[str, str], sentence: str
) -> None:
    """The sentence says which, in an HTML page."""
    refused = broker.refusal(producer_path(new_topic(), **query))
    assert refused.status == 400
    assert refused.sentence.startswith("Invalid query params: ")
    assert sentence in refused.sentence
    assert refused.content_type.startswith("text/html")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"hashingScheme": "Murmur3_32Hash", "compressionType": "LZ4", "sendTimeoutMillis": "0"},
        {"hashingScheme": "JavaStringHash", "messageRoutingMode": "CustomPartition"},
        {"compressionType": "SNAPPY", "messageRoutingMode": "RoundRobinPartition"},
        {"somethingElse": "is ignored"},
        # A word that is not `true` is false, not an error.
        {"batchingEnabled": "maybe"},
        # These count only with batching, and are not even looked at without.
        pytest.param(
            {"maxPendingMessages": "x", "batchingMaxMessages": "x", "batchingMaxPublishDelay": "x"},
            marks=SINCE_4,
        ),
        {"batchingEnabled": "true", "batchingMaxMessages": "10", "maxPendingMessages": "10"},
    ],
)
def test_these_queries_are_taken(broker: Broker, query: dict[str, str]) -> None:
    """The upgrade succeeds, and the producer works."""
    with broker.producer(new_topic(), **query) as producer:
        ids(producer.ask(frame()))


def test_encryption_by_the_server_without_its_keys_is_a_500(broker: Broker) -> None:
    """It is the server that lacks something."""
    refused = broker.refusal(producer_path(new_topic(), encryptionKeys="a"))
    assert refused.status == 500
    assert "cryptoKeyReaderFactoryClassName" in refused.sentence


@pytest.mark.parametrize("namespace", ["public/no-such-namespace", "no-such-tenant/default"])
@pytest.mark.parametrize("kind", ["producer", "consumer"])
def test_an_unknown_namespace_is_a_404(broker: Broker, namespace: str, kind: str) -> None:
    """Topics are made when they are named; namespaces are not."""
    end = "/subscription" if kind == "consumer" else ""
    refused = broker.refusal(f"/ws/v2/{kind}/persistent/{namespace}/topic{end}")
    assert refused.status == 404
    assert "Namespace not found" in refused.sentence


def test_a_reader_of_an_unknown_namespace_is_a_500(broker: Broker) -> None:
    """The reader endpoint answers 500 to all that it cannot make."""
    refused = broker.refusal("/ws/v2/reader/persistent/public/no-such-namespace/topic")
    assert refused.status == 500
    assert refused.sentence.startswith("Failed to create reader: ")
    assert "Namespace not found" in refused.sentence


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ws/v2/producer/persistent/public/default", 500),
        ("/ws/v2/producer/persistent/public", 500),
        ("/ws/v2/producer/no-such-domain/public/default/topic", 500),
        ("/ws/v2/reader/persistent/public/default", 500),
        ("/ws/v2/consumer/persistent/public/default/no-subscription", 400),
        ("/ws/v2/nothing/persistent/public/default/topic", 404),
    ],
)
def test_malformed_paths(broker: Broker, path: str, status: int) -> None:
    """Each endpoint has its own answer to them."""
    assert broker.refusal(path).status == status


@pytest.mark.parametrize(
    "namespace",
    ["pub+lic/default", "public/de(fault", "публичный/default", "a@b/default", "a%/default"],
)
def test_names_that_pulsar_never_takes(broker: Broker, namespace: str) -> None:
    """It refuses them with status 500; the client calls this permanent, and does not ask at all."""
    tenant, name = namespace.split("/")
    refused = broker.refusal(f"/ws/v2/producer/persistent/{quote(tenant)}/{quote(name)}/topic")
    assert refused.status == 500
    assert "IllegalArgumentException: Invalid named entity: " in refused.sentence
    assert classify_handshake(500, refused.sentence) is Verdict.PERMANENT
    with pytest.raises(InvalidMessage, match="Pulsar allows only"):
        Topic.parse(f"persistent://{namespace}/topic")


def test_a_part_before_a_slash_that_pulsar_never_takes(broker: Broker) -> None:
    """Pulsar reads it as a namespace of the old form, with a cluster."""
    refused = broker.refusal("/ws/v2/producer/persistent/public/default/a%40b%2Ftopic")
    assert refused.status == 500
    assert "IllegalArgumentException: Invalid named entity: a@b" in refused.sentence
    with pytest.raises(InvalidMessage, match="has the part 'a@b'"):
        Topic.parse("persistent://public/default/a@b/topic")


def test_names_that_pulsar_takes(broker: Broker) -> None:
    """All characters of a tenant and namespace, and any in a topic's own name."""
    namespace = f"public/a=b:c.d-{uuid.uuid4().hex[:8]}"
    broker.admin.create_namespace(namespace)
    for name in ("plain", "a+b(c)é:=%2f?#&;@😀", "a=b:c.d-e/+(;😀", "x" * 300):
        topic = Topic.parse(f"persistent://{namespace}/{name}")
        with broker.open_path(f"/ws/v2/producer/{topic.path}") as producer:
            ids(producer.ask(frame()))


def test_an_encryption_key_is_refused_for_good(broker: Broker) -> None:
    """The service has no reader for keys, and a retry does not give it one."""
    refused = broker.refusal(producer_path(new_topic(), encryptionKeys="a"))
    assert classify_handshake(refused.status, refused.sentence) is Verdict.PERMANENT


def test_a_slash_in_a_topic_name(broker: Broker) -> None:
    """Quoted, it is part of the name."""
    topic = f"{new_topic()}/with/slashes"
    with broker.producer(topic) as producer:
        ids(producer.ask(frame(b"found")))
    assert len(broker.read_back(topic, 1)) == 1


def test_a_name_that_is_taken_is_a_409(broker: Broker) -> None:
    """And free again once its socket is closed."""
    topic = new_topic()
    path = producer_path(topic, producerName="only-one")
    with broker.open_path(path) as first:
        refused = broker.refusal(path)
        assert refused.status == 409
        assert "Producer with name 'only-one' is already connected to topic" in refused.sentence
        ids(first.ask(frame()))
    with broker.open_path(path) as second:
        ids(second.ask(frame()))


def test_the_same_name_on_another_topic_is_free(broker: Broker) -> None:
    """Names belong to topics."""
    with (
        broker.producer(new_topic(), producerName="same") as first,
        broker.producer(new_topic(), producerName="same") as second,
    ):
        ids(first.ask(frame()))
        ids(second.ask(frame()))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"subscriptionType": "shared"}, "Invalid subscriptionType shared"),
        pytest.param(
            {"subscriptionInitialPosition": "earliest"},
            "Invalid subscriptionInitialPosition",
            marks=SINCE_4,
        ),
        ({"receiverQueueSize": "x"}, 'For input string: "x"'),
        ({"negativeAckRedeliveryDelay": "-1"}, "redeliveryDelay needs to be >= 0"),
        ({"ackTimeoutMillis": "5"}, "Ack timeout should be greater than 1000 ms"),
    ],
)
def test_a_wrong_query_parameter_of_a_consumer_is_a_400(
    broker: Broker, query: dict[str, str], sentence: str
) -> None:
    """As for producers."""
    refused = broker.refusal(consumer_path(new_topic(), **query))
    assert refused.status == 400
    assert sentence in refused.sentence


def test_a_bad_start_of_a_reader_is_a_500(broker: Broker) -> None:
    """It should be a 400, and is not."""
    refused = broker.refusal("/ws/v2/reader/persistent/public/default/topic?messageId=%25%25")
    assert refused.status == 500
    assert refused.sentence.startswith("Failed to create reader: ")
