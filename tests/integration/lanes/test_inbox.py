"""``lanes/inbox.py``: whatever an inbox holds, what can be read is read."""

from __future__ import annotations

import redis

from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.wire import encode_call
from celery_stargate.model.outcomes import CallOutcomes
from tests.integration.lanes.rig import inbox_key, receipt


def test_entries_of_a_wrong_form(lanes: Outbox, client: redis.Redis) -> None:
    """One without the fields, one that is no UTF-8, one of another sender: none hides the next."""
    key = inbox_key(lanes, "box")
    call = CallOutcomes("c", False, (receipt("c"),))
    client.xadd(key, {"hello": "1"})
    client.xadd(key, {b"to": b"\xff\xfe", b"outcome": b"\x00"})
    client.xadd(key, {b"to": b"box/1"})
    lanes.inboxes.notify("box/1", call)
    found = lanes.inboxes.subscribe("box", [], 1.0)
    assert [(each.address, each.wire) for each in found] == [
        ("", b""),
        ("\ufffd\ufffd", b"\x00"),
        ("box/1", b""),
        ("box/1", encode_call(call)),
    ]


def test_an_inbox_that_is_no_stream_begins_anew(lanes: Outbox, client: redis.Redis) -> None:
    """Whether it is read first or put into."""
    client.set(inbox_key(lanes, "box"), "x")
    assert lanes.inboxes.subscribe("box", [], 0.05) == []
    client.set(inbox_key(lanes, "box"), "x")
    lanes.inboxes.notify("box/1", CallOutcomes("c", False, (receipt("c"),)))
    assert [each.address for each in lanes.inboxes.subscribe("box", [], 1.0)] == ["box/1"]


def test_an_id_far_ahead_hides_nothing(lanes: Outbox, client: redis.Redis) -> None:
    """Neither what comes next, nor what comes when the inbox begins anew."""
    call = CallOutcomes("c", False, (receipt("c"),))
    client.xadd(inbox_key(lanes, "box"), {"hello": "1"}, id="4611686018427387904-0")
    (junk,) = lanes.inboxes.subscribe("box", [], 1.0)
    lanes.inboxes.notify("box/1", call)
    (first,) = lanes.inboxes.subscribe("box", [junk.entry], 1.0)
    client.delete(inbox_key(lanes, "box"))
    lanes.inboxes.notify("box/2", call)
    (second,) = lanes.inboxes.subscribe("box", [first.entry], 1.0)
    assert (first.address, second.address) == ("box/1", "box/2")
