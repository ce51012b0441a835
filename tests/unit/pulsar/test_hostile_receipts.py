"""Whatever comes for a receipt: from the bytes on the socket to the outcome of a message."""

from __future__ import annotations

import base64
import json

from hypothesis import example, given
from hypothesis import strategies as st

from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.judge import judge
from celery_stargate.pulsar.link import LinkBroken
from celery_stargate.pulsar.message_id import MessageId
from celery_stargate.pulsar.replies import Reply, decode_reply
from celery_stargate.pulsar.sequence import Numbered

RECEIPTS = [
    b'{"result":"ok","messageId":"CAwQADAA","context":"c"}',
    b'{"result":"ok","messageId":"CP///////////wEQ////////////AQ==","context":"c"}',
    b'{"result":"send-error:8","errorMsg":"TimeoutException: \\u0041","errorCode":0,"context":"c"}',
    b'{"result":"send-error:7","errorMsg":"no","context":"c"}',
]
FIELDS = {"result": "result", "context": "context", "messageId": "message_id", "errorMsg": "error"}

#: Where, how many bytes go, and what comes in their place.
EDITS = st.lists(
    st.tuples(st.integers(0, 120), st.integers(0, 4), st.binary(max_size=6)), min_size=1, max_size=4
)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Change a few bytes."""
    for place, gone, new in edits:
        start = place % (len(data) + 1)
        data = data[:start] + new + data[start + gone :]
    return data


@given(st.sampled_from(RECEIPTS), EDITS)
@example(RECEIPTS[0], [(0, 0, b"\xef\xbb\xbf")])
@example(RECEIPTS[0], [(11, 2, b"\\ud800")])
def test_a_receipt_with_a_few_bytes_changed(
    receipt: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    """Is a receipt or none; and what is read is text that any log can carry."""
    try:
        reply = decode_reply(edited(receipt, edits))
    except ValueError as error:
        assert str(error).startswith("not a receipt: ")
        assert str(error).isprintable()
        return
    for text in (reply.result, reply.context, reply.message_id, reply.error):
        assert text is None or text.encode() is not None


@given(st.lists(st.tuples(st.sampled_from(sorted(FIELDS)), st.text()), max_size=8))
def test_of_duplicate_keys_the_last_one_counts(pairs: list[tuple[str, str]]) -> None:
    """As Java's readers have it, so that two readers of one receipt agree."""
    pairs = [("result", "ok"), *pairs]
    frame = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(text)}" for key, text in pairs) + "}"
    assert decode_reply(frame) == Reply(**{FIELDS[key]: text for key, text in pairs})


@given(
    st.sampled_from([b"CAwQADAA", b"CJWa7zoQKhgCIAc=", b"CP///////////wEQ////////////AQ=="]), EDITS
)
def test_a_message_id_with_a_few_bytes_changed(
    text: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    """In its base64, or beneath it: numbers of 64 bits, or a `ValueError`."""
    beneath = base64.b64encode(edited(base64.b64decode(text), edits))
    for data in (edited(text, edits).decode("latin-1"), beneath.decode()):
        try:
            found = MessageId.decode(data)
        except ValueError as error:
            assert str(error).isprintable()
        else:
            numbers = (found.ledger, found.entry, found.partition, found.batch_index)
            assert all(-(2**63) <= number < 2**63 for number in numbers)


@given(
    st.builds(
        Reply,
        st.sampled_from(["ok", "send-error:3", "send-error:7", "send-error:8"]) | st.text(),
        st.none() | st.text(),
        st.none()
        | st.text()
        | st.sampled_from(["CAwQADAA", "CP///////////wEQ////////////AQ=="])
        | st.binary().map(lambda data: base64.b64encode(data).decode()),
        st.none() | st.text() | st.just("PulsarClientException$TopicTerminatedException \x1b[31m"),
    ),
    st.sampled_from(["persistent://a/b/c", "non-persistent://a/b/c"]),
    st.integers(0, 2),
    st.none() | st.builds(Numbered, st.integers(0, 2)),
)
def test_any_reply_is_an_outcome_or_breaks_the_link(
    reply: Reply, topic: str, sent_before: int, numbered: Numbered | None
) -> None:
    """Never another error. What is told names the message asked for, in printable words."""
    entry = Entry(1, "c\t0", b"frame", 0)
    try:
        outcome = judge(reply, entry, Topic.parse(topic), sent_before, numbered)
    except LinkBroken as error:
        assert str(error).isprintable()
        return
    assert outcome.context == "c"
    assert outcome.topic == topic
    if isinstance(outcome, Failure):
        assert outcome.status == ("unknown" if sent_before else "refused")
        assert outcome.reason.isprintable()
        assert outcome.code is not None
        assert outcome.code.isprintable()
    else:
        assert isinstance(outcome, Receipt)
        # Without numbers, and beyond what was tried, only what has a place in a ledger is stored.
        assert outcome.status != "deduplicated" or (numbered is not None and numbered.tried >= 1)
