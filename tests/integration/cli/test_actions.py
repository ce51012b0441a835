"""The commands that change something: they ask, they tell, and their exit codes can be used."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_stargate import Receipt, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put


@pytest.fixture
def app(make_app: MakeApp) -> Celery:
    """An app whose Pulsar is away."""
    return make_app("ws://127.0.0.1:1")


@pytest.fixture
def outbox(app: Celery) -> Outbox:
    """The lanes, as callers use them."""
    return Stargate.of(app).lanes


@pytest.fixture
def lane(outbox: Outbox, topic: str) -> Lane:
    """A lane with three messages."""
    lane = Lane(topic)
    for context in "abc":
        put(outbox, lane, context)
    return lane


def test_cancel_asks(run: Run, lane: Lane, outbox: Outbox) -> None:
    ran = run("cancel", "a", stdin="n\n")
    assert ran.code == 1
    assert "Cancel 1 contexts (a)?" in ran.err
    assert outbox.backlog(lane) == 3
    assert run("cancel", "a", stdin="y\n").code == 0
    assert outbox.backlog(lane) == 2


def test_cancel_by_filter(run: Run, lane: Lane, outbox: Outbox, topic: str) -> None:
    ran = run("cancel", "--topic", topic, "--all", "--dry-run")
    assert ran.out.split() == ["a", "b", "c"]
    assert "nothing was changed" in ran.err
    assert run("cancel", "a", "--dry-run", "--json").lines == [{"context": "a"}]
    assert outbox.backlog(lane) == 3
    assert run("cancel", "--topic", "other", "--all", "--yes").out == "No context matches.\n"
    ran = run("cancel", "--topic", topic, "--all", "--yes", "--json")
    assert [each["status"] for each in ran.lines] == ["refused"] * 3
    assert outbox.backlog(lane) == 0


def test_the_exit_code_says_that_one_was_not_done(run: Run, lane: Lane) -> None:
    ran = run("cancel", "a", "nothere", "--yes")
    assert ran.code == 1
    assert "no lane has it" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cancel"], "--all with filters"),
        (["cancel", "a", "--all"], "not both"),
        (["retry", "--older-than", "5m"], "give --all, too"),
        (["release", "a"], "--stored or --refused"),
        (["pause", "orders", "--for", "0s"], "more than 0"),
    ],
)
def test_says_what_is_missing(run: Run, arguments: list[str], words: str) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert words in ran.err


def test_release_and_retry(run: Run, lane: Lane, outbox: Outbox) -> None:
    assert "stored" in run("release", "--stored", "a", "--yes").out
    outbox.settle(lane, Receipt(context="b"))
    assert run("retry", "--all", "--yes", "--json").lines == [
        {"context": "b", "result": "done", "status": "stored"}
    ]
    ran = run("retry", "c", "--yes")
    assert ran.code == 1
    assert "no outcome yet" in ran.out


def test_drain_waits_until_nothing_is_pending(run: Run, lane: Lane) -> None:
    ran = run("drain", "--timeout", "0.05", "--every", "0.01")
    assert ran.code == 1
    assert "3 contexts are pending" in ran.err
    run("cancel", "--all", "--yes")
    assert run("drain", "--timeout", "5s").out.startswith("Nothing is pending")
    assert run("drain", "--json").json["done"] is True


def test_pause_and_resume(run: Run, lane: Lane, topic: str) -> None:
    assert run("pause", topic, stdin="n\n").code == 1
    ran = run("pause", topic, "--for", "10m", "--yes")
    assert ran.out == f"paused: {lane.name}\n"
    assert "paused by" in run("lanes").out
    assert run("status", "--json", "--interval", "0").json["lanes_paused"] == 1
    assert run("resume", topic, stdin="n\n").code == 1
    assert run("resume", topic, stdin="y\n").out == f"resumed: {lane.name}\n"
    assert run("resume", topic, "--yes").out == f"{topic} was not paused.\n"


def test_drain_for_programs(run: Run, make_app: MakeApp, topic: str) -> None:
    """One object at the end, whatever it waited for; nothing beside it."""
    app = make_app("ws://127.0.0.1:1")
    put(Stargate.of(app).lanes, Lane(topic), "a")
    ran = run("drain", "--timeout", "0.05s", "--every", "0.01s", "--json", app=app)
    assert ran.code == 1
    assert (ran.json["done"], ran.json["contexts"]) == (False, 1)
    assert ran.err == ""


def test_pause_and_resume_for_programs(run: Run, make_app: MakeApp, topic: str) -> None:
    """The lanes, as one object."""
    app = make_app("ws://127.0.0.1:1")
    put(Stargate.of(app).lanes, Lane(topic), "a")
    name = Lane(topic).name
    assert run("pause", topic, "--yes", "--json", app=app).json == {"paused": [name]}
    assert run("resume", topic, "--yes", "--json", app=app).json == {"resumed": [name]}
