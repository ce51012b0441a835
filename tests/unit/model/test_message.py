"""Messages: the accepted forms, what is refused and in which words, and the frame's fields."""

from __future__ import annotations

import base64
import inspect
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json

from celery_stargate import InvalidMessage, Message
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.message import check_messages, refuse_ambiguous, to_json_form

#: Text that UTF-8 carries.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NOON = datetime(2030, 5, 1, 12, tzinfo=UTC)


def fields_of(**given: Any) -> dict[str, Any]:
    """Return the frame's fields of a message with a payload and these."""
    return Message(payload="p", **given).to_frame_fields()


@pytest.mark.parametrize(
    "given",
    [
        "text",
        b"text",
        bytearray(b"text"),
        memoryview(b"text"),
        {"payload": "text"},
        OrderedDict(payload=b"text"),
        MappingProxyType({"payload": "text"}),
        Message(payload="text"),
    ],
)
def test_each_form_is_a_message(given: object) -> None:
    """Text, bytes of each kind, any mapping, a Message: the same bytes reach Pulsar."""
    messages, is_list = check_messages(given)
    assert not is_list
    assert [each.to_frame_fields() for each in messages] == [{"payload": b"text"}]


def test_a_tuple_is_key_and_payload() -> None:
    """In this order, as Stargate has it."""
    [message], _ = check_messages(("k", b"p"))
    assert (message.key, message.payload) == ("k", b"p")


def test_a_list_keeps_its_order_and_forms() -> None:
    """Each message may have a form of its own."""
    messages, is_list = check_messages(["a", ("k", "b"), {"payload": b"c"}, Message(payload="d")])
    assert is_list
    assert [each.payload for each in messages] == ["a", "b", b"c", "d"]


@given(
    payload=TEXT | st.binary(),
    key=st.none() | TEXT,
    properties=st.none() | st.dictionaries(TEXT, TEXT, max_size=5),
    clusters=st.none() | st.lists(TEXT, max_size=3),
)
def test_round_trip(
    payload: str | bytes,
    key: str | None,
    properties: dict[str, str] | None,
    clusters: list[str] | None,
) -> None:
    """What is given is what Pulsar gets, and what kombu's JSON gives back to a worker."""
    message = Message(
        payload=payload, key=key, properties=properties, replication_clusters=clusters
    )
    fields = message.to_frame_fields()
    sent = json.loads(encode_frame(message, "c", 1 << 20))["payload"]
    assert base64.b64decode(sent, validate=True) == (
        payload.encode() if isinstance(payload, str) else payload
    )
    assert fields.get("key") == key
    assert fields.get("properties", {}) == (properties or {})
    assert fields.get("replicationClusters") == clusters
    [again], _ = check_messages(json.loads(json.dumps(message)))
    assert again == message


@pytest.mark.parametrize(
    "extra",
    [
        {"event_time": NOON},
        {"event_time": NOON.isoformat()},
        {"deliver_at": NOON},
        {"deliver_at": 1_900_000_000.25},
        {"deliver_after": timedelta(seconds=5)},
        {"deliver_after": 0.25},
        {"properties": MappingProxyType({"a": "b"})},
        {"replication_clusters": ("a", "b")},
    ],
)
def test_json_carries_every_form_of_a_field(extra: dict[str, Any]) -> None:
    """A Message in a chain, or by the broker, becomes the same frame in the worker."""
    message = Message(payload=b"\xff", **extra)
    [again], _ = check_messages(json.loads(json.dumps(message)))
    assert again.to_frame_fields() == message.to_frame_fields()


@pytest.mark.parametrize("buffer", [bytearray(b"abcd"), memoryview(b"abcd").cast("I")])
def test_a_buffer_is_copied(buffer: Any) -> None:
    """What is changed after the call is not what was checked; and JSON carries only bytes."""
    message = Message(payload=buffer)
    assert message.payload == b"abcd"
    assert type(message.payload) is bytes
    assert repr(message) == "<Message of 4 bytes>"


def test_properties_are_copied() -> None:
    """A change after the check would pass unchecked."""
    properties: dict[str, Any] = {"a": "b"}
    clusters: list[Any] = ["here"]
    message = Message(payload="p", properties=properties, replication_clusters=clusters)
    properties["a"] = 5
    clusters.append(5)
    fields = message.to_frame_fields()
    assert fields["properties"] == {"a": "b"}
    assert fields["replicationClusters"] == ["here"]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (NOON, "2030-05-01T12:00:00.000+00:00"),
        (NOON.astimezone(timezone(timedelta(hours=-3))), "2030-05-01T09:00:00.000-03:00"),
        ("2030-05-01T12:00:00.123456+02:00", "2030-05-01T12:00:00.123+02:00"),
        ("2030-05-01T12:00:00Z", "2030-05-01T12:00:00.000+00:00"),
    ],
)
def test_event_time_has_an_offset(moment: object, expected: str) -> None:
    """Pulsar refuses a time without one."""
    assert fields_of(event_time=moment)["eventTime"] == expected


@pytest.mark.parametrize(
    "moment", [NOON, NOON.isoformat(), NOON.timestamp(), int(NOON.timestamp())]
)
def test_deliver_at_is_milliseconds(moment: object) -> None:
    """Of the epoch, for each form."""
    assert fields_of(deliver_at=moment)["deliverAt"] == 1_903_867_200_000


def test_epoch_seconds_are_that_moment() -> None:
    """Whatever the zone of the machine."""
    text = fields_of(event_time=1_903_867_200.5)["eventTime"]
    assert datetime.fromisoformat(text) == NOON + timedelta(seconds=0.5)


@given(st.integers(1, 2**40))
def test_deliver_at_loses_no_millisecond(millis: int) -> None:
    """A datetime of whole milliseconds is sent as it is."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)
    assert fields_of(deliver_at=moment)["deliverAt"] == millis


@pytest.mark.parametrize(
    ("duration", "millis"),
    [(5, 5000), (0.25, 250), (timedelta(minutes=1), 60_000), (0.0001, 1), (0.29, 290)],
)
def test_deliver_after_is_milliseconds(duration: object, millis: int) -> None:
    """At least one: 0 would be sent at once."""
    assert fields_of(deliver_after=duration)["deliverAfterMs"] == millis


def test_only_what_is_set_is_sent() -> None:
    """No field of the frame without a value."""
    assert fields_of(properties={}) == {"payload": b"p"}
    assert Message(payload="p").to_dict() == {"payload": "p"}


BAD_MESSAGES: list[tuple[object, str]] = [
    (5, "a message is text, bytes, (key, payload), a mapping or a Message, not int"),
    (None, "not NoneType"),
    (True, "not bool"),
    ({"a", "b"}, "not set"),
    ([], "the list of messages is empty"),
    ((), "a tuple is (key, payload), and this one has 0 parts"),
    (("k", "p", "x"), "this one has 3 parts"),
    ((None, "p"), "key must be text, not NoneType"),
    ((b"k", "p"), "key must be text, not bytes"),
    (("k", None), "payload must be text or bytes, not NoneType"),
    (("k", {"a": 1}), "payload must be text or bytes, not dict; for JSON use Message.json(…)"),
    ({}, "the mapping has no payload; a message is {'payload': text or bytes} or {'json': …}"),
    ({}, "also for an empty JSON object: {'json': {}}"),
    ({"payload": None}, "the mapping has no payload"),
    ({"key": "k"}, "the mapping has no payload; a message is {'payload': text or bytes} or"),
    ({"payload": "p", "json": 5}, "payload and json are both given; give one"),
    ({"json": object()}, "json cannot be encoded: TypeError: Encoding objects of type object is"),
    ({"json": "\ud800"}, "json cannot be encoded: UnicodeEncodeError"),
    ({"json": {(1, 2): 3}}, "json cannot be encoded: TypeError: Only dicts with str-like"),
    ({"json": 10**5000}, "json cannot be encoded: ValueError"),
    ({"jsn": 5}, "unknown field 'jsn'; did you mean 'json'?"),
    ({"payload": 5}, "payload must be text or bytes, not int"),
    ({"payload": Decimal(1)}, "payload must be text or bytes, not Decimal"),
    ({"payload": "\ud800"}, "payload contains a lone surrogate"),
    ({"payload": "p", "key": 5}, "key must be text, not int"),
    ({"payload": "p", "key": "\udfff"}, "key contains a lone surrogate"),
    ({"payload": "p", "paylod": "x"}, "unknown field 'paylod'; did you mean 'payload'?"),
    ({"payload": "p", "deliverAfter": 5}, "'deliverAfter'; did you mean 'deliver_after'?"),
    ({"payload": "p", "eventTime": 5}, "'eventTime'; did you mean 'event_time'?"),
    (
        {"payload": "p", "zzz": 5},
        "unknown field 'zzz'. The fields are payload, json, key",
    ),
    ({"id": 1, "item": "lamp"}, "; to send this mapping as JSON, give {'json': …}"),
    ({"id": 1, "key": "lamp"}, "; to send this mapping as JSON, give {'json': …}"),
    ({"key": "lamp"}, "or {'json': …}; to send this mapping as JSON, give {'json': …}"),
    ({"payload": "p", 5: 5}, "the name of a field must be text, not int"),
    ({"payload": "p", "properties": ["a"]}, "properties must map text to text, not be list"),
    ({"payload": "p", "properties": {"a": 1}}, "property 'a' must be text, not int"),
    ({"payload": "p", "properties": {"a": None}}, "property 'a' must be text, not NoneType"),
    ({"payload": "p", "properties": {1: "a"}}, "the name of a property must be text, not int"),
    ({"payload": "p", "properties": {"a": "\ud800"}}, "property 'a' contains a lone surrogate"),
    ({"payload": "p", "event_time": datetime(2030, 1, 1)}, "2030-01-01 00:00:00 is naive"),  # noqa: DTZ001
    ({"payload": "p", "event_time": "2030-01-01T00:00:00"}, "is naive; give it a time zone"),
    ({"payload": "p", "event_time": "soon"}, "event_time 'soon' is not an ISO 8601 time"),
    ({"payload": "p", "event_time": True}, "event_time must be a datetime, an ISO 8601 text"),
    ({"payload": "p", "event_time": Decimal(5)}, "not Decimal"),
    ({"payload": "p", "event_time": 0}, "event_time 0 is not after 1970"),
    ({"payload": "p", "event_time": float("nan")}, "event_time nan is not an epoch time"),
    ({"payload": "p", "event_time": float("inf")}, "event_time inf is not an epoch time"),
    ({"payload": "p", "event_time": 10**5000}, "is not an epoch time in seconds"),
    ({"payload": "p", "event_time": "9" * 10**6}, "is not an ISO 8601 time"),
    ({"payload": "p", "deliver_at": "2030-01-01"}, "deliver_at 2030-01-01 is naive"),
    ({"payload": "p", "deliver_at": -5}, "deliver_at -5 is not after 1970"),
    ({"payload": "p", "deliver_after": 0}, "deliver_after must be more than 0 seconds"),
    ({"payload": "p", "deliver_after": -1}, "deliver_after must be more than 0 seconds"),
    ({"payload": "p", "deliver_after": timedelta(0)}, "deliver_after must be more than 0"),
    ({"payload": "p", "deliver_after": "5"}, "deliver_after must be seconds or a timedelta"),
    ({"payload": "p", "deliver_after": True}, "deliver_after must be seconds or a timedelta"),
    ({"payload": "p", "deliver_after": Decimal(5)}, "not Decimal"),
    ({"payload": "p", "deliver_after": float("nan")}, "and is nan"),
    ({"payload": "p", "deliver_after": float("inf")}, "deliver_after must be finite"),
    ({"payload": "p", "deliver_after": 10**400}, "deliver_after must be finite"),
    ({"payload": "p", "deliver_after": 1e16}, "deliver_after must be finite"),
    (
        {"payload": "p", "deliver_at": NOON, "deliver_after": 5},
        "deliver_at and deliver_after are both given; give one",
    ),
    ({"payload": "p", "replication_clusters": "a"}, "replication_clusters must be a list"),
    ({"payload": "p", "replication_clusters": {"a"}}, "replication_clusters must be a list"),
    ({"payload": "p", "replication_clusters": [5]}, "a name in replication_clusters must be text"),
]


@pytest.mark.parametrize(("given", "words"), BAD_MESSAGES)
def test_bad_input(given: object, words: str) -> None:
    """Each is told in words that name the field and what was found, in bounded length."""
    with pytest.raises(InvalidMessage) as caught:
        check_messages(given)
    text = str(caught.value)
    assert words in text
    assert len(text) < 400
    assert caught.value.index is None


@pytest.mark.parametrize(("given", "words"), [row for row in BAD_MESSAGES if row[0] != []])
def test_bad_input_in_a_list(given: object, words: str) -> None:
    """The same words, and the index."""
    with pytest.raises(InvalidMessage) as caught:
        check_messages(["fine", given])
    assert str(caught.value).startswith("message 1 of the list: ")
    assert words in str(caught.value)
    assert caught.value.index == 1


def test_a_list_in_a_list() -> None:
    """Is no message."""
    with pytest.raises(InvalidMessage, match=r"^message 0 of the list: .* not list; JSON turns"):
        check_messages([["a"]])


#: What msgspec encodes and `json.dumps` does not.
ORDER = {
    "id": UUID(int=5),
    "at": NOON,
    "total": Decimal("1.10"),
    "tags": ("a", "b"),
    "raw": b"x",
}
ORDER_JSON = (
    b'{"id":"00000000-0000-0000-0000-000000000005","at":"2030-05-01T12:00:00Z",'
    b'"total":"1.10","tags":["a","b"],"raw":"eA=="}'
)


@pytest.mark.parametrize(
    "given",
    [
        Message.json(ORDER, key="k"),
        {"json": ORDER, "key": "k"},
        {"json": ORDER, "payload": None, "key": "k"},
    ],
)
def test_json_payloads(given: object) -> None:
    """Values as msgspec encodes them; between tasks they are text already."""
    for form in (given, json.loads(json.dumps(to_json_form(given)))):
        [message], _ = check_messages(form)
        assert message.to_frame_fields() == {"payload": ORDER_JSON, "key": "k"}


@pytest.mark.parametrize(("value", "text"), [(None, "null"), ({}, "{}"), ([], "[]"), (0, "0")])
def test_empty_json_payloads(value: object, text: str) -> None:
    """Are values as any."""
    assert Message.json(value).payload == text
    assert check_messages({"json": value})[0][0].payload == text


def test_a_value_that_contains_itself() -> None:
    """Is told, as any that cannot be encoded."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidMessage, match="^json cannot be encoded: RecursionError"):
        Message.json(value)


def test_json_takes_every_field_of_a_message() -> None:
    """So no message has to be written in another form for one field."""
    taken = inspect.signature(Message.json).parameters.keys() - {"value"}
    assert taken == set(Message.__struct_fields__) - {"payload"}
    message = Message.json(5, properties={"a": "b"}, deliver_after=3, replication_clusters=["c"])
    assert message.to_dict() == {
        "payload": "5",
        "properties": {"a": "b"},
        "deliver_after": 3,
        "replication_clusters": ("c",),
    }


def test_the_payload_may_stand_first() -> None:
    """The others have names."""
    assert Message("x", key="k") == Message(payload="x", key="k")
    assert repr(Message("x")) == "<Message of 1 characters>"
    with pytest.raises(TypeError):
        Message("x", "k")  # type: ignore[call-arg]


# Between tasks.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("k", "p"), {"key": "k", "payload": "p"}),
        (["a", "b"], [{"payload": "a"}, {"payload": "b"}]),
        (["a", b"b"], [{"payload": "a"}, {"payload": b"b"}]),
        ([b"a", "b"], [b"a", "b"]),
        (["a"], ["a"]),
        (["a", "b", "c"], ["a", "b", "c"]),
        ([("k", "p"), Message("x")], [{"key": "k", "payload": "p"}, {"payload": "x"}]),
        (bytearray(b"a"), b"a"),
        (MappingProxyType({"json": 1}), {"payload": "1"}),
        (
            {"payload": "p", "deliver_after": timedelta(seconds=5)},
            {"payload": "p", "deliver_after": 5},
        ),
        (("k", "p", "x"), ("k", "p", "x")),
        (5, 5),
    ],
)
def test_the_form_between_tasks(given: object, expected: object) -> None:
    """JSON does not change it, so the next task gets the same messages."""
    form = to_json_form(given)
    assert form == expected
    assert to_json_form(form) == form
    try:
        messages, is_list = check_messages(given)
    except InvalidMessage:
        return
    received = json.loads(json.dumps(form))
    refuse_ambiguous(received)
    again, is_list_again = check_messages(received)
    assert [each.to_frame_fields() for each in again] == [
        each.to_frame_fields() for each in messages
    ]
    assert is_list_again == is_list


@pytest.mark.parametrize("given", [("k", "p"), ("k", b"p"), ["a", "b"]])
def test_what_may_have_been_a_tuple_is_refused(given: object) -> None:
    """Where another sender encoded it: the words say what to send."""
    with pytest.raises(InvalidMessage) as caught:
        refuse_ambiguous(json.loads(json.dumps(given)))
    assert "send {'key': …, 'payload': …}, or for two messages [{'payload': …}" in str(caught.value)


@pytest.mark.parametrize(
    "given", ["a", ["a"], ["a", "b", "c"], [b"a", "b"], [{"payload": "a"}, "b"], {"payload": "a"}]
)
def test_what_cannot_have_been_a_tuple_passes(given: object) -> None:
    """A key is text, and a tuple has two parts."""
    refuse_ambiguous(given)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(
                st.sampled_from(["payload", *Message.__struct_fields__]) | st.integers(),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_anything_is_a_message_or_invalid(given: object) -> None:
    """Never another error, and what is accepted can be encoded."""
    try:
        messages, _ = check_messages(given)
    except InvalidMessage:
        return
    for message in messages:
        json.loads(encode_frame(message, "c", 1 << 20))


@pytest.mark.parametrize("payload", ["s3cr3t", b"s3cr3t"])
def test_no_secret_is_shown(payload: str | bytes) -> None:
    """Neither payload nor key, wherever a Message is printed."""
    message = Message(payload=payload, key="s3cr3t", properties={"a": "s3cr3t"})
    for text in (repr(message), str(message), f"{message}", repr([message])):
        assert "s3cr3t" not in text
        assert "of 6 " in text


@pytest.mark.parametrize(
    "given",
    [
        ("s3cr3t", 5),
        ("s3cr3t", ["s3cr3t"]),
        ("s3cr3t\ud800", "s3cr3t"),
        {"payload": "s3cr3t\ud800"},
        {"payload": ["s3cr3t"]},
        {"json": {"s3cr3t": "s3cr3t\ud800"}},
        {"json": {("s3cr3t",): 5}},
        {"json": ["s3cr3t", object()]},
        {"json": "s3cr3t", "payload": "s3cr3t"},
        {"payload": "s3cr3t", "key": ["s3cr3t"]},
        {"payload": "s3cr3t", "properties": {"a": ["s3cr3t"]}},
        {"payload": "s3cr3t", "properties": "s3cr3t"},
        {"payload": "s3cr3t", "deliver_after": ["s3cr3t"]},
        {"payload": "s3cr3t", "surprise": "s3cr3t"},
        ["fine", ("s3cr3t", "s3cr3t", "s3cr3t")],
    ],
)
def test_no_secret_is_in_an_error(given: object) -> None:
    """The words name the field and the type; the value stays with the caller."""
    with pytest.raises(InvalidMessage) as caught:
        check_messages(given)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cr3t" not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
