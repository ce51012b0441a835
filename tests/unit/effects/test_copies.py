"""Copies: callbacks of one kind have the messages that Celery would make."""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import pytest
from celery import Celery, Task, _state, group, signals
from celery.app.amqp import AMQP
from celery.app.routes import Router
from celery.canvas import Signature
from kombu import Exchange, Producer, Queue
from kombu.exceptions import OperationalError
from kombu.utils import json

from celery_stargate.effects.callbacks import callback_id, trigger, trigger_together
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import failure, make_app, receipt

COUNT = 4
#: Where some tasks go by their arguments.
CHOSEN: dict[str, str] = {}


class Noted(Task):  # type: ignore[type-arg]
    """A task that names itself by its arguments in events and logs."""

    abstract = True

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> Any:
        """Return a name."""
        return f"{self.name}-{args[0]['context']}"


class Own(Task):  # type: ignore[type-arg]
    """A task with results of its own."""

    abstract = True
    made: ClassVar[list[str]] = []

    def AsyncResult(self, task_id: str, **options: Any) -> Any:  # Celery's name
        """Return the result of a call."""
        self.made.append(task_id)
        return super().AsyncResult(task_id, **options)


class Optional(Task):  # type: ignore[type-arg]
    """A task with other options in each call."""

    abstract = True

    def _get_exec_options(self) -> Any:
        return {"headers": {"number": uuid.uuid4().hex}}


class Chooses(Task):  # type: ignore[type-arg]
    """A task that chooses its queue by its arguments."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Publish it."""
        if args[1] == 2:
            options |= CHOSEN
        return super().apply_async(args, kwargs, **options)


class LooksUp(Router):
    """A router that looks at arguments in one of its steps."""

    def lookup_route(self, name: str, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Send one of them elsewhere."""
        return {"queue": "other"} if args and args[-1] == 2 else None


class ByArguments(Router):
    """A router that looks at arguments."""

    def route(
        self, options: Any, name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> Any:
        """Send one of them elsewhere."""
        if len(args) > 1 and args[1] == 2:
            options = {**options, "queue": "other"}
        return super().route(options, name, args, kwargs, task_type)


class ChoosesByArguments(Router):
    """A router that sends one of them by a topic exchange."""

    def route(
        self, options: Any, name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> Any:
        """Send one of them elsewhere."""
        if len(args) > 1 and args[1] == 2:
            options = {**options, **CHOSEN}
        return super().route(options, name, args, kwargs, task_type)


class OwnAMQP(AMQP):
    """Celery's, with that router."""

    def Router(self, queues: Any = None, create_missing: Any = None) -> Any:  # Celery's name
        """Return the router."""
        kind = self.app.conf.get("test_router", ByArguments)
        return kind(self.routes, queues or self.queues, create_missing=True, app=self.app)


class Slow(Task):  # type: ignore[type-arg]
    """A task whose class has options of its own."""

    abstract = True
    queue = "slow"
    priority = 3
    ignore_result = True
    serializer = "yaml"
    time_limit = 9


class Late(Task):  # type: ignore[type-arg]
    """A task that counts its time from each publish."""

    abstract = True
    expires = 60


@pytest.fixture
def app() -> Celery:
    """An app with tasks of all kinds."""
    made = make_app(task_create_missing_queues=True, accept_content=["json", "yaml"])

    def work(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    bases = {"plain": Task, "noted": Noted, "slow": Slow, "late": Late, "own": Own}
    bases |= {"optional": Optional, "chooses": Chooses}
    for name, base in bases.items():
        options: dict[str, Any] = {"name": f"shop.{name}", "base": base, "shared": False}
        made.task(**options)(work)
    return made


@contextmanager
def counted(app: Celery) -> Iterator[list[str]]:
    """Note the names of the tasks that go through Celery."""
    passed: list[str] = []
    real = app.send_task

    def send_task(name: str, *args: Any, **options: Any) -> Any:
        passed.append(name)
        return real(name, *args, **options)

    # It stands for Celery's own.
    send_task.__module__ = "celery.app.base"
    app.__dict__["send_task"] = send_task
    try:
        yield passed
    finally:
        del app.__dict__["send_task"]


def settled(
    app: Celery,
    callback: Any,
    request: dict[str, Any] | None = None,
    *,
    failed: bool = False,
    listed: bool = False,
) -> list[Settled]:
    """Return contexts with one callback."""
    option = "on_error" if failed else "on_ack"
    packed: dict[str, Any] = {option: freeze_callback(option, callback, app)}
    found = []
    for _ in range(COUNT):
        context = str(uuid.uuid4())
        root = {} if request is None else {"root_id": str(uuid.uuid4())}
        record = Record(
            context,
            is_list=listed,
            task=None if request is None else "celery_stargate.produce",
            request=None if request is None else json.dumps({"id": context, **root, **request}),
            incarnation="i",
            **packed,
        )
        outcomes = (failure(context),) if failed else (receipt(context),) * (3 if listed else 1)
        found.append(Settled(record, outcomes))
    return found


def drained(app: Celery) -> list[Any]:
    """Return all messages of the broker, but for what is another in each delivery."""
    found = []
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        for queue in (app.conf.task_default_queue, "slow", "other"):
            app.amqp.queues[queue](channel).declare()
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                properties = {**message.properties}
                properties.pop("delivery_tag")
                info = properties.pop("delivery_info")
                body = message.content_type, message.content_encoding, message.body
                found.append((queue, info, message.headers, properties, body))
    return found


def publish(app: Celery, given: list[Settled], *, marked: bool = False) -> tuple[list[str], Any]:
    """Publish callbacks together; return which went through Celery, and the messages."""
    with counted(app) as passed:
        assert len(trigger_together(app, given, marked=marked)) == len(given)
    return passed, drained(app)


def publish_each(app: Celery, given: list[Settled], *, marked: bool = False) -> Any:
    """Publish callbacks one by one, and return the messages."""
    for each in given:
        trigger(app, each.call, each.callback, each.request, marked=marked)
    return drained(app)


SHAPES: dict[str, Any] = {
    "bare": {},
    "args": {"args": (1, "two", None, {"three": [3.0]})},
    "long args": {"args": ("a" * 5000,), "kwargs": {"b": "c" * 5000}},
    "kwargs": {"kwargs": {"a": 1}},
    "immutable": {"immutable": True},
    "immutable with args": {"args": (1,), "immutable": True},
    "queue": {"options": {"queue": "other"}},
    "options": {"options": {"priority": 7, "headers": {"mine": 1}, "ignore_result": True}},
    "limits": {"options": {"time_limit": 5, "soft_time_limit": 3, "shadow": "s"}},
    "compressed": {"options": {"serializer": "yaml", "compression": "zlib"}},
    "links": {"options": {"link": [Signature("l")], "link_error": [Signature("e")]}},
    "stamped": {"options": {"stamped_headers": ["order"], "order": "17"}},
}
REQUESTS: dict[str, Any] = {
    "no request": None,
    "a request": {},
    "headers": {"tenant": "t", "replaced_task_nesting": 2, "delivery_info": {"priority": 4}},
    "own headers": {"headers": {"tenant": "t"}},
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=list(REQUESTS))
@pytest.mark.parametrize("name", ["shop.plain", "shop.elsewhere", "shop.slow"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_copies_are_what_celery_would_send(
    app: Celery, shape: Any, name: str, request_: Any
) -> None:
    """Whatever the task, its options and the call; only the first goes through Celery."""
    app.conf.task_inherit_parent_priority = True
    given = settled(app, Signature(name, app=app, **shape), request_)
    passed, together = publish(app, given, marked=True)
    assert together == publish_each(app, given, marked=True)
    assert len(together) == COUNT
    assert passed == [name]


def by_id(messages: list[Any]) -> list[Any]:
    """Return messages in the order of their ids."""
    return sorted(messages, key=lambda message: str(message[2]["id"]))


def check(app: Celery, given: list[Settled]) -> list[str]:
    """See that messages are those that Celery would send; return which went through it."""
    passed, together = publish(app, given)
    assert by_id(together) == by_id(publish_each(app, given))
    assert len(together) == len(given)
    return passed


def test_each_kind_of_outcome_for_one_callback(app: Celery) -> None:
    """What events and logs show is given for one receipt, and is Celery's for others."""
    signature = app.signature("shop.plain")
    one, listed = settled(app, signature), settled(app, signature, listed=True)
    valued = [Settled(each.record, (receipt(value={"x": 1}),)) for each in settled(app, signature)]
    for given in ([*one, *listed, *valued], [*valued, *listed, *one]):
        assert len(check(app, given)) == 2


def test_headers_that_hold_the_id(app: Celery) -> None:
    """Each under its own name."""
    given = settled(app, app.signature("shop.plain"), {})
    named = []
    for number, each in enumerate(given):
        context = each.record.context
        headers = {f"x{number % 2}": callback_id(context, "i", "on_ack")}
        request = json.dumps({"id": context, "headers": headers})
        record = msgspec.structs.replace(each.record, request=request)
        named.append(Settled(record, each.outcomes))
    assert len(check(app, named)) == 2


@pytest.mark.parametrize("name", ["root_id", "ignore_result", "argsrepr", "expires"])
def test_headers_with_the_names_of_celerys(app: Celery, name: str) -> None:
    """They take the place of these in all."""
    headers = {"headers": {name: "the-users-own"}}
    assert len(check(app, settled(app, app.signature("shop.plain", options=headers), {}))) == COUNT


@pytest.mark.parametrize("stamped", [False, True])
def test_links_that_differ(app: Celery, stamped: bool) -> None:
    """A group in a link is one with its options."""

    def linked(queue: str) -> Any:
        tasks = [Signature("l", app=app, options={"queue": queue}), Signature("m", app=app)]
        return app.signature("shop.plain", options={"link": [group(tasks, app=app)]})

    request = {"stamps": {"order": "1"}, "stamped_headers": ["order"]} if stamped else {}
    check(app, [each for q in ("slow", "other") for each in settled(app, linked(q), request)])


def numbered(app: Celery, name: str) -> list[Settled]:
    """Return callbacks with other arguments each."""
    signatures = [app.signature(name, args=(number,)) for number in (1, 2, 3)]
    return [each for signature in signatures for each in settled(app, signature)]


@pytest.mark.parametrize("kind", [ByArguments, LooksUp])
def test_a_router_of_the_apps_own(kind: type[Router]) -> None:
    """It may look at arguments."""
    app = Celery("x", set_as_current=False, amqp=OwnAMQP)
    app.conf.update(broker_url="memory://", result_backend="cache+memory://", test_router=kind)
    app.conf.update(task_default_queue=uuid.uuid4().hex, task_routes={"nobody": {"queue": "slow"}})
    assert len(check(app, numbered(app, "shop.elsewhere"))) == 3 * COUNT


@pytest.mark.parametrize("case", ["router", "task", "other app"])
def test_a_queue_that_only_some_go_to(app: Celery, case: str) -> None:
    """It is declared: a topic exchange without it would drop them."""
    chosen = uuid.uuid4().hex
    CHOSEN.update(queue=chosen, routing_key="a.b")

    def route(name: str, args: Any, *_: Any, **__: Any) -> Any:
        return CHOSEN if args[1] == 2 else None

    name = "shop.chooses"
    if case == "router":
        app = Celery("x", set_as_current=False, amqp=OwnAMQP)
        app.conf.update(make_app().conf.table())
        app.conf.update(test_router=ChoosesByArguments)
        name = "shop.elsewhere"
    queues = Queue(app.conf.task_default_queue), Queue(chosen, Exchange(chosen, "topic"), "a.#")
    app.conf.task_queues = queues
    if case == "other app":
        name = "shop.two"
        other = make_app(task_routes=[route], task_queues=queues)
        other.conf.task_default_queue = app.conf.task_default_queue
        task = type("Two", (Task,), {"name": name})()
        app.register_task(task)
        other.register_task(task)
    assert len(trigger_together(app, numbered(app, name))) == 3 * COUNT
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        found = [channel.basic_get(chosen, no_ack=True) for _ in range(COUNT)]
    assert None not in found


def test_a_task_of_another_app(app: Celery) -> None:
    """That one publishes it, by its own routes."""

    class Two(Task):  # type: ignore[type-arg]
        name = "shop.two"

    def route(name: str, args: Any, *_: Any, **__: Any) -> Any:
        return {"queue": "other"} if args[1] == 2 else None

    other = make_app(task_routes=[route], task_default_queue=app.conf.task_default_queue)
    task = Two()
    app.register_task(task)
    other.register_task(task)
    given = numbered(app, "shop.two")
    assert trigger_together(app, given) == {each.record.context for each in given}
    assert by_id(drained(app)) == by_id(publish_each(app, given))


def test_results_of_the_tasks_own(app: Celery) -> None:
    """Are made for each."""
    Own.made.clear()
    publish(app, settled(app, app.signature("shop.own")))
    assert len(Own.made) == COUNT


def test_options_that_differ_from_call_to_call(app: Celery) -> None:
    """Are those of each call."""
    _, together = publish(app, settled(app, app.signature("shop.optional")))
    assert len({message[2]["number"] for message in together}) == COUNT


def test_headers_that_are_added_on_the_way(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """By who stands around kombu; they are no part of the first's message."""
    real, numbers = Producer.publish, itertools.count()

    def publish_with(self: Any, body: Any, headers: Any = None, **options: Any) -> Any:
        headers.setdefault("number", next(numbers))
        return real(self, body, headers=headers, **options)

    monkeypatch.setattr(Producer, "publish", publish_with)
    _, together = publish(app, settled(app, app.signature("shop.plain")))
    assert [message[2]["number"] for message in together] == [*range(COUNT)]


def test_within_a_task(app: Celery) -> None:
    """It gets them all as its children."""
    outer: Any = app.tasks["shop.plain"]
    stack: Any = _state._task_stack  # type: ignore[attr-defined]  # noqa: SLF001  # as a tracer does
    stack.push(outer)
    fields: dict[str, Any] = {"id": "outer", "root_id": "outer", "called_directly": False}
    outer.push_request(**fields, children=[], delivery_info={})
    try:
        passed, _ = publish(app, settled(app, app.signature("shop.plain")))
        assert len(outer.request.children) == len(passed) == COUNT
    finally:
        outer.pop_request()
        stack.pop()


def test_arguments_of_types_that_json_has_not(app: Celery) -> None:
    """Celery may dump them, as for a task with models of pydantic."""
    when = datetime(2031, 2, 3, tzinfo=UTC)
    given = settled(app, app.signature("shop.plain", args=(when,)))
    assert len(check(app, given)) == COUNT


def test_the_first_that_fails_declares_nothing(app: Celery) -> None:
    """The others are published into a queue that is there."""
    name = uuid.uuid4().hex
    queue = Queue(name, Exchange(name, "topic"), routing_key="a.#")
    app.conf.task_queues = [Queue(app.conf.task_default_queue), queue]
    options = {"queue": name, "routing_key": "a.b"}
    bad = app.signature("shop.plain", options={**options, "compression": "nope"})
    given = [settled(app, bad)[0], *settled(app, app.signature("shop.plain", options=options))]
    assert len(trigger_together(app, given)) == COUNT
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        found = [channel.basic_get(name, no_ack=True) for _ in range(COUNT)]
    assert None not in found


@pytest.mark.parametrize("kind", ["failed", "listed"])
def test_failures_and_lists(app: Celery, kind: str) -> None:
    """Are arguments as any other."""
    given = settled(app, app.signature("shop.plain"), {}, **{kind: True})
    passed, together = publish(app, given)
    assert together == publish_each(app, given)
    assert passed == ["shop.plain"]


def test_kinds_are_told_apart(app: Celery) -> None:
    """By task and options; arguments may differ."""
    given = [
        each
        for signature in (
            *(app.signature("shop.plain", args=(number,)) for number in range(3)),
            *(app.signature("shop.plain", kwargs={"order": str(number)}) for number in range(3)),
            app.signature("shop.plain", options={"queue": "other"}),
            app.signature("shop.elsewhere"),
        )
        for each in settled(app, signature)
    ]
    passed, together = publish(app, given)
    assert together == publish_each(app, given)
    assert passed == ["shop.plain"] * 3 + ["shop.elsewhere"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("shop.noted", {}), ("shop.late", {})),
        *(("shop.plain", {"countdown": 9}), ("shop.plain", {"expires": 9})),
        ("shop.plain", {"retry": False}),
        ("shop.plain", {"argsrepr": "(…)"}),
    ],
)
def test_what_differs_in_more_is_celerys(app: Celery, name: str, options: Any) -> None:
    """A time, a name by the arguments, or an error that kombu would not translate."""
    given = settled(app, app.signature(name, options=options))
    passed, together = publish(app, given)
    assert passed == [name] * COUNT
    assert len({message[2]["id"] for message in together}) == COUNT


def test_an_id_of_the_callers_own(app: Celery) -> None:
    """It is in no other message."""
    given = [
        settled(app, app.signature("shop.plain", options={"task_id": f"mine-{number}"}))[0]
        for number in range(COUNT)
    ]
    passed, together = publish(app, given)
    assert [message[2]["id"] for message in together] == [f"mine-{n}" for n in range(COUNT)]
    assert len(passed) == COUNT


def test_an_id_that_is_everywhere(app: Celery) -> None:
    """A context whose name is also a part of something else: nobody knows what to replace."""
    given = [
        Settled(each.record, each.outcomes)
        for each in settled(app, app.signature("shop.plain"), {})
    ]
    named = [
        Settled(
            Record("py", task="t", request="{}", on_ack=given[0].record.on_ack), (receipt("py"),)
        ),
        *given,
    ]
    passed, together = publish(app, named)
    assert passed == ["shop.plain"] * len(named)
    assert together == publish_each(app, named)


def listen(*_: Any, **__: Any) -> None:
    """Hear of what is published."""


@contextmanager
def receiver(name: str, sender: str | None = None) -> Iterator[None]:
    """Have a receiver for a signal."""
    signal = getattr(signals, name)
    signal.connect(listen, sender=sender)
    try:
        yield
    finally:
        signal.disconnect(listen, sender=sender)


@contextmanager
def wrapped(owner: Any, name: str) -> Iterator[None]:
    """Have somebody's function around a method, as tracing libraries do."""
    real: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(real)
    def around(*args: Any, **options: Any) -> Any:
        return real(*args, **options)

    setattr(owner, name, around)
    try:
        yield
    finally:
        setattr(owner, name, real)


@pytest.mark.parametrize("sender", [None, "shop.plain"])
@pytest.mark.parametrize("name", ["before_task_publish", "after_task_publish", "task_sent"])
def test_who_hears_of_one_hears_of_all(app: Celery, name: str, sender: str | None) -> None:
    """With a receiver all go through Celery, also if it hears of one task only."""
    with receiver(name, sender):
        passed, _ = publish(app, settled(app, app.signature("shop.plain")))
    assert len(passed) == COUNT


@pytest.mark.parametrize("owner", [Task, Signature])
def test_who_stands_around_celery(app: Celery, owner: Any) -> None:
    """Is called for each, as by Sentry, OpenTelemetry and others."""
    with wrapped(owner, "apply_async"):
        passed, _ = publish(app, settled(app, app.signature("shop.plain")))
    assert len(passed) == COUNT


@pytest.mark.parametrize(
    "conf",
    [
        {"task_send_sent_event": True},
        {"task_routes": [lambda name, *_, **__: {"queue": "other"}]},
        {"task_protocol": 1},
        {"task_publish_retry": False},
    ],
)
def test_settings_by_which_messages_differ(conf: Any) -> None:
    """An event for each, a router that looks at arguments, another protocol."""
    app = make_app(**conf)
    passed, together = publish(app, settled(app, app.signature("shop.elsewhere")))
    assert len(passed) == len(together) == COUNT


def test_routes_by_name() -> None:
    """Are the same for all of a task."""
    app = make_app(task_routes={"shop.*": {"queue": "other"}})
    given = settled(app, app.signature("shop.elsewhere"))
    passed, together = publish(app, given)
    assert passed == ["shop.elsewhere"]
    assert together == publish_each(app, given)
    assert {message[0] for message in together} == {"other"}


def test_a_broker_that_goes_away(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """While copies are published: none is surely published, and it is asked no more."""
    asked: list[object] = []
    real = Producer.publish

    def away(self: Any, *args: Any, **options: Any) -> Any:
        asked.append(args)
        if len(asked) > 2:
            raise OperationalError("away")
        return real(self, *args, **options)

    monkeypatch.setattr(Producer, "publish", away)
    assert trigger_together(app, settled(app, app.signature("shop.plain"))) == set()
    assert len(asked) == 3


def test_who_waits_for_the_callbacks_result(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result backend is told of each, but for those whose result is ignored."""
    told: list[str] = []
    monkeypatch.setattr(app.backend, "on_task_call", lambda producer, task_id: told.append(task_id))
    given = settled(app, app.signature("shop.plain"))
    _, together = publish(app, given)
    assert told == [message[2]["id"] for message in together]
    publish(app, settled(app, app.signature("shop.slow")))
    assert len(told) == COUNT
