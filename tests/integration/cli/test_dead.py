"""``celery stargate dead …``: what people and programs get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_stargate import Failure, Stargate
from celery_stargate.cli import dead
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.operations.audit import Audit
from celery_stargate.operations.dead_letters import DeadLetters
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp

SECRET = "c2VjcmV0"


@pytest.fixture
def app(make_app: MakeApp, topic: str) -> Celery:
    """An app with four dead letters of two causes."""
    app = make_app("ws://127.0.0.1:1", topics={"orders": topic}, topic="orders")
    stargate, lane = Stargate.of(app), Lane(topic)
    for context, code in (("a", "http-404"), ("b", "http-404"), ("c", "http-404"), ("d", "x")):
        frame = f'{{"payload":"{SECRET}","context":"{context}"}}'.encode()
        stargate.lanes.put(lane, Record(context), [(context, frame)], timeout=60.0)
        failed = Failure(context=context, topic=topic, code=code, reason="HTTP 404: not found")
        answer = stargate.lanes.settle(lane, failed, anyone=True)
        assert answer.settled is not None
        stargate.lanes.finish(lane, [answer.settled])
    return app


def test_list(run: Run, topic: str) -> None:
    """As a table, as JSON, and by cause; never a payload."""
    ran = run("dead", "list")
    assert ran.code == 0
    assert "http-404" in ran.out
    assert SECRET not in ran.out
    rows = run("dead", "list", "--topic", "orders", "--error", "http-404", "--json").lines
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert {row["topic"] for row in rows} == {topic}
    assert len(run("dead", "list", "--limit", "2", "--json").lines) == 2
    assert run("dead", "list", "--older-than", "1h").out.strip() == "No dead letter matches."
    causes = run("dead", "list", "--by-cause", "--json").lines
    assert [(row["code"], row["count"]) for row in causes] == [("http-404", 3), ("x", 1)]
    assert "4 dead letters" in run("dead", "list", "--by-cause").err


def test_a_name_that_no_error_has(run: Run) -> None:
    """The nearest one is named."""
    ran = run("dead", "list", "--error", "htp-404")
    assert "did you mean 'http-404'" in ran.err


def test_show(run: Run) -> None:
    """All that is known, without the payload."""
    found = run("dead", "show", "a", "--json")
    assert found.json["reason"] == "HTTP 404: not found"
    assert found.json["replayable"] is True
    assert SECRET not in found.out
    assert "http-404" in run("dead", "show", "a").out
    missing = run("dead", "show", "nothing")
    assert (missing.code, "there is no dead letter" in missing.err) == (1, True)


def test_replay(run: Run, app: Celery, topic: str) -> None:
    """It says what it would do, asks, does it, and is logged."""
    stargate = Stargate.of(app)
    dry = run("dead", "replay", "--error", "http-404", "--all", "--dry-run")
    assert (dry.out.split(), "3 dead letters; nothing" in dry.err) == (["a", "b", "c"], True)
    assert run("dead", "replay", "a", "--dry-run", "--json").lines == [{"id": "a"}]
    assert run("dead", "replay", "a", stdin="n\n").code == 1
    assert stargate.lanes.backlog(Lane(topic)) == 0
    ran = run("dead", "replay", "--error", "http-404", "--all", "--yes", "--json")
    assert ran.lines == [{"id": each, "result": "done"} for each in "abc"]
    assert stargate.lanes.backlog(Lane(topic)) == 3
    assert [row["id"] for row in run("dead", "list", "--json").lines] == ["d"]
    again = run("dead", "replay", "a", "--yes")
    assert (again.code, "there is no such dead letter" in again.out) == (1, True)
    dead = stargate.dead_letters
    last = Audit(dead._reader.redis, dead._reader.registry).last(2)  # noqa: SLF001
    assert {each.what for each in last} == {"dead replay", "dead replay ended"}
    assert last[1].details["letters"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give ids"),
        (("a", "--all"), "not both"),
        (("--error", "x"), "--all, too"),
        (("--topic", "nowhere", "--all"), "nowhere"),
    ],
)
def test_what_is_meant_must_be_clear(run: Run, arguments: tuple[str, ...], words: str) -> None:
    """Or nothing is done."""
    ran = run("dead", "discard", *arguments)
    assert (ran.code, words in ran.err) == (2, True), ran.err


def test_archive_and_restore(run: Run, tmp_path: Path) -> None:
    """A file that only its owner can read, and that is not overwritten."""
    file = tmp_path / "dead.jsonl"
    assert run("dead", "archive", "--all", "--to", str(file), stdin="n\n").code == 1
    # The next try may name it again.
    assert not file.exists()
    assert run("dead", "archive", "--all", "--to", str(file), "--yes").code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_bytes().splitlines()) == 4
    assert run("dead", "list").out.strip() == "No dead letter matches."
    dry = run("dead", "restore", str(file), "--dry-run", "--json")
    assert dry.err.startswith("4 dead letters")
    assert dry.json == {"restored": 0, "given": 4}
    assert run("dead", "restore", str(file), "--yes", "--json").json == {"restored": 4, "given": 4}
    assert len(run("dead", "list", "--json").lines) == 4
    assert "0 of 4 dead letters are back" in run("dead", "restore", str(file), "--yes").out
    again = run("dead", "archive", "--all", "--to", str(file), "--yes")
    assert (again.code, "there already" in again.err) == (2, True)
    file.write_text("{}\n")
    assert run("dead", "restore", str(file), "--yes").code == 2
    file.write_text("torn")
    assert "line 1" in run("dead", "restore", str(file), "--yes").err


@pytest.mark.parametrize("wrong", ["{}", '{"lane": "nowhere"}', "torn"])
@pytest.mark.parametrize("option", ["--json", "--dry-run"])
def test_restore_checks_all_lines_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, option: str
) -> None:
    """A wrong one is named, as an editor counts, and nothing is restored before it."""
    monkeypatch.setattr(dead, "_LINES", 2)
    file = tmp_path / "dead.jsonl"
    assert run("dead", "archive", "--all", "--to", str(file), "--yes").code == 0
    lines = file.read_text().splitlines()
    whole = json.loads(lines[0])
    wrong = json.dumps({**whole, **json.loads(wrong)}) if "nowhere" in wrong else wrong
    file.write_text("\n".join((*lines[:3], "", wrong, lines[3])))
    ran = run("dead", "restore", str(file), "--yes", option)
    assert (ran.code, ran.out) == (2, "")
    assert f"line 5 of {file} is not" in ran.err
    assert "nothing was restored" in ran.err
    assert run("dead", "list", "--json").lines == []


def test_restore_that_redis_interrupts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how many are back, and may be repeated."""
    monkeypatch.setattr(dead, "_LINES", 3)
    file = tmp_path / "dead.jsonl"
    assert run("dead", "archive", "--all", "--to", str(file), "--yes").code == 0
    restore = DeadLetters.restore

    def once(self: DeadLetters, archived: Sequence[Any]) -> int:
        if len(archived) < 3:
            raise RedisConnectionError("away")
        return restore(self, archived)

    with monkeypatch.context() as patch:
        patch.setattr(DeadLetters, "restore", once)
        ran = run("dead", "restore", str(file), "--yes", "--json")
    assert (ran.code, ran.json) == (1, {"restored": 3, "given": 4})
    assert "at least 3 of 4 dead letters are back. Run it again" in ran.err
    assert run("dead", "restore", str(file), "--yes", "--json").json["restored"] == 1
    assert len(run("dead", "list", "--json").lines) == 4


def test_discard(run: Run) -> None:
    """For good."""
    assert run("dead", "discard", "d", "--yes").code == 0
    assert run("dead", "show", "d").code == 1


def test_filters_that_match_nothing(run: Run) -> None:
    """Say which errors there are, if none of them was meant; and nothing else."""
    ran = run("dead", "replay", "--error", "htp-404", "--all", "--yes")
    assert "did you mean 'http-404'" in ran.err
    quiet = run("dead", "replay", "--error", "http-404", "--older-than", "1h", "--all", "--yes")
    assert "No dead letter has the error" not in quiet.err
    assert run("dead", "discard", "--all", "--yes").code == 0
    none = run("dead", "list", "--error", "http-404")
    assert "No dead letter has the error" not in none.err


def test_causes_have_no_age(run: Run) -> None:
    """What is counted is all of a cause."""
    ran = run("dead", "list", "--by-cause", "--older-than", "1h")
    assert ran.code == 2
    assert "leave --older-than out" in ran.err


def test_restore_for_programs_and_after_a_question(run: Run, tmp_path: Path) -> None:
    """It says how many are back; without an answer nothing is."""
    archive = tmp_path / "dead.jsonl"
    assert run("dead", "archive", "--all", "--yes", "--to", str(archive)).code == 0
    assert run("dead", "restore", str(archive), stdin="n\n").code == 1
    assert run("dead", "list", "--json").lines == []
    tried = run("dead", "restore", str(archive), "--dry-run", "--json")
    assert tried.json == {"restored": 0, "given": 4}
    assert run("dead", "restore", str(archive), "--dry-run").out == ""
    done = run("dead", "restore", str(archive), "--json", stdin="y\n")
    assert '"restored":4' in done.out.replace(" ", "")
    assert len(run("dead", "list", "--json").lines) == 4
