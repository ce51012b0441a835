"""What a producer's frames are answered with."""

from __future__ import annotations

import json

import pytest

from celery_stargate.testing import MessageId
from tests.contract.wire import Broker, frame, ids, new_topic, payload

LIMIT = 1_048_576


def test_an_ok(broker: Broker) -> None:
    """All fields, and an id that decodes."""
    with broker.producer(new_topic()) as producer:
        (receipt,) = producer.ask(frame(context="c-1"))
    assert list(receipt) == ["result", "messageId", "context", "errorCode", "schemaVersion"]
    assert (receipt["result"], receipt["context"]) == ("ok", "c-1")
    assert (receipt["errorCode"], receipt["schemaVersion"]) == (0, 0)
    found = MessageId.decode(receipt["messageId"])
    assert found.ledger >= 0
    assert found.entry == 0
    assert (found.partition, found.batch_index) == (-1, -1)
    assert found.encode() == receipt["messageId"]


def test_receipts_come_in_the_order_of_sending(broker: Broker) -> None:
    """Of a topic without partitions, with ids that grow; and so it is read back."""
    topic = new_topic()
    count = 200
    with broker.producer(topic) as producer:
        receipts = producer.ask(*(frame(b"%d" % n, context=str(n)) for n in range(count)))
    assert [receipt["context"] for receipt in receipts] == [str(n) for n in range(count)]
    found = ids(receipts)
    assert found == sorted(found)
    assert len(set(found)) == count
    back = broker.read_back(topic, count)
    assert [payload(message) for message in back] == [b"%d" % n for n in range(count)]
    assert [message["messageId"] for message in back] == [r["messageId"] for r in receipts]


def test_no_context_no_context(broker: Broker) -> None:
    """The field is missing in the receipt, not null."""
    with broker.producer(new_topic()) as producer:
        for text in (frame(), frame(context=None)):
            (receipt,) = producer.ask(text)
            assert "context" not in receipt


@pytest.mark.parametrize(
    ("context", "echo"), [(5, "5"), (True, "true"), ("", ""), ("ü✓", "ü✓"), ("a" * 5000,) * 2]
)
def test_a_context_comes_back_as_text(broker: Broker, context: object, echo: str) -> None:
    """Whatever it was."""
    with broker.producer(new_topic()) as producer:
        (receipt,) = producer.ask(frame(context=context))
    assert receipt["context"] == echo


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "",
        "[]",
        '"text"',
        "1",
        frame(context={"not": "plain"}),
        frame(properties={"nested": {"a": "b"}}),
        frame(properties=[]),
        frame(replicationClusters="one"),
        frame(deliverAt="x"),
        frame(deliverAfterMs={}),
        # Looked at, though it is never used.
        frame(schemaVersion="x"),
    ],
)
def test_bad_json_is_error_3_without_a_context(broker: Broker, text: str) -> None:
    """Nobody can tell whose it was. The socket goes on."""
    with broker.producer(new_topic()) as producer:
        (receipt,) = producer.ask(text)
        assert receipt["result"] == "send-error:3"
        assert receipt["errorMsg"]
        assert "context" not in receipt
        assert "messageId" not in receipt
        assert receipt["errorCode"] == 0
        ids(producer.ask(frame()))


@pytest.mark.parametrize(
    "text",
    [
        '{"context": "c"}',
        '{"context": "c", "payload": null}',
        '{"context": "c", "payload": "@@@@"}',
        '{"context": "c", "payload": "_-8="}',
        '{"context": "c", "payload": "eHg=\\n"}',
        frame(context="c", eventTime="2020-01-01T00:00:00"),
        frame(context="c", eventTime="2020-01-01 00:00:00Z"),
        frame(context="c", eventTime="2020-01-01T00:00:00+0200"),
        frame(context="c", eventTime=5),
    ],
)
def test_bad_input_is_error_7(broker: Broker, text: str) -> None:
    """A missing payload, base64 that is not the standard one, a time without offset."""
    with broker.producer(new_topic()) as producer:
        (receipt,) = producer.ask(text)
        assert receipt["result"] == "send-error:7"
        assert receipt["context"] == "c"
        # Java throws a NullPointerException that it has thrown often without a text: the field is
        # missing then.
        assert receipt.get("errorMsg") != ""
        assert receipt["errorCode"] == 0
        ids(producer.ask(frame()))


def test_null_is_error_7_without_a_context(broker: Broker) -> None:
    """It is good JSON."""
    with broker.producer(new_topic()) as producer:
        (receipt,) = producer.ask("null")
        assert receipt["result"] == "send-error:7"
        assert "context" not in receipt


def test_a_null_property_closes_the_socket(broker: Broker) -> None:
    """With 1011: one such message would kill all others in flight."""
    with broker.producer(new_topic()) as producer:
        producer.send(frame(properties={"a": None}))
        end = producer.closed_with()
    assert end == (1011, "Need Non-Null value for key: a")


def test_a_binary_frame_is_ignored(broker: Broker) -> None:
    """No answer, no harm."""
    with broker.producer(new_topic()) as producer:
        producer.send(b"not text")
        (receipt,) = producer.ask(frame(context="after"))
        assert receipt["context"] == "after"


def test_unknown_fields_are_ignored_without_a_word(broker: Broker) -> None:
    """`deliverAfter` is one of them."""
    topic = new_topic()
    with broker.producer(topic) as producer:
        ids(producer.ask(frame(deliverAfter=10_000, sequenceId=7, schemaVersion=7, foo={})))
    assert len(broker.read_back(topic, 1)) == 1


def test_a_frame_of_the_limit_is_taken(broker: Broker) -> None:
    """1,048,576 bytes."""
    with broker.producer(new_topic()) as producer:
        ids(producer.ask(_sized(LIMIT)))


@pytest.mark.parametrize("text", ["ascii", "bytes count, not letters"])
def test_a_frame_over_the_limit_closes_the_socket(broker: Broker, text: str) -> None:
    """With 1009. It is the bytes on the wire that count."""
    big = _sized(LIMIT + 1)
    if text != "ascii":
        big = json.dumps({"payload": "", "context": "é" * 600_000}, ensure_ascii=False)
        assert len(big) < LIMIT < len(big.encode())
    with broker.producer(new_topic()) as producer:
        producer.send(big)
        end = producer.closed_with()
    assert end is not None
    assert end[0] == 1009


def _sized(size: int) -> str:
    rest = size - len(frame(b"", context=""))
    text = json.dumps({"payload": "A" * (rest // 4 * 4), "context": "c" * (rest % 4)})
    assert len(text) == size
    return text


def test_what_a_reader_gets(broker: Broker) -> None:
    """Key, properties, event time in UTC; fields that were not given are missing."""
    topic = new_topic()
    with broker.producer(topic) as producer:
        ids(
            producer.ask(
                frame(
                    "ü".encode(),
                    key="k",
                    properties={"a": "b", "number": 1},
                    eventTime="2020-01-01T02:00:00.120+02:00",
                ),
                frame(b"", eventTime="2020-01-01T00:00Z"),
                frame(b"YQ"),
            )
        )
    full, empty, plain = broker.read_back(topic, 3)
    assert payload(full) == "ü".encode()
    assert full["key"] == "k"
    assert full["properties"] == {"a": "b", "number": "1"}
    assert full["eventTime"] == "2020-01-01T00:00:00.12Z"
    assert full["publishTime"].endswith("Z")
    assert full["redeliveryCount"] == 0
    assert payload(empty) == b""
    assert empty["eventTime"] == "2020-01-01T00:00:00Z"
    assert empty["properties"] == {}
    assert set(plain) == {"messageId", "payload", "properties", "publishTime", "redeliveryCount"}


def test_padding_may_be_missing(broker: Broker) -> None:
    """As Java's decoder has it."""
    topic = new_topic()
    with broker.producer(topic) as producer:
        ids(producer.ask('{"payload": "YQ"}'))
    assert payload(broker.read_back(topic, 1)[0]) == b"a"
