"""Callbacks: what is kept of a signature, and that a repeat publishes the same tasks."""

from __future__ import annotations

import uuid
from collections import UserDict
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery, Task, chain, chord, current_app, group
from celery.canvas import maybe_signature
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json

from celery_stargate import InvalidMessage
from celery_stargate.effects.signatures import Callbacks, freeze_callback, pack, unpack
from celery_stargate.model.follow_up import request_fields
from tests.unit.helpers import make_app


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    """An app with one task, the current one: the parts of a canvas look for that."""
    made = make_app()
    proxy: Any = current_app
    before = proxy._get_current_object()  # noqa: SLF001
    made.set_current()

    @made.task(name="shop.ship", shared=False)
    def ship(*args: Any) -> Any:
        return args

    yield made
    before.set_current()


def ship(app: Celery, *args: Any, **options: Any) -> Any:
    """Return a signature."""
    return app.signature("shop.ship", args=args, options=options)


def test_nothing(app: Celery) -> None:
    """Is no callback."""
    assert freeze_callback("on_ack", None, app) is None
    assert not Callbacks.freeze(None, None, app)


def test_both(app: Celery) -> None:
    """Each under its name; only what is given is given on."""
    both = Callbacks.freeze(ship(app, 1), ship(app, 2), app)
    assert both
    assert {name: each["args"] for name, each in both.unpacked().items()} == {
        "on_ack": [1],
        "on_error": [2],
    }
    one = Callbacks.freeze(None, ship(app), app)
    assert one
    assert list(one.unpacked()) == ["on_error"]
    with pytest.raises(InvalidMessage, match="^on_error must be a signature"):
        Callbacks.freeze(None, 5, app)


CARRIED = [
    datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    date(2030, 1, 2),
    time(1, 2, 3),
    Decimal("1.10"),
    uuid.UUID(int=5),
    b"\x00\xff",
    b"text",
    "é\x00\ud800",
    1.5,
    None,
    True,
    2**70,
    {"a": [1, {"b": None}]},
]


@pytest.mark.parametrize("value", CARRIED, ids=lambda value: type(value).__name__)
def test_what_json_carries_survives(app: Celery, value: Any) -> None:
    """In value and type, as in any Celery task's arguments."""
    for made in (
        ship(app, value),
        dict(ship(app, value)),
        chain(ship(app, value), ship(app)),
        group([ship(app, value)]),
    ):
        packed = freeze_callback("on_ack", made, app)
        assert packed is not None
        again: Any = maybe_signature(unpack(packed), app=app)
        while "tasks" in again["kwargs"]:
            again = maybe_signature(again["kwargs"]["tasks"][0], app=app)
        assert list(again.args) == [value]
        assert type(again.args[0]) is type(value)


def canvases(app: Celery) -> dict[str, Any]:
    """Return one of each kind."""
    return {
        "chain": chain(ship(app), ship(app), ship(app)),
        "group": group([ship(app), ship(app)]),
        "chord": chord([ship(app), ship(app)], ship(app)),
        "nested": chain(ship(app), group([ship(app), ship(app)]), ship(app)),
        "chain of one": chain(ship(app)),
    }


#: How many ids each has when it is published: those of a chord's body come with its members.
SIZES = {"chain": 3, "group": 2, "chord": 2, "nested": 4, "chain of one": 1}


def leaves(signature: Any) -> Iterator[Any]:
    """Yield the tasks in a canvas; a chord's own id names no task."""
    parts = signature["kwargs"] if signature["subtask_type"] else {}
    header = parts.get("header") or ()
    inner = [
        *(parts.get("tasks") or ()),
        *(header if isinstance(header, list | tuple) else [header]),
    ]
    inner += [parts["body"]] if "body" in parts else []
    if not inner:
        yield signature
    for each in inner:
        yield from leaves(each)


def published(app: Celery, packed: str) -> list[tuple[str, Any]]:
    """Trigger a callback as after a crash, and return the ids and arguments that went out."""
    sent: list[tuple[str, Any]] = []
    amqp: Any = app.amqp
    original = amqp.send_task_message

    def send(producer: Any, name: str, message: Any, **options: Any) -> Any:
        sent.append((message.headers["id"], message.body[0]))
        # What a chain does next stands in the message, ids included.
        for each in message.body[2]["chain"] or ():
            sent.extend((leaf["options"]["task_id"], None) for leaf in leaves(each))
        return original(producer, name, message, **options)

    signature: Any = maybe_signature(unpack(packed), app=app)
    amqp.send_task_message = send
    try:
        signature.apply_async(({"context": "c"},))
    finally:
        amqp.send_task_message = original
    return sent


@pytest.mark.parametrize("kind", ["chain", "group", "chord", "nested", "chain of one"])
def test_a_repeat_publishes_the_same_ids(app: Celery, kind: str) -> None:
    """A crash between the publishing and the finish repeats it: the ids make it idempotent."""
    packed = freeze_callback("on_ack", canvases(app)[kind], app)
    assert packed is not None
    first, second = published(app, packed), published(app, packed)
    assert first == second
    ids = [task_id for task_id, _ in first]
    assert len(set(ids)) == len(ids) == SIZES[kind]


def test_freezing_leaves_the_callers_signature_alone(app: Celery) -> None:
    """It may be given to a thousand calls, each with ids of its own."""
    made = canvases(app)["group"]
    before = pack("x", made)
    one, two = (freeze_callback("on_ack", made, app) for _ in range(2))
    assert one != two
    assert pack("x", made) == before


def test_a_single_signature_is_kept_as_it_is(app: Celery) -> None:
    """Its id is made of the context later."""
    packed = freeze_callback("on_ack", ship(app, 1, queue="q"), app)
    assert packed is not None
    kept = unpack(packed)
    assert (kept["task"], kept["args"], kept["options"]) == ("shop.ship", [1], {"queue": "q"})


def test_a_bare_dict_is_completed(app: Celery) -> None:
    """As JSON from elsewhere may be."""
    packed = freeze_callback("on_ack", {"task": "shop.ship"}, app)
    assert packed is not None
    [(_, args)] = published(app, packed)
    assert args == ({"context": "c"},)


BAD: list[tuple[Any, str]] = [
    (5, "on_ack must be a signature, such as task.s(), a group, chain or chord, not int"),
    ("shop.ship", "on_ack must be a signature, such as task.s(), a group, chain or chord, not str"),
    (len, "not builtin_function_or_method"),
    ([], "not list"),
    ({}, "not dict"),
    ({"name": "shop.ship"}, "not dict"),
    (UserDict({"a": 1}), "not UserDict"),
    ({"task": 5}, "on_ack is no signature that Celery can read back"),
    ({"task": None}, "on_ack is no signature that Celery can read back"),
    ({"task": "t", "args": "xy"}, "on_ack is no signature that Celery can read back"),
    ({"task": "t", "kwargs": []}, "on_ack is no signature that Celery can read back"),
    ({"task": "t", "options": 5}, "on_ack is no signature that Celery can read back"),
    ({"task": "t", "subtask_type": "knot"}, "on_ack is no signature that Celery can read back"),
    ({"task": "celery.chain", "subtask_type": "chain"}, "on_ack is no signature that Celery"),
    (
        {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": 5}},
        "on_ack is no signature that Celery can read back",
    ),
    (
        {"task": "t", "args": [{"__type__": "spell", "__value__": "s3cr3t"}]},
        "on_ack is no signature that Celery can read back (ValueError)",
    ),
]


@pytest.mark.parametrize(("given", "words"), BAD, ids=range(len(BAD)))
def test_what_is_no_signature(app: Celery, given: Any, words: str) -> None:
    """Is told in the caller: an effect that can never be done would be repeated for ever."""
    with pytest.raises(InvalidMessage) as caught:
        freeze_callback("on_ack", given, app)
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_task_is_no_signature(app: Celery) -> None:
    """A common slip, told with what was meant, also before Celery has made the task."""

    @app.task(name="shop.paid")
    def mark_paid(receipt: Any) -> None: ...

    class Refuse(Task):  # type: ignore[type-arg]
        name = "shop.refuse"

    for option, task, text in (
        ("on_ack", mark_paid, "on_ack is the task 'shop.paid'; give its signature, mark_paid.s()"),
        ("on_error", Refuse(), "on_error is the task 'shop.refuse'; give its signature, task.s()"),
    ):
        with pytest.raises(InvalidMessage) as caught:
            freeze_callback(option, task, app)
        assert str(caught.value) == text


class _Odd:
    def __repr__(self) -> str:
        return "s3cr3t"


def deep(depth: int) -> list[Any]:
    """Return lists in lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [_Odd(), len, {1, 2}, deep(100_000), CIRCLE, {(1, 2): 3}, 1j],
    ids=["object", "function", "set", "deep", "circle", "key", "complex"],
)
@pytest.mark.parametrize("kind", ["single", "group"])
def test_what_json_cannot_carry(app: Celery, value: Any, kind: str) -> None:
    """Is told in the caller, without the value."""
    made = ship(app, value) if kind == "single" else group([ship(app, value)])
    with pytest.raises(InvalidMessage) as caught:
        freeze_callback("on_error", made, app)
    assert str(caught.value).startswith("on_error cannot be carried by JSON: ")
    assert "s3cr3t" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tasks", "body", "task", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {"task": JSON},
        optional={
            "args": JSON,
            "kwargs": JSON,
            "options": JSON,
            "subtask_type": st.none() | st.sampled_from(["chain", "group", "chord", "map"]),
            "chord_size": JSON,
        },
    )
)
def test_any_dict_is_a_signature_or_invalid(given: dict[str, Any]) -> None:
    """Never another error."""
    app = APP
    try:
        assert freeze_callback("on_ack", given, app) is not None
    except InvalidMessage as error:
        assert str(error).startswith("on_ack ")


APP = make_app()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": -Infinity, "b": 1e400}',
        '{"a": "\\ud800"}',
        '{"a": 123456789012345678901234567890, "b": -0, "c": 1.0}',
        '{"a": 1, "a": 2}',
        '{"when": {"__type__": "decimal", "__value__": "1.50"}}',
        '["\u00e9\\n", null, true, []]',
    ],
)
def test_all_that_kombus_json_reads(text: str) -> None:
    """A faster reader reads most, and leaves to kombu's what it does not know."""
    assert repr(unpack(text)) == repr(json.loads(text))
    if text.startswith("{") and "__type__" not in text:
        assert repr(request_fields(text)) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", "{", '{"a": }', "[" * 100_000])
def test_what_is_no_json(text: str) -> None:
    """The error is kombu's."""
    with pytest.raises((ValueError, RecursionError)) as expected:
        json.loads(text)
    with pytest.raises(expected.type):
        unpack(text)
    assert request_fields(text) == {}
