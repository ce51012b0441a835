"""``status``, ``lanes``, ``pending``, ``show``, ``workers`` as people and programs read them."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_stargate import Receipt, Stargate
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.record import Record
from celery_stargate.operations.views import ContextView, LaneView, StatusView, WorkerView
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put


@pytest.fixture
def lane(stargate: Stargate, topic: str) -> Lane:
    """A lane with three messages."""
    lane = Lane(topic)
    for context in "abc":
        put(stargate.lanes, lane, context, timeout=86_400.0)
    return lane


def test_status_shows_totals_and_rates(run: Run, lane: Lane) -> None:
    ran = run("status", "--interval", "0.05")
    assert ran.code == 0
    assert "backlog         3 messages (3 unsent, 0 sent)" in ran.out
    assert "lanes           1 (1 with work and no owner, 0 paused)" in ran.out
    assert "0/s recorded, 0/s done" in ran.out


def test_status_as_json_has_the_documented_fields(run: Run, lane: Lane) -> None:
    found = run("status", "--json", "--interval", "0").json
    assert tuple(found) == StatusView.__struct_fields__
    assert (found["backlog"], found["rates"]) == (3, None)


def test_lanes_lists_each_lane(run: Run, lane: Lane) -> None:
    title, row = run("lanes").out.splitlines()
    assert title.split() == [
        "LANE",
        "OWNER",
        "BACKLOG",
        "UNSENT",
        "SENT",
        "SETTLED",
        "OLDEST",
        "DEADLINE",
    ]
    assert row.split()[:6] == [lane.name, "nobody", "3", "3", "0", "0"]
    [found] = run("lanes", "--json").lines
    assert tuple(found) == LaneView.__struct_fields__
    assert run("lanes", "--topic", "other").out == "There are no lanes.\n"


def test_pending_says_that_there_are_more(run: Run, lane: Lane) -> None:
    ran = run("pending", "--limit", "2")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["CONTEXT", "a", "b", "There"]
    assert "first 2" in ran.out
    assert "There are more" not in run("pending", "--limit", "3").out


def test_pending_as_json_is_one_context_a_line(run: Run, lane: Lane) -> None:
    found = run("pending", "--json", "--limit", "0").lines
    assert [each["context"] for each in found] == ["a", "b", "c"]
    assert tuple(found[0]) == ContextView.__struct_fields__
    assert run("pending", "--json", "--state", "settled").out == ""
    assert run("pending", "--json", "--older-than", "1h").out == ""


def test_show_tells_of_one_context(run: Run, lane: Lane) -> None:
    ran = run("show", "b")
    assert ran.code == 0
    assert "state           unsent (no owner has sent it yet)" in ran.out
    assert "number          2 (at most 1 before it)" in ran.out
    assert run("show", "b", "--json").json["number"] == 2


def test_show_of_an_unknown_context_says_where_to_look(run: Run, lane: Lane) -> None:
    ran = run("show", "nothere")
    assert ran.code == 1
    assert "no lane has the context 'nothere'" in ran.err
    assert "result backend" in ran.err


def test_workers_says_when_there_is_none(run: Run, lane: Lane) -> None:
    assert "No worker is alive" in run("workers").out


def test_workers_as_json_has_the_documented_fields(run: Run, app: Celery, lane: Lane) -> None:
    from celery_stargate import Acknowledger
    from tests.integration.rig import wait_for

    with Acknowledger(app):
        [found] = wait_for(lambda: run("workers", "--json").lines)
    assert tuple(found) == WorkerView.__struct_fields__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pending", "--older-than", "5x"], "30s, 5m, 2h, 7d or 2w"),
        (["pending", "--topic", "a b"], "white space"),
        (["pending", "--state", "lost"], "unsent"),
        (["pending", "--limit", "-1"], "--limit"),
        (["nothing"], "No such command"),
    ],
)
def test_a_wrong_argument_is_a_sentence_and_code_2(
    run: Run, arguments: list[str], words: str
) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert words in ran.err


def test_an_app_without_a_stargate_is_told_how_to_name_one(run: Run) -> None:
    ran = run("status", app=Celery("default", set_as_current=False))
    assert ran.code == 2
    assert "celery -A shop stargate" in ran.err


def test_a_wrong_setting_is_told_with_the_nearest_name(run: Run, make_app: MakeApp) -> None:
    ran = run("status", app=make_app(conf={"stargate_topik": "x"}))
    assert ran.code == 2
    assert "stargate_topic" in ran.err


def test_a_redis_that_is_away_is_one_sentence(run: Run, make_app: MakeApp) -> None:
    ran = run("status", app=make_app(redis_url="redis://:secret@127.0.0.1:1/0"))
    assert ran.code == 1
    assert ran.err.startswith("Error: Redis does not answer")
    assert "secret" not in ran.out + ran.err


@pytest.mark.parametrize("command", ["status", "lanes", "pending", "show", "workers"])
def test_help_has_examples(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert f"celery -A shop stargate {command}" in ran.out


def test_show_tells_what_follows_and_what_became_of_a_list(
    run: Run, lane: Lane, app: Celery
) -> None:
    """Its task, its callbacks, and the outcomes of the messages that have one."""
    outbox = Stargate.of(app).lanes
    record = Record("list", is_list=True, task="shop.orders", on_error="no signature")
    outbox.put(lane, record, [("list\t0", b"{}"), ("list\t1", b"{}")], timeout=60.0)
    outbox.settle(lane, Receipt(context="list", topic=lane.topic, ledger_id=1), place=0)
    shown = run("show", "list").out
    assert "shop.orders" in shown
    assert "status=stored" in shown
    outbox.put(CONTEXTS_LANE, Record("bare"), [], timeout=60.0)
    assert "\nnumber" not in run("show", "bare").out
