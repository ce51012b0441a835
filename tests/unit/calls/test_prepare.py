"""A call, checked whole before anything is recorded."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate import ConfigurationError, InvalidMessage
from celery_stargate.calls.prepare import Call, CallOptions, Preparation, prepare
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.hashing import SCHEMES, partition_of
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.support import tracing
from tests.unit.helpers import make_app

TOPIC = Topic.parse("orders")
PLAIN = ProducerOptions()


def prepared(message: Any, context: str, options: ProducerOptions, topic: Topic = TOPIC) -> Call:
    """Return a call to a topic with options."""
    return Preparation(topic, options).call(message, context)


def test_one_message() -> None:
    """Its label is the context, which Pulsar echoes."""
    call = prepared("p", "c", PLAIN)
    assert (call.context, call.topic, call.options, call.is_list) == ("c", TOPIC, PLAIN, False)
    [part] = call.parts
    assert part.label == "c"
    assert json.loads(part.frame) == {"payload": "cA==", "context": "c"}
    assert [lane.name for lane in call.lanes] == [f"{TOPIC}#0"]


def test_a_list_of_one() -> None:
    """Has a list as its result, and is otherwise a message."""
    call = prepared(["p"], "c", PLAIN)
    assert call.is_list
    assert [part.label for part in call.parts] == ["c"]


def test_a_list() -> None:
    """Each message has its place in its label."""
    call = prepared(["a", ("k", "b"), {"payload": "c"}], "c", PLAIN)
    assert [part.label for part in call.parts] == ["c\t0", "c\t1", "c\t2"]
    assert [json.loads(part.frame)["context"] for part in call.parts] == ["c\t0", "c\t1", "c\t2"]
    assert len(call.lanes) == 1


@given(st.lists(st.none() | st.sampled_from("abcdefgh"), min_size=1, max_size=20))
def test_a_list_over_lanes(keys: list[str | None]) -> None:
    """The same key takes the same lane; each lane is named once, the first message's first."""
    options = ProducerOptions(lanes=4)
    messages = [{"payload": "p", "key": key} for key in keys]
    call = prepared(messages, "c", options)
    lanes: dict[str | None, Lane] = {}
    for key, part in zip(keys, call.parts, strict=True):
        assert lanes.setdefault(key, part.lane) == part.lane
    assert call.lanes[0] == call.parts[0].lane
    assert set(call.lanes) == {part.lane for part in call.parts}
    assert len(call.lanes) == len(set(call.lanes))


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_payloads_are_in_the_frames(payloads: list[bytes]) -> None:
    """In order, whatever they are."""
    call = prepared(list(payloads), "c", PLAIN)
    assert [base64.b64decode(json.loads(part.frame)["payload"]) for part in call.parts] == payloads


@pytest.mark.parametrize("context", ["", None, 5, b"c", "a\nb", "a\x00", "\ud800"])
def test_bad_contexts(context: Any) -> None:
    """A line end would part a record's head; Pulsar could not echo a lone surrogate."""
    with pytest.raises(InvalidMessage, match="^a context .task_id. "):
        prepared("p", context, PLAIN)


def test_a_frame_over_the_limit() -> None:
    """Is told in the caller, in a list with its index: the broker would close the connection."""
    options = ProducerOptions(max_frame_size=1024)
    with pytest.raises(InvalidMessage, match=r"^the frame has \d+ bytes and the limit is 1024;"):
        prepared("x" * 1000, "c", options)
    with pytest.raises(InvalidMessage, match=r"^message 1 of the list: the frame has") as caught:
        prepared(["x", "x" * 1000], "c", options)
    assert caught.value.index == 1


def test_keys_and_batching() -> None:
    """Are refused together, unless told otherwise: Key_Shared consumers would break."""
    batching = ProducerOptions(batching_enabled=True)
    prepared("p", "c", batching)
    with pytest.raises(InvalidMessage, match="^it has a key, and Pulsar's batching ignores keys"):
        prepared(("k", "p"), "c", batching)
    with pytest.raises(InvalidMessage, match="^message 1 of the list: it has a key"):
        prepared(["p", ("k", "p")], "c", batching)
    told = ProducerOptions(batching_enabled=True, batching_with_keys=True)
    assert prepared(("k", "p"), "c", told).parts


def test_bad_messages_are_told_with_their_index() -> None:
    """And nothing of the list is made."""
    with pytest.raises(InvalidMessage, match="^message 2 of the list: key must be text, not int"):
        prepared(["a", "b", (5, "c")], "c", PLAIN)


@given(st.lists(st.text(), min_size=1, max_size=10), st.sampled_from(sorted(SCHEMES)))
def test_a_key_takes_the_lane_of_its_partition(keys: list[str], scheme: str) -> None:
    """As Pulsar's clients choose it; without a key, the context chooses."""
    options = ProducerOptions(delivery="effectively_once", partitions=5, hashing_scheme=scheme)
    call = prepared([(key, "p") for key in keys], "c", options)
    assert [part.lane.index for part in call.parts] == [
        partition_of(key, 5, scheme) for key in keys
    ]
    alone = prepared("p", "c", options)
    assert [lane.index for lane in alone.lanes] == [partition_of("c", 5, scheme)]


def test_effectively_once_needs_a_persistent_topic() -> None:
    """A non-persistent one stores nothing that could be there twice."""
    topic = Topic.parse("non-persistent://public/default/orders")
    with pytest.raises(ConfigurationError, match="needs a persistent topic"):
        prepared("p", "c", ProducerOptions(delivery="effectively_once"), topic)


def test_a_call_by_the_settings() -> None:
    """The topic, its options and those of a task are looked up; nothing is done without a URL."""
    settings = Settings.read({"stargate_url": "ws://h:1", "stargate_topics": {"o": "a/b/c"}})
    call = prepare(settings, "p", "c", "o", {"lanes": 4})
    assert (str(call.topic), call.options.lanes) == ("persistent://a/b/c", 4)
    with pytest.raises(ConfigurationError, match="the options for persistent://a/b/c: there is no"):
        prepare(settings, "p", "c", "o", {"lane": 4})
    with pytest.raises(ConfigurationError, match="stargate_url is not set"):
        prepare(Settings(), "p", "c", "o")


@pytest.mark.parametrize(
    ("timeout", "default", "expected"),
    [(None, 30.0, 30.0), (5, 30.0, 5.0), (timedelta(seconds=2), 30.0, 2.0)],
)
def test_the_timeout_is_read_once(timeout: Any, default: float, expected: float) -> None:
    """In seconds; without one the default counts."""
    options = CallOptions.read(make_app(), timeout=timeout)
    assert options.seconds(default) == expected
    with pytest.raises(InvalidMessage, match="a timeout must be"):
        CallOptions.read(make_app(), timeout="5")


@pytest.mark.parametrize(("expires", "expected"), [(None, 86_400.0), (60, 60.0), (1e6, 86_400.0)])
def test_a_task_may_expire_before_its_deadline(expires: Any, expected: float) -> None:
    """The earlier one of the two is the deadline."""
    app = make_app()
    call = prepared("p", "c", PLAIN)
    assert CallOptions.read(app).seconds_of_task(call, expires, app) == expected


def test_a_record_of_a_call() -> None:
    """It holds what the outcome's effects need, and the callbacks as they were packed once."""
    app = make_app()
    options = CallOptions.read(app, app.signature("shop.ship"), None)
    record = prepared(["p"], "c", PLAIN).record(options.callbacks, task="t", request="{}")
    assert (record.context, record.is_list, record.task) == ("c", True, "t")
    assert record.on_ack is options.callbacks.on_ack
    assert record.on_error is None


class Traced:
    """A trace that notes how it ended."""

    def __init__(self) -> None:
        self.carrier = {"traceparent": "00-1-1-01"}
        self.within = False
        self.ends: list[BaseException | None] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        """Note it."""
        self.within = True
        yield
        self.within = False

    def end(self, error: BaseException | None = None) -> None:
        """Note it."""
        self.ends.append(error)


class Traces:
    """Makes such traces, and notes of what."""

    def __init__(self) -> None:
        self.begun: list[tuple[Any, ...]] = []

    def begin(self, *given: Any) -> Traced:
        """Note it."""
        self.begun.append(given)
        return Traced()

    def follow(self, *given: Any) -> Any:
        """Follow nothing."""
        raise AssertionError("nothing follows here")


@pytest.fixture
def traces() -> Iterator[Traces]:
    """What traces in this process, for one test."""
    made = Traces()
    tracing.use(made)
    yield made
    tracing.use(None)


def test_a_call_has_a_trace_where_something_traces(traces: Traces) -> None:
    """From before it is checked; it ends when the call is recorded, or with why it is not."""
    preparation = Preparation(TOPIC, PLAIN)
    headers = {"traceparent": "00-2-2-01"}
    trace: Any = preparation.begin_trace("c", "ws://h", headers)
    assert traces.begun == [(str(TOPIC), "c", "ws://h", headers)]
    call = preparation.call("x", "c", trace)
    assert call.carrier == trace.carrier
    with call.traced():
        assert trace.within
    assert trace.ends == [None]
    error = OSError("not recorded")
    with pytest.raises(OSError, match="not recorded"), call.traced():
        raise error
    call.end_trace(error)
    assert trace.ends == [None, error, error]


def test_a_call_that_is_refused_ends_its_trace(traces: Traces) -> None:
    """With the error; else it would never be exported."""
    settings = Settings.read({"stargate_url": "ws://h:1", "stargate_topic": "orders"})
    begun: list[Traced] = []

    def begin(*given: Any) -> Traced:
        begun.append(Traced())
        return begun[-1]

    vars(traces)["begin"] = begin
    with pytest.raises(InvalidMessage) as caught:
        prepare(settings, object(), "c")
    assert [each.ends for each in begun] == [[caught.value]]
