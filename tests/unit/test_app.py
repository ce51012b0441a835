"""Stargate over lanes that take notes: binding, calls that wait, calls that do not, lists."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from celery import Celery, _state, chain, chord, group

from celery_stargate import (
    ConfigurationError,
    ContextInUse,
    InvalidMessage,
    LaneFull,
    Message,
    ProduceError,
    ProduceTask,
    ProduceTimeout,
    Stargate,
    StoreUnavailable,
)
from celery_stargate.calls.prepare import prepare
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.frame import label_in
from celery_stargate.model.outcome import Outcome
from celery_stargate.model.outcomes import CallOutcomes
from tests.unit.helpers import TOPIC, NotedLanes, Put, failure, make_app, make_stargate, receipt


class Answering(NotedLanes):
    """Outbox whose messages have their outcome as soon as they are put."""

    def __init__(self, stargate: Stargate, *outcomes: Outcome) -> None:
        super().__init__()
        self.stargate = stargate
        self.outcomes = outcomes

    def put(self, *args: Any, **options: Any) -> int:
        """Note it, and release who waits."""
        first = super().put(*args, **options)
        record = self.puts[-1].record
        if record.inbox is not None and self.outcomes:
            self.deliver(record.inbox, Settled(record, self.outcomes).call)
        return first

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Release the one who waits, in a thread or in an event loop."""
        runtime = self.stargate.runtime
        runtime.inbox.deliver(address, call)
        for calls in runtime.loops._own().values():  # noqa: SLF001
            calls.inbox_for(CONTEXTS_LANE).deliver(address, call)

    def put_many(self, puts: Sequence[tuple[Lane, Record, bytes]], **options: Any) -> None:
        """Note each, and release who waits: message by message, the last one first."""
        if options["max_backlog"]:
            self.reserve(Counter(lane for lane, *_ in puts), options["max_backlog"])
        for lane, record, frame in puts:
            super().put(lane, record, [("", frame)], **options)
        for (_, record, _), outcome in reversed(list(zip(puts, self.outcomes, strict=False))):
            if record.inbox is not None:
                named = msgspec.structs.replace(outcome, context=record.context)
                for _ in range(2):  # effects may be done twice
                    self.deliver(record.inbox, Settled(record, (named,)).call)

    def subscribe(
        self, inbox: str, handled: Sequence[str], timeout: float
    ) -> list[tuple[str, str, bytes]]:
        """Nothing comes by Redis."""
        threading.Event().wait(0.01)
        return []


def answering(*outcomes: Outcome, **conf: Any) -> tuple[Stargate, Answering]:
    """Return a Stargate over such lanes."""
    stargate = Stargate(make_app(**conf))
    lanes = Answering(stargate, *outcomes)
    stargate.runtime.__dict__["outbox"] = lanes
    return stargate, lanes


def the_put(lanes: NotedLanes) -> Put:
    """Return the only one."""
    [put] = lanes.puts
    return put


# Binding.


def test_binding_now_or_later() -> None:
    """Both ways are the same, and the app knows its Stargate."""
    app, other = make_app(), make_app()
    stargate = Stargate(app)
    assert Stargate.of(app) is stargate
    later = Stargate()
    with pytest.raises(ConfigurationError, match=r"has no app; call init_app\(app\) first"):
        _ = later.app
    later.init_app(other)
    later.init_app(other)
    assert Stargate.of(other) is later
    with pytest.raises(ConfigurationError, match="is bound to the app .* already"):
        later.init_app(app)


def test_workers_get_the_bootstep_once() -> None:
    """However often it is bound."""
    app = make_app()
    Stargate(app).init_app(app)
    names = sorted(getattr(step, "__name__", step) for step in app.steps["worker"])
    metrics = "celery_stargate.instrumentation.step:MetricsStep"
    assert names == ["StargateStep", "StartsStep", metrics]
    assert [option.name for option in app.user_options["worker"]] == ["without_stargate"]


def test_settings_may_come_after() -> None:
    """They are read when they are first needed."""
    app = Celery("late", set_as_current=False)
    stargate = Stargate(app)
    app.conf.stargate_url = "ws://h:1"
    assert stargate.settings.url == "ws://h:1"


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"stargate_redis_url": "redis://a"}, "a"),
        ({"stargate_redis_url": None, "result_backend": "redis://b"}, "b"),
        ({"stargate_redis_url": None, "broker_url": "redis://c"}, "c"),
    ],
)
def test_where_redis_is(conf: dict[str, Any], expected: str) -> None:
    """The setting's, else the result backend's, else the broker's."""
    assert Stargate(make_app(**conf)).runtime.redis.parameters["host"] == expected


def test_a_task_of_ones_own() -> None:
    """Is registered in the app, and is a produce task."""
    stargate, _, _ = make_stargate()
    task = stargate.task("shop.orders", topic=TOPIC)
    assert stargate.app.tasks["shop.orders"].name == task.name == "shop.orders"
    assert isinstance(stargate.app.tasks["shop.orders"], ProduceTask)


# Calls that wait.


def test_a_receipt() -> None:
    """Is what the call returns; the record asks for it in this process's inbox."""
    stargate, lanes = answering(receipt("c"))
    assert stargate.produce("a", context="c", timeout=5) == receipt("c")
    put = the_put(lanes)
    assert (put.record.context, put.record.task) == ("c", None)
    assert put.record.inbox is not None
    assert put.record.inbox.startswith(f"{stargate.runtime.inbox.name}/")
    assert put.options["timeout"] == 5
    assert put.options["exclusive"]


def test_a_list() -> None:
    """Returns the receipts, in order."""
    stargate, _ = answering(receipt("c", entry_id=1), receipt("c", entry_id=2))
    found = stargate.produce(["a", "b"])
    assert [each.entry_id for each in found] == [1, 2]


@pytest.mark.parametrize(
    ("code", "kind"), [("http-404", ProduceError), ("deadline", ProduceTimeout)]
)
def test_a_failure(code: str, kind: type[Exception]) -> None:
    """Is raised."""
    stargate, _ = answering(failure(code=code))
    with pytest.raises(kind):
        stargate.produce("a")


def test_the_default_timeouts() -> None:
    """Half a minute for one who waits, a day for one who does not."""
    stargate, lanes = answering(receipt())
    stargate.produce("a")
    stargate.produce("a", on_ack=stargate.app.signature("shop.ship"))
    stargate.produce("a", timeout=timedelta(seconds=7))
    assert [put.options["timeout"] for put in lanes.puts] == [30, 86_400, 7]


def test_from_a_coroutine() -> None:
    """Without holding the loop."""

    async def main() -> Any:
        stargate, _ = answering(receipt("c"))
        return await stargate.aproduce("a", context="c")

    assert asyncio.run(main()) == receipt("c")


def test_from_a_coroutine_without_waiting() -> None:
    """Returns the context."""

    async def main() -> Any:
        stargate, lanes = answering()
        sig = stargate.app.signature("shop.ship")
        found = await stargate.aproduce("a", context="c", on_error=sig)
        return found, lanes.puts[0].record.on_error

    context, on_error = asyncio.run(main())
    assert context == "c"
    assert on_error


def test_past_the_deadline_the_caller_settles_it() -> None:
    """Nobody else may be alive: it looks for what is overdue, and does the effects."""
    stargate, lanes = answering()
    late = failure("c", code="deadline", status="unknown")

    def expire(_lane: Lane, _context: str = "") -> list[Settled]:
        return [Settled(the_put(lanes).record, (late,))]

    def notify(address: str, call: CallOutcomes) -> None:
        stargate.runtime.inbox.deliver(address, call)

    vars(lanes).update(expire=expire, notify=notify)
    with pytest.raises(ProduceTimeout) as caught:
        stargate.produce("a", context="c", timeout=0.05)
    assert caught.value.status == "unknown"
    assert lanes.finished == [("c", 0)]


# Calls that do not wait.


def test_with_a_callback_the_context_comes_back_at_once() -> None:
    """No inbox is asked for."""
    stargate, lanes = answering()
    sig = stargate.app.signature("shop.ship")
    context = stargate.produce("a", on_ack=sig)
    put = the_put(lanes)
    assert put.record.context == context
    assert put.record.inbox is None
    assert put.record.on_ack
    assert put.options["exclusive"]


# Many.


def test_many_are_contexts_of_their_own() -> None:
    """Their receipts come in the order of the messages, whichever is told first."""
    stargate, lanes = answering(*(receipt(entry_id=number) for number in range(3)))
    found = stargate.produce_many(each for each in ("a", ("k", "b"), {"payload": "c"}))
    assert [each.entry_id for each in found] == [0, 1, 2]
    assert [each.context for each in found] == [put.record.context for put in lanes.puts]
    assert len({put.record.context for put in lanes.puts}) == 3
    labels = [label_in(put.messages[0][1]) for put in lanes.puts]
    assert labels == [put.record.context for put in lanes.puts]
    assert b'"key":"k"' in lanes.puts[1].messages[0][1]
    assert {put.options["timeout"] for put in lanes.puts} == {30}
    assert not stargate.runtime.inbox._waiting  # noqa: SLF001
    assert not stargate.runtime.inbox._gatherings  # noqa: SLF001


def test_many_from_a_coroutine() -> None:
    """The same."""
    stargate, _ = answering(receipt(entry_id=5))
    [found] = asyncio.run(stargate.aproduce_many(["a"], timeout=5))
    assert found.entry_id == 5


def test_many_that_are_none() -> None:
    """Nothing is published, as Django's bulk_create of nothing creates nothing."""
    stargate, lanes = answering()
    assert stargate.produce_many([]) == []
    assert stargate.produce_many(iter(())) == []
    assert lanes.puts == []


def test_many_of_which_some_fail() -> None:
    """The error comes when all have their outcome, and holds every one."""
    stargate, lanes = answering(
        receipt(), failure(reason="too late"), receipt(), failure(status="unknown", reason="who")
    )
    with pytest.raises(ProduceError) as caught:
        stargate.produce_many("abcd"[n] for n in range(4))
    error = caught.value
    contexts = [put.record.context for put in lanes.puts]
    # Where nobody can know of one, nobody can know of all: as a list's failure.
    assert (error.context, error.status) == (contexts[3], "unknown")
    assert error.reason == "2 of 4 messages failed: who"
    outcomes = error.failure["outcomes"]
    assert [each["context"] for each in outcomes] == contexts
    assert [each.get("reason", each["status"]) for each in outcomes] == [
        "stored",
        "too late",
        "stored",
        "who",
    ]


def test_many_past_their_deadline() -> None:
    """Those of which no word came are unknown; the others keep their outcome."""
    stargate, lanes = answering(receipt(entry_id=7))
    late = failure(code="deadline", status="unknown")

    def expire(_lane: Lane, _context: str = "") -> list[Settled]:
        record = lanes.puts[1].record
        return [Settled(record, (msgspec.structs.replace(late, context=record.context),))]

    def notify(address: str, call: CallOutcomes) -> None:
        stargate.runtime.inbox.deliver(address, call)

    vars(lanes).update(expire=expire, notify=notify)
    with pytest.raises(ProduceTimeout) as caught:
        stargate.produce_many(["a", "b"], timeout=0.05)
    assert caught.value.context == lanes.puts[1].record.context
    assert [each.get("entry_id") for each in caught.value.failure["outcomes"]] == [7, None]
    assert lanes.finished[0] == (lanes.puts[1].record.context, 0)


def test_many_with_a_callback() -> None:
    """The contexts come back at once, and each message has the callback."""
    stargate, lanes = answering()
    sig = stargate.app.signature("shop.ship")
    contexts = stargate.produce_many(["a", "b"], on_ack=sig, on_error=sig)
    assert contexts == [put.record.context for put in lanes.puts]
    assert [put.record.inbox for put in lanes.puts] == [None, None]
    assert all(put.record.on_ack and put.record.on_error for put in lanes.puts)
    assert {put.options["timeout"] for put in lanes.puts} == {86_400}


def test_many_share_an_incarnation() -> None:
    """Their contexts are new ids. The next call has another one: a context may be used again."""
    stargate, lanes = answering()
    sig = stargate.app.signature("shop.ship")
    for _ in range(2):
        stargate.produce_many(["a", "b"], on_ack=sig)
    first, second, third, fourth = [put.record.incarnation for put in lanes.puts]
    assert first == second
    assert third == fourth
    assert first and third and first != third


def test_many_with_a_canvas() -> None:
    """Each message triggers tasks of its own: ids that are the same would be one result."""
    stargate, lanes = answering()
    sig = stargate.app.signature("shop.ship")
    stargate.produce_many(["a", "b"], on_ack=group(sig, sig))
    ids = [
        each["options"]["task_id"]
        for put in lanes.puts
        for each in json.loads(put.record.on_ack or "")["kwargs"]["tasks"]
    ]
    assert len(set(ids)) == len(ids) == 4


FORMS: list[Any] = [
    "täxt",
    b"\x00\xff",
    ("key", "payload"),
    {"payload": "p", "key": "k", "properties": {"a": "b"}, "deliver_after": 5},
    Message(payload="m", event_time="2026-01-02T03:04:05Z", replication_clusters=["east"]),
    "",
]
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.mark.parametrize("canvas", ["none", "plain", "frozen", "group", "chain", "chord"])
def test_many_record_what_one_by_one_would(canvas: str) -> None:
    """The fast way and the general one, on every form of message and of callback."""
    stargate, lanes = answering(*(receipt() for _ in FORMS), stargate_lanes=4)
    sig = stargate.app.signature("shop.ship", args=(1,), kwargs={"a": 2}, options={"queue": "q"})
    callback: Any = {
        "none": None,
        "plain": sig,
        "frozen": sig.clone(task_id="mine"),
        "group": group(sig, sig),
        "chain": chain(sig, sig),
        "chord": chord([sig, sig], sig),
    }[canvas]
    options: dict[str, Any] = {"on_ack": callback, "on_error": callback}
    stargate.produce_many(FORMS, **options)
    many, lanes.puts = lanes.puts, []
    for form in FORMS:
        stargate.produce(form, **options)

    def seen(put: Put) -> tuple[Any, ...]:
        # Ids are new in each call, and by them what has no key finds its lane.
        [(label, frame)] = put.messages
        assert label == "", "it stands in the frame"
        lane = put.lane if b'"key":' in frame else None
        assert len(put.record.incarnation) == (16 if canvas != "none" else 0)
        record = msgspec.structs.replace(
            put.record, context="", inbox=put.record.inbox and "", incarnation=""
        )
        kept = [_ID.sub("id", str(each)) for each in (record, frame)]
        return lane, *kept, put.options["timeout"], put.options["options"]

    assert [seen(put) for put in many] == [seen(put) for put in lanes.puts]


def test_many_over_lanes() -> None:
    """Each goes to the lane of its key."""
    stargate, lanes = answering(stargate_lanes=16)
    sig = stargate.app.signature("shop.ship")
    stargate.produce_many([("a", "0"), ("b", "1"), ("a", "2")], on_ack=sig)
    first, second, third = (put.lane for put in lanes.puts)
    assert first == third != second


def test_many_that_lanes_have_no_room_for() -> None:
    """Are refused whole."""
    stargate, lanes = answering(receipt(), receipt(), stargate_max_backlog=5)
    lane = prepare(stargate.settings, "a", "c").parts[0].lane
    lanes.backlogs[lane.name] = 4
    with pytest.raises(LaneFull):
        stargate.produce_many(["a", "b"])
    assert lanes.puts == []
    lanes.backlogs[lane.name] = 3
    assert len(stargate.produce_many(["a", "b"])) == 2


@pytest.mark.parametrize(
    ("given", "words", "index"),
    [
        ({"messages": ["a", "b", 5]}, "message 2 of the list: ", 2),
        ({"messages": ["a", ["b"]]}, "a mapping or a Message, not list", 1),
        ({"messages": ["a", "x" * 1_100_000]}, "the limit is", 1),
        ({"messages": "text"}, "takes an iterable of messages, not str", None),
        ({"messages": {"payload": "a"}}, "not dict; for one message use produce", None),
        ({"messages": 5}, "not int", None),
        ({"messages": ["a"], "topic": "a/b"}, "topic 'a/b' is not", None),
        ({"messages": ["a"], "on_ack": 5}, "on_ack must be a signature", None),
        ({"messages": ["a"], "timeout": 0}, "a timeout must be more than 0", None),
    ],
)
def test_many_with_bad_input(given: dict[str, Any], words: str, index: int | None) -> None:
    """Is told with its place, before anything is recorded."""
    stargate, lanes = answering()
    with pytest.raises(InvalidMessage) as caught:
        stargate.produce_many(**given)
    assert words in str(caught.value)
    assert caught.value.index == index
    assert lanes.puts == []


# Bad input, and lanes that refuse.


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"message": 5}, "not int"),
        ({"message": ["a", 5]}, "message 1 of the list: "),
        ({"message": "a", "topic": "a/b"}, "topic 'a/b' is not"),
        ({"message": "a", "topic": ["a"]}, "not list"),
        ({"message": "a", "on_ack": 5}, "on_ack must be a signature"),
        ({"message": "a", "timeout": 0}, "a timeout must be more than 0"),
        ({"message": "a", "timeout": "5"}, "a timeout must be seconds"),
        ({"message": "a", "context": "a\nb"}, "contains an unprintable character"),
        ({"message": "a", "context": 5}, "a context (task_id) must be text"),
    ],
)
def test_bad_input(given: dict[str, Any], words: str) -> None:
    """Is told before anything is recorded, from a coroutine too."""
    stargate, lanes = answering()
    with pytest.raises(InvalidMessage) as caught:
        stargate.produce(**given)
    assert words in str(caught.value)
    with pytest.raises(InvalidMessage):
        asyncio.run(stargate.aproduce(**given))
    assert lanes.puts == []


@pytest.mark.parametrize("error", [ContextInUse("c"), LaneFull("t", 1, 1), StoreUnavailable("no")])
def test_what_the_lane_raises(error: Exception) -> None:
    """Comes through; nobody is left waiting."""
    stargate, lanes = answering()
    lanes.error = error
    with pytest.raises(type(error)):
        stargate.produce("a", context="c")


def test_each_app_has_its_own_tasks() -> None:
    """Two apps in one process may have tasks of one name, each with its own topic."""
    name = f"shop.orders-{uuid.uuid4().hex}"
    made = {topic: make_stargate()[0] for topic in ("one", "two", "three")}
    for topic, stargate in made.items():
        stargate.task(name, topic=topic)
    for topic, stargate in made.items():
        task: Any = stargate.app.tasks[name]
        assert task.topic == topic
    assert name not in make_app().tasks


def test_closing_from_a_coroutine() -> None:
    """``aclose`` and the lifespan close it in a thread, though the application failed."""
    closed: list[str] = []
    stargate, *_ = make_stargate()
    stargate.runtime.close = lambda: closed.append(threading.current_thread().name)  # type: ignore[method-assign]

    async def live() -> None:
        await stargate.aclose()
        async with stargate.lifespan(object()):
            assert len(closed) == 1
            raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(live())
    assert closed == ["stargate-close"] * 2
    asyncio.run(Stargate().aclose())


def test_the_first_app_is_celerys_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `produce_task` would belong to no app in the threads of a web server."""
    monkeypatch.setattr(_state, "default_app", None)
    first, second = make_app(), make_app()
    for app in (first, second):
        Stargate(app)
        assert vars(_state)["default_app"] is first
