"""Remote control: asked through the broker, answered by a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from celery import Celery
from celery.worker.control import Panel

from celery_stargate import Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.operations.doctor.peers import PeerSettings
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.reading import LaneReader
from celery_stargate.operations.views import LaneView, StatusView
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put


def ask(name: str, app: Celery, **arguments: Any) -> Any:
    """Ask as the worker's mailbox does."""
    return Panel.data[name](SimpleNamespace(app=app), **arguments)


@pytest.fixture
def app(make_app: MakeApp, topic: str) -> Celery:
    """An app with one message that waits."""
    app = make_app("ws://127.0.0.1:1")
    put(Stargate.of(app).lanes, Lane(topic), "a")
    return app


def test_status_and_lanes_have_the_fields_of_the_commands(app: Celery, topic: str) -> None:
    status = ask("stargate_status", app)
    assert tuple(status) == StatusView.__struct_fields__
    assert status["backlog"] == 1
    [lane] = ask("stargate_lanes", app)
    assert tuple(lane) == LaneView.__struct_fields__
    assert lane["lane"] == f"{topic}#0"


def test_settings_are_those_that_doctor_compares(app: Celery, prefix: str, topic: str) -> None:
    found = msgspec.convert(ask("stargate_settings", app), PeerSettings)
    assert (found.prefix, found.lanes) == (prefix, {topic: 1})
    assert found.redis_id


def test_pauses_and_resumes_a_topic(app: Celery, topic: str) -> None:
    stargate = Stargate.of(app)
    reader = LaneReader(
        stargate.runtime.connections.sync(), stargate.settings.prefix, lambda lane, waits: 60.0
    )
    assert ask("stargate_pause", app, topic=topic) == {"ok": {"paused": [f"{topic}#0"]}}
    assert LaneInspector(reader).status().lanes_paused == 1
    assert ask("stargate_resume", app, topic=topic) == {"ok": {"resumed": [f"{topic}#0"]}}
    assert LaneInspector(reader).status().lanes_paused == 0


@pytest.mark.parametrize("name", ["stargate_status", "stargate_lanes", "stargate_dead"])
def test_a_redis_that_is_away_is_an_error_in_the_reply(make_app: MakeApp, name: str) -> None:
    app = make_app("ws://127.0.0.1:1", redis_url="redis://127.0.0.1:1/0")
    assert "127.0.0.1:1" in ask(name, app)["error"]


def test_a_wrong_topic_is_an_error_in_the_reply(app: Celery) -> None:
    assert "white space" in ask("stargate_pause", app, topic="a b")["error"]
    assert "white space" in ask("stargate_resume", app, topic="a b")["error"]


def test_the_commands_are_known_to_the_one_who_asks() -> None:
    for name in ("stargate_status", "stargate_lanes", "stargate_dead"):
        assert Panel.meta[name].type == "inspect"
    for name in ("stargate_pause", "stargate_resume"):
        assert Panel.meta[name].type == "control"
        assert str(Panel.meta[name].signature).startswith("TOPIC")
