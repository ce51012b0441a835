"""Pulsar's dialect: frames out, replies in however hostile, message ids, what an error means."""

from __future__ import annotations

import base64
import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celery_stargate import InvalidMessage, Message
from celery_stargate.model.frame import encode_frame
from celery_stargate.pulsar.message_id import MessageId
from celery_stargate.pulsar.replies import Reply, decode_reply
from celery_stargate.pulsar.sentences import handshake_sentence, plain
from celery_stargate.pulsar.verdicts import (
    PERMANENT_EXCEPTIONS,
    Verdict,
    classify_handshake,
    classify_reply,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
#: Seconds of this thread's own time: far above what any of them takes, and far below what one that
#: is quadratic would.
QUICK = 0.5


# Frames.


def test_a_frame_is_pulsars_json() -> None:
    """Every honoured field under Pulsar's name, and the context that it echoes."""
    message = Message(
        payload=b"\x00\xff",
        key="k",
        properties={"a": "é"},
        event_time="2030-01-01T00:00:00+00:00",
        deliver_after=5,
        replication_clusters=["here"],
    )
    assert json.loads(encode_frame(message, "c", 10_000)) == {
        "payload": "AP8=",
        "key": "k",
        "properties": {"a": "é"},
        "eventTime": "2030-01-01T00:00:00.000+00:00",
        "deliverAfterMs": 5000,
        "replicationClusters": ["here"],
        "context": "c",
    }


@pytest.mark.parametrize("text", ["x" * 10, "é" * 10, "\x00" * 10, "\U0001f600" * 10])
def test_the_limit_is_of_the_frames_bytes(text: str) -> None:
    """Exactly at it passes, one byte more is told with both numbers: escapes and UTF-8 count."""
    message = Message(payload="p", key=text)
    size = len(encode_frame(message, "c", 10_000))
    assert len(encode_frame(message, "c", size)) == size
    with pytest.raises(InvalidMessage, match=rf"has {size} bytes and the limit is {size - 1};"):
        encode_frame(message, "c", size - 1)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    payload=TEXT | st.binary(),
    key=st.none() | TEXT,
    properties=st.none() | st.dictionaries(TEXT, TEXT, max_size=4),
    context=TEXT,
)
@example(payload="", key='","sequenceId":9,"', properties={'"}': '{"'}, context='c","key":"k')
@example(payload=b"\n", key="\u2028\x00", properties=None, context="\n\r\x7f")
def test_a_frame_holds_its_message_and_nothing_else(
    payload: str | bytes, key: str | None, properties: dict[str, str] | None, context: str
) -> None:
    """No text of a caller's becomes a field, or a second line."""
    frame = encode_frame(
        Message(payload=payload, key=key, properties=properties), context, 1_000_000
    )
    data = payload.encode() if isinstance(payload, str) else payload
    expected = {"payload": base64.b64encode(data).decode(), "context": context}
    expected |= {"key": key} if key is not None else {}
    pairs = json.loads(frame, object_pairs_hook=list)
    assert len(pairs) == len(dict(pairs))
    assert json.loads(frame) == expected | ({"properties": properties} if properties else {})
    assert not any(byte < 0x20 for byte in frame)


# Message ids.


def varint(number: int) -> bytes:
    """Encode as protobuf does: seven bits a byte, negative ones as 64-bit two's complement."""
    number %= 1 << 64
    groups = max(1, math.ceil(number.bit_length() / 7))
    parts = [(number >> (7 * i)) & 0x7F for i in range(groups)]
    return bytes([part | 0x80 for part in parts[:-1]] + parts[-1:])


def encoded(*fields: tuple[int, int]) -> str:
    """Encode a protobuf of varint fields, as base64."""
    data = b"".join(varint(number << 3) + varint(value) for number, value in fields)
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CAMQAA==", MessageId(3, 0)),
        ("CAMQACAA", MessageId(3, 0, -1, 0)),
        ("CJWa7zoQKhgCIAc=", MessageId(123_456_789, 42, 2, 7)),
        ("CP///////////wEQ////////////AQ==", MessageId(-1, -1)),
        ("CICAgICAIBCAgICAIBgA", MessageId(2**40, 2**33, 0)),
        ("CAwQADAA", MessageId(12, 0)),
        ("CBgQABgCMAA=", MessageId(24, 0, 2)),
    ],
)
def test_message_ids_of_real_parts(text: str, expected: MessageId) -> None:
    """As Pulsar's native client and a real 4.0.7 broker wrote them."""
    assert MessageId.decode(text) == expected


@given(ledger=INT64, entry=INT64, partition=INT32, batch_index=INT32)
def test_message_ids_of_an_independent_encoder(
    ledger: int, entry: int, partition: int, batch_index: int
) -> None:
    """Every number that the fields can hold, negative ones too."""
    text = encoded((1, ledger), (2, entry), (3, partition), (4, batch_index))
    assert MessageId.decode(text) == MessageId(ledger, entry, partition, batch_index)
    assert MessageId.decode(encoded((1, ledger), (2, entry))) == MessageId(ledger, entry)


@given(INT64, INT64, st.integers(5, 2**28), INT64, st.binary(max_size=200))
def test_fields_of_a_later_version_are_skipped(
    ledger: int, entry: int, field: int, value: int, data: bytes
) -> None:
    """Numbers and byte strings that we do not know, as protobuf has it."""
    known = base64.b64decode(encoded((1, ledger), (2, entry)))
    later = varint(field << 3) + varint(value)
    later += varint(field << 3 | 2) + varint(len(data)) + data
    expected = MessageId(ledger, entry)
    assert MessageId.decode(base64.b64encode(known + later).decode()) == expected
    assert MessageId.decode(base64.b64encode(later + known).decode()) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no ledger and entry"),
        ("CAw=", "no ledger and entry"),
        ("EAA=", "no ledger and entry"),
        ("CA==", "cut short"),
        ("CAwQ", "cut short"),
        ("@", "not base64"),
        ("CAwQADA", "not base64"),
        ("CAwQADAA\n", "not base64"),
        ("CAwQADAé", "not base64"),
        (base64.b64encode(b"\x09" + bytes(8)).decode(), "wire type 1"),
        (base64.b64encode(b"\x08" + b"\xff" * 11).decode(), "cut short"),
        (base64.b64encode(b"\x08\x00\x10\x00\x2a\xff\xff\x03").decode(), "no ledger and entry"),
        (base64.b64encode(b"\x0a\x01\x00\x10\x00").decode(), "no ledger and entry"),
    ],
)
def test_what_is_no_message_id(text: str, words: str) -> None:
    """Is a `ValueError` that says why."""
    with pytest.raises(ValueError, match=words):
        MessageId.decode(text)


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_any_text_is_a_message_id_or_a_value_error(text: str) -> None:
    """Never another error, and numbers that fit a signed 64-bit."""
    try:
        found = MessageId.decode(text)
    except ValueError:
        return
    numbers = (found.ledger, found.entry, found.partition, found.batch_index)
    assert all(-(2**63) <= number < 2**63 for number in numbers)


# Replies.


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            b'{"result":"ok","messageId":"CAwQADAA","context":"c"}',
            Reply("ok", "c", "CAwQADAA"),
        ),
        (
            b'{"result":"send-error:8","errorMsg":"no","errorCode":0,"context":"c"}',
            Reply("send-error:8", "c", None, "no"),
        ),
        (b'{"result":"send-error:3","errorMsg":"bad"}', Reply("send-error:3", error="bad")),
        (b'{"result":"ok","context":null,"errorMsg":null}', Reply("ok")),
        (b'{"result":"ok","later":[1,{"a":NULL}]}'.replace(b"NULL", b"null"), Reply("ok")),
        (b'{"result":"no","result":"ok"}', Reply("ok")),
        ('{"result":"ok","context":"é"}', Reply("ok", "é")),
    ],
)
def test_replies(frame: bytes | str, expected: Reply) -> None:
    """As the broker writes them; fields of later versions are skipped."""
    assert decode_reply(frame) == expected


DEEP = 100_000
HOSTILE: list[bytes | str] = [
    b"",
    b"null",
    b"[]",
    b"5",
    b'"ok"',
    b"{}",
    b'{"result":5}',
    b'{"result":null}',
    b'{"result":["ok"]}',
    b'{"result":"ok","context":5}',
    b'{"result":"ok","context":{}}',
    b'{"result":"ok","messageId":1.5}',
    b'{"result":"ok","errorMsg":true}',
    b'{"result":"ok","x":NaN}',
    b'{"result":"ok","x":Infinity}',
    b'{"result":"ok"',
    b'{"result":"ok"} trailing',
    b'{"result":"\xff\xfe"}',
    b'{"result":"\x00"}',
    b'{"result":"ok","context":"\\ud800"}',
    b'{"result":"ok","context":"\\udfffabc"}',
    b'{"result":"ok","context":"\\ud800\\u0041"}',
    '{"result":"\ud800"}',
    b'{"result":' + b"9" * 10_000 + b"}",
    b"[" * DEEP,
    b'{"result":' + b"[" * DEEP,
    b'{"result":"ok","x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"result":"ok","x":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
]


@pytest.mark.parametrize("frame", HOSTILE, ids=lambda frame: repr(frame[:40]))
def test_hostile_replies(frame: bytes | str) -> None:
    """A `ValueError` in one short printable line, quickly, whatever comes."""
    start = time.thread_time()
    with pytest.raises(ValueError, match="^not a receipt: ") as caught:
        decode_reply(frame)
    assert time.thread_time() - start < QUICK
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "extra", [b"9" * 10_000, b"1e" + b"9" * 10_000, b'"' + b"\\u0000" * 9000 + b'"', b"1.5"]
)
def test_odd_values_in_unknown_fields_are_skipped(extra: bytes) -> None:
    """They are not ours to read."""
    assert decode_reply(b'{"result":"ok","x":' + extra + b"}") == Reply("ok")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["result", "context", "messageId", "errorMsg", "x"]), inner, max_size=5
        )
    ),
    max_leaves=10,
)


@given(
    st.binary() | st.text() | JSON.map(json.dumps) | JSON.map(lambda each: json.dumps(each)[:-1])
)
@example('{"result":"ok","messageId":"\\ud800"}')
def test_any_frame_is_a_reply_or_a_value_error(frame: bytes | str) -> None:
    """Never another error; and what is read is text that can be printed."""
    try:
        reply = decode_reply(frame)
    except ValueError as error:
        assert str(error).isprintable()
        return
    for value in (reply.context, reply.message_id, reply.error):
        assert value is None or isinstance(value, str)
    assert plain(reply.error).isprintable()
    assert isinstance(classify_reply(reply), Verdict)


# Classes.


@pytest.mark.parametrize("name", sorted(PERMANENT_EXCEPTIONS))
def test_exceptions_that_no_second_send_mends(name: str) -> None:
    """However the broker's text wraps the name."""
    full = f"org.apache.pulsar.client.api.PulsarClientException${name}: sorry"
    for text in (full, f"java.util.concurrent.CompletionException: {full}", f"{name}: sorry"):
        assert classify_reply(Reply("send-error:8", "c", error=text)) is Verdict.PERMANENT


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply("ok"), Verdict.OK),
        (Reply("ok", error="NotFoundException"), Verdict.OK),
        (Reply("send-error:7", error="bad input"), Verdict.PERMANENT),
        (Reply("send-error:8", error="Topic persistent://a/b/c was terminated"), Verdict.PERMANENT),
        (Reply("send-error:8", error="TimeoutException: NotFoundExceptions"), Verdict.TRANSIENT),
        (Reply("send-error:8", error="PulsarClientException$TimeoutException"), Verdict.TRANSIENT),
        (Reply("send-error:8", error="ProducerQueueIsFullError"), Verdict.TRANSIENT),
        (Reply("send-error:8", error="the link terminated; topic unknown"), Verdict.TRANSIENT),
        (Reply("send-error:8"), Verdict.TRANSIENT),
        (Reply("send-error:3", error="bad json"), Verdict.TRANSIENT),
        (Reply("send-error:1", error="AuthorizationException"), Verdict.TRANSIENT),
        (Reply("OK"), Verdict.TRANSIENT),
        (Reply(""), Verdict.TRANSIENT),
    ],
)
def test_classes_of_replies(reply: Reply, expected: Verdict) -> None:
    """Unknown text is transient: sending again until the deadline loses nothing."""
    assert classify_reply(reply) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(status, Verdict.PERMANENT) for status in (400, 401, 403, 404, 301, 302, 307, 308)]
    + [(status, Verdict.TRANSIENT) for status in (200, 408, 409, 429, 500, 502, 503, 504)],
)
def test_classes_of_handshakes(status: int, expected: Verdict) -> None:
    """A redirect is permanent: the token does not follow it."""
    assert classify_handshake(status) is expected


def test_a_terminated_topic_is_a_503() -> None:
    """The sentence tells it from one that passes."""
    assert classify_handshake(503, "HTTP 503: Topic was already terminated") is Verdict.PERMANENT
    assert classify_handshake(503, "HTTP 503: Too busy") is Verdict.TRANSIENT


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (500, "java.lang.IllegalArgumentException: Invalid named entity: pub%2Blic"),
        (500, "Can't add encryption key without configuring cryptoKeyReaderFactoryClassName"),
        (500, '{"errorMsg":"Illegal topic partition name persistent://a/b/t-partition-7"}'),
        (409, "org.apache.pulsar.broker.service.schema.exceptions.IncompatibleSchemaException: no"),
        (414, "Bad Message 414 reason: URI Too Long"),
        (431, "Request Header Fields Too Large"),
    ],
)
def test_permanent_handshakes_with_other_statuses(status: int, sentence: str) -> None:
    """A retry until the deadline of a day would not help."""
    assert classify_handshake(status, f"HTTP {status}: {sentence}") is Verdict.PERMANENT


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (500, "java.lang.NullPointerException"),
        (500, "Failed to create producer/consumer: Connection already closed"),
        (
            409,
            "NamingException: Producer with name 'p' is already connected",
        ),
        (503, "ServiceUnitNotReadyException: Namespace bundle is being unloaded"),
    ],
)
def test_transient_handshakes(status: int, sentence: str) -> None:
    """The broker's words may change with time."""
    assert classify_handshake(status, f"HTTP {status}: {sentence}") is Verdict.TRANSIENT


# Texts.

PAGE = """<html><head><meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/>
<title>Error 404 Topic persistent://a/b/c does not &lt;exist&gt;</title></head>
<body><h2>HTTP ERROR 404 Topic</h2><table>
<tr><th>URI:</th><td>/ws/v2/producer/persistent/a/b/c</td></tr>
<tr><th>STATUS:</th><td>404</td></tr>
<tr><th>MESSAGE:</th><td>Topic persistent://a/b/c does not
 &lt;exist&gt;</td></tr></table></body></html>"""


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE.encode(), "HTTP 404: Topic persistent://a/b/c does not <exist>"),
        (
            PAGE.replace("MESSAGE", "ELSE").encode(),
            "HTTP 404: Topic persistent://a/b/c does not <exist>",
        ),
        (
            (
                b"<th>MESSAGE:</th><td>"
                b"{&quot;errorMsg&quot;:&quot;not \\&quot;here\\&quot;&quot;,&quot;x&quot;:1}</td>"
            ),
            r"HTTP 404: not \"here\"",
        ),
        (b"<p>plain <b>words</b></p>", "HTTP 404: plain words"),
        (b"<title>Error 404 </title><p>words", "HTTP 404: Error 404 words"),
        (b"\xff\x00\x1b[31m", "HTTP 404: \ufffd??[31m"),
        (b"", "HTTP 404 at the handshake"),
        (None, "HTTP 404 at the handshake"),
        (b"<html></html>", "HTTP 404 at the handshake"),
    ],
)
def test_the_sentence_of_a_page(page: bytes | None, expected: str) -> None:
    """Jetty's own sentence, and not its page."""
    assert handshake_sentence(404, page) == expected


@pytest.mark.parametrize(
    "page",
    [
        b"<" * 20_000,
        b"<title>" + b" " * 20_000,
        b"<title>Error 404" + b" " * 20_000,
        b"<title>" * 3000,
        b"<th>MESSAGE:</th><td>" * 1000,
        b"<th>" + b" " * 20_000,
        b"&#" + b"9" * 20_000,
        b'"errorMsg":"' * 1600,
        b'"errorMsg"' + b" " * 20_000,
        b'"errorMsg":"' + b"\\" * 20_000,
        b"x" * 10**7,
    ],
    ids=lambda page: repr(page[:20]),
)
def test_hostile_pages(page: bytes) -> None:
    """Take no time, and end as one short printable line."""
    start = time.thread_time()
    text = handshake_sentence(500, page)
    assert time.thread_time() - start < QUICK
    assert text.isprintable()
    assert len(text) <= 510


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\r\n words\t", "two words"),
        ("a&amp;b", "a&b"),
        ("\x00\x1b[31m\x7f", "??[31m?"),
        ("\u202e\ud800", "??"),
        ("&lt;&#0;&#x41;", "<\ufffdA"),
        ("x" * 1000, "x" * 500),
        ("&#" + "9" * 5000, "&#" + "9" * 498),
        (None, "None"),
        (5, "5"),
    ],
)
def test_plain(text: Any, expected: str) -> None:
    """One printable line of at most 500 characters."""
    assert plain(text) == expected


@given(st.text())
def test_plain_is_printable(text: str) -> None:
    """Whatever it was."""
    assert plain(text).isprintable()
    assert len(plain(text)) <= 500


@pytest.mark.parametrize(
    "text",
    [
        "topic " * 11_000,
        "A" * 65_000,
        "Exception" * 7000,
        "PulsarClientException$A" * 2800,
        "&" * 65_000,
    ],
)
def test_hostile_error_texts(text: str) -> None:
    """As long as a reply may be, classed quickly."""
    start = time.thread_time()
    assert classify_reply(Reply("send-error:8", error=text)) is Verdict.TRANSIENT
    assert plain(text).isprintable()
    assert time.thread_time() - start < QUICK
