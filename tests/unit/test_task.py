"""Produce tasks: what a call records, and every bad input told before anything is recorded."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, chain, group
from celery.exceptions import NotRegistered
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult
from kombu.utils import json as kombu_json

from celery_stargate import (
    ConfigurationError,
    Failure,
    InvalidMessage,
    LaneFull,
    Message,
    ProduceError,
    ProduceTask,
    ProduceTimeout,
    StoreUnavailable,
)
from celery_stargate.effects.signatures import pack
from celery_stargate.effects.tracer import OUTCOME
from celery_stargate.lanes.record import Settled
from celery_stargate.model.durations import read_timeout, until
from celery_stargate.model.outcome import error_of
from tests.unit.helpers import SECRETS, TOPIC, NotedLanes, make_app, make_stargate, sent_by_broker


def messages_of(lanes: NotedLanes) -> list[dict[str, Any]]:
    """Return the frames that were put, read."""
    return [json.loads(frame) for put in lanes.puts for _, frame in put.messages]


# What is recorded.


def test_a_call_is_recorded() -> None:
    """Under the task's id, with the task's name and request, until the delivery timeout."""
    _, lanes, task = make_stargate(stargate_delivery_timeout=60)
    result = task.apply_async(("hello",), headers={"trace": "t"})
    [put] = lanes.puts
    assert put.lane.name == f"{TOPIC}#0"
    assert (put.record.context, put.record.task) == (result.id, "celery_stargate.produce")
    assert put.options["timeout"] == 60
    assert [label for label, _ in put.messages] == [""]
    assert messages_of(lanes) == [{"payload": "aGVsbG8=", "context": result.id}]
    request = json.loads(put.record.request or "")
    assert (request["id"], request["root_id"], request["trace"]) == (result.id, result.id, "t")


@pytest.mark.parametrize(
    ("message", "count"),
    [
        ("a", 1),
        (b"a", 1),
        (("k", "a"), 1),
        ({"payload": "a"}, 1),
        (Message(payload="a"), 1),
        (["a", ("k", "b")], 2),
    ],
)
def test_all_forms(message: Any, count: int) -> None:
    """Of one message, and lists of these."""
    _, lanes, task = make_stargate()
    task.delay(message)
    assert len(messages_of(lanes)) == count
    assert lanes.puts[0].record.is_list is isinstance(message, list)


def test_a_keyword_is_as_good() -> None:
    """`message=` names it."""
    _, lanes, task = make_stargate()
    task.delay(message="a", topic="other")
    assert lanes.puts[0].lane.name == "persistent://public/default/other#0"


@pytest.mark.parametrize("timeout", [5, 5.0, timedelta(seconds=5)])
def test_a_delivery_timeout_of_its_own(timeout: Any) -> None:
    """In seconds, or as a timedelta."""
    _, lanes, task = make_stargate()
    task.delay("a", delivery_timeout=timeout)
    assert lanes.puts[0].options["timeout"] == 5


@pytest.mark.parametrize("form", ["seconds", "datetime", "text"])
def test_expires_is_a_deadline(form: str) -> None:
    """As Celery's option: past it, the message is not sent."""
    _, lanes, task = make_stargate()
    moment = datetime.now(UTC) + timedelta(seconds=100)
    expires = {"seconds": 100, "datetime": moment, "text": moment.isoformat()}[form]
    task.apply_async(("a",), expires=expires)
    assert 40 < lanes.puts[0].options["timeout"] <= 100
    task.apply_async(("a",), expires=expires, kwargs={"delivery_timeout": 5})
    assert lanes.puts[1].options["timeout"] == 5


def test_callbacks_are_recorded() -> None:
    """Each as its dict; they are no part of what Celery would link."""
    stargate, lanes, task = make_stargate()
    ship = stargate.app.signature("shop.ship", args=(1,))
    task.delay("a", on_ack=ship, on_error=dict(ship))
    record = lanes.puts[0].record
    assert json.loads(record.on_ack or "")["task"] == "shop.ship"
    assert json.loads(record.on_error or "")["args"] == [1]
    request = json.loads(record.request or "")
    assert not request.get("callbacks")
    assert not request.get("errbacks")


def test_nothing_is_worked_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback is packed once on its way into the record, and the timeout is read once."""
    stargate, lanes, task = make_stargate()
    packed: list[str] = []
    read: list[Any] = []

    def noting_pack(what: str, value: Any) -> str:
        packed.append(what)
        return pack(what, value)

    def noting_read(timeout: Any) -> float:
        read.append(timeout)
        return read_timeout(timeout)

    monkeypatch.setattr("celery_stargate.effects.signatures.pack", noting_pack)
    monkeypatch.setattr("celery_stargate.calls.prepare.read_timeout", noting_read)
    ship = stargate.app.signature("shop.ship")
    task.delay("a", on_ack=ship, on_error=ship, delivery_timeout=timedelta(seconds=5))
    assert packed == ["on_ack", "on_error"]
    assert read == [timedelta(seconds=5)]
    assert lanes.puts[0].options["timeout"] == 5


def test_links_are_in_the_request() -> None:
    """Celery's own, for Celery's tracer."""
    stargate, lanes, task = make_stargate()
    ship = stargate.app.signature("shop.ship")
    task.apply_async(("a",), link=ship, link_error=ship)
    request = json.loads(lanes.puts[0].record.request or "")
    assert request["callbacks"][0]["task"] == "shop.ship"
    assert request["errbacks"][0]["task"] == "shop.ship"


def test_a_task_of_ones_own() -> None:
    """Has its name, its topic and its options; a topic of the call has the topic's own."""
    stargate, lanes, _ = make_stargate()
    orders = stargate.task("shop.orders", topic="shop/eu/orders", lanes=4, ignore_result=True)
    orders.delay(("k", "a"))
    orders.delay("a", topic="other")
    first, second = lanes.puts
    assert first.record.task == "shop.orders"
    assert first.lane.topic == "persistent://shop/eu/orders"
    assert first.options["options"] == {"lanes": 4}
    assert orders.ignore_result
    assert second.lane.topic == "persistent://public/default/other"
    assert not second.options["options"]


def test_by_the_broker() -> None:
    """Nothing is put here: the worker that gets it does."""
    stargate, lanes, task = make_stargate()
    for options in ({"via": "broker"}, {"countdown": 5}, {"queue": "q"}):
        task.apply_async(("a",), **options)
    task.delay("a", via="broker")
    make_via = make_stargate(stargate_via="broker")
    make_via[2].delay("a")
    assert lanes.puts == make_via[1].puts == []
    assert sent_by_broker(stargate.app)[0] == ["a"]
    assert sent_by_broker(make_via[2].app)[0] == ["a"]


@pytest.mark.parametrize(
    "message",
    [
        ("k", b"\xff"),
        Message(payload=b"\xff", key="k", deliver_after=timedelta(seconds=5)),
        {"payload": b"\xff", "key": "k", "event_time": datetime(2030, 1, 1, tzinfo=UTC)},
        [("k", b"\xff")],
    ],
    ids=["tuple", "Message", "datetime", "list"],
)
def test_what_is_accepted_can_go_by_the_broker(message: Any) -> None:
    """And is the same message in the worker: a tuple would be a list of two there."""
    _, lanes, task = make_stargate()
    task.delay(message)
    task.apply_async((message,), via="broker")
    [[sent], kwargs, _] = sent_by_broker(task.app)
    task.delay(sent, **kwargs)
    first, again = messages_of(lanes)
    assert {**first, "context": ""} == {**again, "context": ""}


@pytest.mark.parametrize(
    "given",
    [
        {"message": {"payload": "p", "deliver_after": timedelta(seconds=5)}},
        {"message": "p", "delivery_timeout": timedelta(seconds=5)},
    ],
)
def test_a_timedelta_can_go_by_the_broker(given: dict[str, Any]) -> None:
    """As it can by the lane."""
    _, lanes, task = make_stargate()
    task.apply_async(kwargs=given, via="broker")
    [[sent], kwargs, _] = sent_by_broker(task.app)
    task.delay(sent, **kwargs)
    assert len(lanes.puts) == 1


def test_a_signature_keeps_a_tuple() -> None:
    """Through JSON, in a chain."""
    _, lanes, task = make_stargate()
    packed = kombu_json.dumps(task.s(("k", "a")))
    task.app.signature(kombu_json.loads(packed)).apply_async()
    assert messages_of(lanes)[0]["key"] == "k"


def test_a_signature_keeps_a_message_by_its_name() -> None:
    """As a positional one."""
    _, _, task = make_stargate()
    signature = json.loads(json.dumps(dict(task.s(message=("k", "a"), topic="t"))))
    assert signature["kwargs"] == {"message": {"key": "k", "payload": "a"}, "topic": "t"}


def test_two_texts_go_by_the_broker_as_two_messages() -> None:
    """The worker refuses two plain texts, which may have been a tuple."""
    stargate, _, task = make_stargate()
    task.apply_async((["a", "b"],), countdown=5)
    assert sent_by_broker(stargate.app)[0] == [[{"payload": "a"}, {"payload": "b"}]]


def test_a_step_of_a_canvas_refuses_two_texts() -> None:
    """An earlier task's result may have been a tuple before JSON; a tuple itself is none."""
    stargate, lanes, task = make_stargate()
    step = stargate.app.signature(task.name)
    with pytest.raises(InvalidMessage, match="^a list of two texts came as JSON"):
        step.apply_async((["k", "a"],), parent_id="p", root_id="p")
    assert not lanes.puts
    step.apply_async((("k", "a"),), parent_id="p", root_id="p")
    step.apply_async((["a", "b"],))
    assert [len(put.messages) for put in lanes.puts] == [1, 2]


def test_json_in_a_mapping() -> None:
    """Is encoded before Celery's serializer sees it."""
    stargate, lanes, task = make_stargate()
    given = {"json": {"id": UUID(int=1)}, "key": "k"}
    task.delay(given)
    task.delay(given, via="broker")
    [(sent,), *_] = sent_by_broker(stargate.app)
    assert sent == {"key": "k", "payload": '{"id":"00000000-0000-0000-0000-000000000001"}'}
    frame = json.loads(lanes.puts[0].messages[0][1])
    assert base64.b64decode(frame["payload"]).decode() == sent["payload"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lnes": 4}, "the task shop.x: there is no option 'lnes'; did you mean 'lanes'?"),
        ({"ignore_results": True}, "there is no option 'ignore_results'; did you mean 'ignore_res"),
        ({"lanes": "4"}, "the task shop.x: lanes must be a whole number, not str"),
        ({"url": "ws://h"}, "there is no option 'url'"),
        ({"bind": True}, "there is no option 'bind'"),
        ({"producer_options": {}}, "there is no option 'producer_options'"),
    ],
)
def test_wrong_options_are_told_when_the_task_is_made(options: dict[str, Any], words: str) -> None:
    """And not when the first message is lost."""
    stargate, _, _ = make_stargate()
    with pytest.raises(ConfigurationError) as caught:
        stargate.task("shop.x", topic="t", **options)
    assert words in str(caught.value)


def test_celerys_options_of_a_task() -> None:
    """Those of the class, and those that only `app.task` takes."""
    stargate, _, _ = make_stargate()
    made = stargate.task("shop.y", rate_limit="5/s", trail=True, shared=False)
    assert made.rate_limit == "5/s"


def test_task_is_no_decorator() -> None:
    """It says how it is used."""
    stargate, _, _ = make_stargate()
    with pytest.raises(ConfigurationError, match="^stargate.task is not a decorator: it makes"):

        @stargate.task  # type: ignore[arg-type]
        def orders() -> None: ...


@pytest.mark.parametrize("name", ["produce", "produce_many", "aproduce", "aproduce_many"])
def test_an_unknown_argument_of_produce(name: str) -> None:
    """The nearest is named, and the other word of a produce task."""
    stargate, _, _ = make_stargate()
    call = getattr(stargate, name)
    for given, words in (
        ({"topik": "t"}, "has no argument 'topik'; did you mean 'topic'?"),
        ({"delivery_timeout": 5}, "has no argument 'delivery_timeout'; here it is 'timeout'"),
    ):
        with pytest.raises(TypeError, match=re.escape(f"{name}() {words}")):
            found = call("a", **given)
            asyncio.run(found)


def test_a_group_of_calls() -> None:
    """Each is recorded."""
    _, lanes, task = make_stargate()
    group([task.s("a"), task.s("b")], app=task.app).apply_async()
    assert len(lanes.puts) == 2


def test_a_chain_goes_on_from_the_receipt() -> None:
    """What comes next stands in the request."""
    _, lanes, task = make_stargate()
    ship = task.app.signature("shop.ship")
    chain(task.s("a"), ship, app=task.app).apply_async()
    request = json.loads(lanes.puts[0].record.request or "")
    assert [each["task"] for each in request["chain"]] == ["shop.ship"]


# Bad input: an error that says what is wrong, and nothing recorded.

ROWS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("a wrong type", {"message": 5}, InvalidMessage, "not int"),
    ("a wrong form", {"message": ("k", "p", "x")}, InvalidMessage, "this one has 3 parts"),
    ("no payload", {"message": {"key": "k"}}, InvalidMessage, "the mapping has no payload"),
    (
        "an unknown field",
        {"message": {"payload": "p", "deliver_afer": 5}},
        InvalidMessage,
        "unknown field 'deliver_afer'; did you mean 'deliver_after'?",
    ),
    (
        "properties that are not text",
        {"message": {"payload": "p", "properties": {"n": 5}}},
        InvalidMessage,
        "property 'n' must be text, not int",
    ),
    (
        "a naive event_time",
        {"message": {"payload": "p", "event_time": "2030-01-01T00:00"}},
        InvalidMessage,
        "event_time 2030-01-01T00:00 is naive; give it a time zone",
    ),
    (
        "an unreadable event_time",
        {"message": {"payload": "p", "event_time": "noon"}},
        InvalidMessage,
        "event_time 'noon' is not an ISO 8601 time",
    ),
    (
        "deliver_at and deliver_after",
        {"message": {"payload": "p", "deliver_at": 2_000_000_000, "deliver_after": 5}},
        InvalidMessage,
        "deliver_at and deliver_after are both given; give one",
    ),
    (
        "a frame over the limit",
        {"message": "x" * 1_048_576},
        InvalidMessage,
        "the limit is 1048576",
    ),
    ("a malformed topic", {"message": "p", "topic": "a/b"}, InvalidMessage, "topic 'a/b' is not"),
    ("a topic of a wrong type", {"message": "p", "topic": 5}, InvalidMessage, "not int"),
    (
        "an on_ack that is no signature",
        {"message": "p", "on_ack": len},
        InvalidMessage,
        "on_ack must be a signature, such as task.s(), a group, chain or chord",
    ),
    (
        "an on_error that is no signature",
        {"message": "p", "on_error": "shop.ship"},
        InvalidMessage,
        "on_error must be a signature",
    ),
    (
        "a callback that JSON cannot carry",
        {"message": "p", "on_ack": {"task": "shop.ship", "args": [object()]}},
        InvalidMessage,
        "on_ack cannot be carried by JSON",
    ),
    ("a bad timeout", {"message": "p", "delivery_timeout": 0}, InvalidMessage, "more than 0"),
    ("a timeout of text", {"message": "p", "delivery_timeout": "5"}, InvalidMessage, "not str"),
    ("an unknown way", {"message": "p", "via": "pigeon"}, InvalidMessage, "via must be 'lane' or"),
    ("no message", {}, TypeError, "no message was given"),
    (
        "an unknown argument",
        {"message": "p", "topik": "a"},
        TypeError,
        "argument 'topik'; did you mean 'topic'",
    ),
    ("an empty list", {"message": []}, InvalidMessage, "the list of messages is empty"),
    (
        "a bad one in a list",
        {"message": ["a", "b", {"payload": "c", "kee": "k"}]},
        InvalidMessage,
        "message 2 of the list: unknown field 'kee'; did you mean 'key'?",
    ),
    (
        "a long one in a list",
        {"message": ["a", "x" * 1_048_576]},
        InvalidMessage,
        "message 1 of the list: the frame has",
    ),
]


@pytest.mark.parametrize(
    ("given", "kind", "words"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
@pytest.mark.parametrize("way", ["lane", "broker"])
def test_bad_input(given: dict[str, Any], kind: type[Exception], words: str, way: str) -> None:
    """Whichever way the call would go."""
    _, lanes, task = make_stargate(stargate_via=way)
    with pytest.raises(kind) as caught:
        task.apply_async(kwargs=given)
    assert words in str(caught.value)
    assert lanes.puts == []
    assert sent_by_broker(task.app) is None


def test_an_empty_topic() -> None:
    """Is malformed, and not the default one: a message in the wrong topic is worse than none."""
    _, lanes, task = make_stargate()
    with pytest.raises(InvalidMessage, match="^topic '' is not of the form"):
        task.delay("p", topic="")
    assert lanes.puts == []


def test_several_messages_are_a_list() -> None:
    """Not several arguments."""
    _, lanes, task = make_stargate()
    with pytest.raises(TypeError, match="takes one message, and 2 positional arguments were given"):
        task.delay("a", "b")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="takes one message"):
        task.delay("a", message="b")  # type: ignore[call-overload]
    assert lanes.puts == []


def test_a_link_that_json_cannot_carry() -> None:
    """Is told as a callback is."""
    _, lanes, task = make_stargate()
    link = task.app.signature("shop.ship", args=(object(),))
    with pytest.raises(
        InvalidMessage, match="a link, chain, chord or header of the call cannot be"
    ):
        task.apply_async(("a",), link=link)
    assert lanes.puts == []


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"stargate_url": None}, "stargate_url is not set"),
        ({"stargate_topic": None}, "no topic: give topic=…, or set stargate_topic"),
        ({"stargate_urll": "ws://h"}, "there is no setting stargate_urll"),
    ],
)
def test_what_is_not_configured(conf: dict[str, Any], words: str) -> None:
    """Is told at once."""
    _, lanes, task = make_stargate(**conf)
    with pytest.raises(ConfigurationError, match=words):
        task.delay("a")
    assert lanes.puts == []


def test_no_redis() -> None:
    """Is told at once, and not looked for."""
    stargate, _, task = make_stargate(stargate_redis_url=None)
    del stargate.runtime.__dict__["outbox"]
    with pytest.raises(ConfigurationError, match="^no Redis for the lanes: set stargate_redis_url"):
        task.delay("a")


def test_no_result_backend() -> None:
    """A call is recorded; who would wait for ever is told so."""
    _, lanes, task = make_stargate(result_backend=None)
    result = task.delay("a")
    assert len(lanes.puts) == 1
    with pytest.raises(
        ConfigurationError, match=r"no result backend, so get\(\) cannot wait: set result_backend"
    ):
        result.get(timeout=5)


def test_no_stargate() -> None:
    """An app that has none says so."""
    app = Celery("bare", set_as_current=False, broker="memory://")
    with pytest.raises(ConfigurationError, match=r"has no Stargate; call Stargate\(app\)"):
        app.tasks[ProduceTask.default_name].delay("a")
    with pytest.raises(NotRegistered):
        app.tasks["celery_stargate.no_such_task"]


@pytest.mark.parametrize("error", [LaneFull("t#0", 9, 10), StoreUnavailable("Redis is away")])
def test_what_the_lane_raises_comes_through(error: Exception) -> None:
    """As it is: Celery neither wraps it nor tries again."""
    _, lanes, task = make_stargate()
    tries = 0

    def put(*_args: object, **_options: object) -> None:
        nonlocal tries
        tries += 1
        raise error

    vars(lanes).update(put=put)
    with pytest.raises(type(error)) as caught:
        task.delay("a")
    assert caught.value is error
    assert tries == 1


# Timeouts, errors, secrets.


@pytest.mark.parametrize(
    ("given", "seconds"), [(1, 1.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (1e9, 1e9)]
)
def test_timeouts(given: Any, seconds: float) -> None:
    """Seconds, or a timedelta."""
    assert read_timeout(given) == seconds


@pytest.mark.parametrize(
    "given",
    [0, -1, True, "5", None, [5], float("nan"), float("inf"), 1e10, timedelta(0), 10**400],
    ids=str,
)
def test_bad_timeouts(given: Any) -> None:
    """Are the caller's mistake."""
    with pytest.raises(InvalidMessage, match="^a timeout must be "):
        read_timeout(given)


def test_the_error_of_a_failure() -> None:
    """A deadline is a timeout; everything else is not."""
    assert type(error_of(Failure(context="c", code="deadline"))) is ProduceTimeout
    assert type(error_of(Failure(context="c", code="http-404"))) is ProduceError


def test_nothing_that_celery_shows_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the request's arguments, nor the signature's options, nor a log."""
    caplog.set_level("DEBUG")
    _, lanes, task = make_stargate(stargate_url="wss://h", stargate_token=SECRETS[2])
    secret = {"payload": SECRETS[0], "key": SECRETS[1], "properties": {"a": SECRETS[0]}}
    task.delay(secret)
    task.apply_async((secret,), via="broker")
    with pytest.raises(InvalidMessage) as caught:
        task.delay([secret, {**secret, "oops": SECRETS[0]}])
    request = json.loads(lanes.puts[0].record.request or "")
    assert request["argsrepr"] == f"(<1 message for {TOPIC}>,)"
    for secret_text in SECRETS:
        assert secret_text not in json.dumps(request)
        assert secret_text not in caplog.text
        assert secret_text not in repr(caught.value)


def test_the_app_is_not_needed_to_define_a_task() -> None:
    """`stargate.task` reads no settings; what does not fit to them is told at the first use."""
    stargate, lanes, _ = make_stargate(stargate_lanes="four")
    wrong = stargate.task("shop.wrong", topic="nowhere/else")
    with pytest.raises(ConfigurationError, match="stargate_lanes must be a whole number, not str"):
        wrong.delay("a")
    assert lanes.puts == []
    assert make_app().conf.stargate_topic == TOPIC


# Results, and what Celery asks of the producer.


def test_a_result_without_a_backend() -> None:
    """There is nothing to wait by, and the caller hears it at once."""
    _, _, task = make_stargate(result_backend=None)
    with pytest.raises(ConfigurationError, match=r"no result backend, so get\(\) cannot wait"):
        task.delay("a").get()


def test_one_who_waits_sees_to_the_deadline() -> None:
    """Past it nobody else may be alive: what is overdue is settled, and the outcome told."""
    stargate, lanes, task = make_stargate()
    result = task.apply_async(("a",), kwargs={"delivery_timeout": 0.01})
    late = Failure(context=result.id, status="unknown", code="deadline")
    lanes.overdue = [Settled(lanes.puts[0].record, (late,))]
    with pytest.raises(ProduceTimeout):
        result.get(timeout=10)
    assert lanes.finished == [(result.id, 0)]
    assert stargate.app is task.app


def test_celery_is_never_told_to_wait_for_0_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backends take 0 for no timeout, and wait for ever."""
    waits: list[float] = []

    def get(self: Any, timeout: float, *_: Any) -> str:
        waits.append(timeout)
        raise CeleryTimeout("nothing came")

    monkeypatch.setattr(AsyncResult, "get", get)
    _, _, task = make_stargate()
    with pytest.raises(CeleryTimeout):
        task.apply_async(("a",)).get(timeout=0)
    assert waits
    assert min(waits) > 0


@pytest.mark.parametrize("timeout", [0, 0.05, 1.3])
def test_a_timeout_of_get_comes_first(timeout: float) -> None:
    """Before the deadline, and before the time that an owner has past it."""
    _, lanes, task = make_stargate()
    result = task.apply_async(("a",), kwargs={"delivery_timeout": 0.5})
    began = time.monotonic()
    with pytest.raises(CeleryTimeout):
        result.get(timeout=timeout)
    # Far from the 10 s that a wait without a bound of its own would take.
    assert time.monotonic() - began < timeout + 5
    assert lanes.finished == []


@pytest.mark.parametrize("from_another_process", [False, True])
def test_a_result_whose_notification_was_lost(
    monkeypatch: pytest.MonkeyPatch, from_another_process: bool
) -> None:
    """Is found by another look, long before the deadline."""
    waits: list[float] = []

    def get(self: Any, timeout: float, *_: Any) -> str:
        waits.append(timeout)
        if len(waits) < 3:
            time.sleep(timeout)
            raise CeleryTimeout("nothing came")
        return "the receipt"

    monkeypatch.setattr(AsyncResult, "get", get)
    monkeypatch.setattr("celery_stargate.task._LOOKS", (0.02, 0.04))
    _, _, task = make_stargate()
    result: Any = task.delay("a")
    if from_another_process:
        result = task.AsyncResult(result.id)
    assert result.get(timeout=60) == "the receipt"
    assert max(waits) <= 0.04


def test_the_tracer_gets_the_outcome() -> None:
    """From the request: a receipt is returned, a failure raised."""
    _, _, task = make_stargate()
    task.push_request(**{OUTCOME: {"status": "stored"}})
    assert task.run() == {"status": "stored"}
    task.pop_request()
    task.push_request(**{OUTCOME: Failure(context="c", reason="no")})
    with pytest.raises(ProduceError, match="no"):
        task.run()
    task.pop_request()


def test_called_in_process_it_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that was given."""
    stargate, _, task = make_stargate()
    given: list[Any] = []

    def produce_in_process(*args: Any) -> dict[str, Any]:
        given.append(args)
        return {"status": "stored"}

    monkeypatch.setattr("celery_stargate.task.produce_in_process", produce_in_process)
    assert task("a", topic="other", delivery_timeout=7) == {"status": "stored"}
    [(runtime, call, options)] = given
    assert runtime is stargate.runtime
    assert str(call.topic) == "persistent://public/default/other"
    assert options.timeout == 7


def test_a_naive_expires() -> None:
    """Is meant in the app's time zone, as Celery means it."""
    _, lanes, task = make_stargate()
    moment = task.app.now().replace(tzinfo=None) + timedelta(seconds=50)
    assert 0 < until(moment, task.app) <= 50
    assert lanes.puts == []
