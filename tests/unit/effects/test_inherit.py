"""What a callback inherits from the task that triggers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from kombu.utils import json

from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import make_app, receipt


@pytest.fixture(params=["one", "together"])
def published(request: pytest.FixtureRequest) -> Any:
    """Return what publishes the callback of a task with a request, and returns its message."""

    def publish(app: Celery, callback: Any, **fields: Any) -> Any:
        count = 1 if request.param == "one" else 2
        packed = json.dumps({"id": "c0", **fields})
        records = [
            Record(
                f"c{i}", task="celery_stargate.produce", request=packed, on_ack=json.dumps(callback)
            )
            for i in range(count)
        ]
        done = Effects(app, None).run([Settled(each, (receipt(each.context),)) for each in records])
        assert len(done) == count
        with app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return channel.basic_get(app.conf.task_default_queue, no_ack=True)

    return publish


def test_root_and_parent(published: Any) -> None:
    """As a link's."""
    app = make_app()
    headers = published(app, app.signature("ship"), root_id="the-root").headers
    assert (headers["root_id"], headers["parent_id"]) == ("the-root", "c0")


def test_headers_stamps_and_nesting(published: Any) -> None:
    """All of them."""
    app = make_app()
    message = published(
        app,
        app.signature("ship"),
        trace="t",
        stamped_headers=["order"],
        stamps={"order": ["17"]},
        replaced_task_nesting=2,
    )
    headers = message.headers
    assert headers["trace"] == "t"
    assert (headers["stamped_headers"], headers["stamps"]) == (["order"], {"order": ["17"]})
    assert headers["replaced_task_nesting"] == 2
    assert "stargate_recorded_at" not in headers


def test_its_own_come_first(published: Any) -> None:
    """What the signature says."""
    app = make_app()
    callback = app.signature("ship", headers={"trace": "own"})
    callback.stamp(order="own")
    headers = published(
        app, callback, trace="t", other="o", stamped_headers=["order"], stamps={"order": ["17"]}
    ).headers
    assert (headers["trace"], headers["other"]) == ("own", "o")
    assert headers["stamps"] == {"order": "own"}


@pytest.mark.parametrize("inherit", [True, False])
def test_the_priority(published: Any, inherit: bool) -> None:
    """If `task_inherit_parent_priority` says so."""
    app = make_app(task_inherit_parent_priority=inherit)
    message = published(app, app.signature("ship"), delivery_info={"priority": 7})
    assert message.properties["priority"] == (7 if inherit else 0)


def _group(app: Celery) -> Any:
    return group([app.signature("ship"), app.signature("bill")], app=app)


def _chain(app: Celery) -> Any:
    return chain(app.signature("ship"), _group(app), app=app)


CANVASES: dict[str, Callable[[Celery], Any]] = {
    "group": _group,
    "chain": _chain,
    "chord": lambda app: chord([app.signature("ship")], app.signature("bill"), app=app),
    "group of chains": lambda app: group([_chain(app)], app=app),
    "chord of chains": lambda app: chord([_chain(app)], app.signature("bill"), app=app),
}


@pytest.mark.parametrize("canvas", CANVASES)
def test_the_lineage_of_a_canvas(published: Any, canvas: str) -> None:
    """The tasks that start first have the parent, and all have the root, as those of a link.

    The callback is frozen when the call is recorded, as each is.
    """
    app = make_app()
    packed = freeze_callback("on_ack", CANVASES[canvas](app), app)
    assert packed is not None
    message = published(app, json.loads(packed), root_id="the-root")
    assert (message.headers["root_id"], message.headers["parent_id"]) == ("the-root", "c0")
    for step in message.decode()[2]["chain"] or ():
        for each in step["kwargs"].get("tasks") or [step]:
            assert each["options"].get("root_id", "the-root") == "the-root"
            assert each["options"].get("parent_id", "") is not None


def test_arguments_of_a_canvas_stay() -> None:
    """Also those that have the name of an option."""
    app = make_app()
    given = {"root_id": None, "parent_id": None}
    packed = freeze_callback(
        "on_ack", group([app.signature("ship", (given,), given)], app=app), app
    )
    assert packed is not None
    [task] = json.loads(packed)["kwargs"]["tasks"]
    assert (task["args"], task["kwargs"]) == ([given], given)


def test_a_group(published: Any) -> None:
    """Each of its tasks."""
    app = make_app()
    callback = group([app.signature("ship")], app=app)
    headers = published(
        app, callback, root_id="the-root", stamped_headers=["order"], stamps={"order": ["17"]}
    ).headers
    assert (headers["root_id"], headers["parent_id"]) == ("the-root", "c0")
    assert headers["stamps"] == {"order": ["17"]}


def test_a_task_without_a_priority(published: Any) -> None:
    """Gives its callback none, whatever the setting says."""
    app = make_app(task_inherit_parent_priority=True)
    given: list[dict[str, Any]] = [{}, {"delivery_info": {}}, {"delivery_info": None}]
    for fields in given:
        message = published(app, app.signature("ship"), **fields)
        assert message.properties.get("priority") in {0, None}
