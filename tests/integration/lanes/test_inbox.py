"""``lanes/inbox.py``: whatever an inbox holds, what can be read is read."""

from __future__ import annotations

import redis

from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.wire import encode_call
from celery_stargate.model.outcomes import CallOutcomes
from tests.integration.lanes.rig import receipt


def test_entries_of_a_wrong_form(lanes: Outbox, client: redis.Redis, prefix: str) -> None:
    """One without the fields, one that is no UTF-8, one of another sender: none hides the next."""
    key = f"{prefix}:inbox:box"
    call = CallOutcomes("c", False, (receipt("c"),))
    client.xadd(key, {"hello": "1"})
    client.xadd(key, {b"to": b"\xff\xfe", b"outcome": b"\x00"})
    client.xadd(key, {b"to": b"box/1"})
    lanes.inboxes.notify("box/1", call)
    found = lanes.inboxes.subscribe("box", "0-0", 1.0)
    assert [(each.address, each.wire) for each in found] == [
        ("", b""),
        ("\ufffd\ufffd", b"\x00"),
        ("box/1", b""),
        ("box/1", encode_call(call)),
    ]


def test_an_inbox_that_is_no_stream_begins_anew(
    lanes: Outbox, client: redis.Redis, prefix: str
) -> None:
    """Nothing could be put into it for as long as it is there."""
    client.set(f"{prefix}:inbox:box", "x")
    assert lanes.inboxes.subscribe("box", "0-0", 0.05) == []
    lanes.inboxes.notify("box/1", CallOutcomes("c", False, (receipt("c"),)))
    assert [each.address for each in lanes.inboxes.subscribe("box", "0-0", 1.0)] == ["box/1"]
