"""Many messages of one call: checked, each with its callbacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from celery import group

from celery_stargate import InvalidMessage
from celery_stargate.calls.many import callbacks_of_each, prepare_many
from celery_stargate.calls.prepare import CallOptions
from celery_stargate.effects.signatures import NO_CALLBACKS, Callbacks
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from tests.unit.helpers import TOPIC, make_app

PARSED = Topic.parse(TOPIC)
OPTIONS = ProducerOptions()


def test_each_message_is_a_call_with_an_id_of_its_own() -> None:
    """As prepare makes them."""
    calls = prepare_many(iter(["a", ("k", "b")]), PARSED, OPTIONS)
    assert [call.is_list for call in calls] == [False, False]
    assert len({call.context for call in calls}) == 2
    assert [call.parts[0].label for call in calls] == [call.context for call in calls]


def test_what_an_iterable_raises_comes_through() -> None:
    """It is the caller's own."""

    def broken() -> Any:
        yield "a"
        raise LookupError

    with pytest.raises(LookupError):
        prepare_many(broken(), PARSED, OPTIONS)


@pytest.mark.parametrize("one", ["a", b"a", bytearray(b"a"), {"payload": "a"}, None])
def test_one_message_is_not_many(one: object) -> None:
    """A text is an iterable of letters, and surely not meant so."""
    with pytest.raises(InvalidMessage, match="takes an iterable of messages"):
        prepare_many(one, PARSED, OPTIONS)


def test_an_asynchronous_iterable_has_to_be_collected() -> None:
    """All messages are checked before the first is recorded."""

    async def messages() -> AsyncIterator[str]:
        yield "a"

    with pytest.raises(InvalidMessage, match=r"not async_generator; collect them first: \[each"):
        prepare_many(messages(), PARSED, OPTIONS)


def test_a_plain_callback_is_frozen_once() -> None:
    """Its task's id is made when it is triggered; in a group the ids are frozen with it."""
    read: list[CallOptions] = []

    def read_again() -> CallOptions:
        read.append(CallOptions(Callbacks(on_ack=str(len(read))), None))
        return read[-1]

    app = make_app()
    plain = app.signature("shop.ship")
    options, give = callbacks_of_each(read_again, plain, None)
    assert give() is give() is options.callbacks
    assert len(read) == 1
    _, give = callbacks_of_each(read_again, plain, group(plain, plain))
    assert give() is not give()
    options, give = callbacks_of_each(lambda: CallOptions(NO_CALLBACKS, None), None, None)
    assert give() == Callbacks()
