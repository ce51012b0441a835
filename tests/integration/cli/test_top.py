"""``top`` on a terminal: it draws, and ends on q."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celery_stargate import Stargate
from celery_stargate.cli import top as top_module
from celery_stargate.lanes.lane import Lane
from celery_stargate.operations.views import LaneView, StatusView, TopView
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.integration.rig import WAIT
from tests.servers.fixtures import ServerAddress

_PROGRAM = """
import sys
from celery import Celery
from celery.bin.base import CLIContext
from celery_stargate import Stargate
from celery_stargate.cli.main import stargate
app = Celery("top", broker=sys.argv[1], backend=sys.argv[1])
app.conf.stargate_url = "ws://127.0.0.1:1"
app.conf.stargate_prefix = sys.argv[2]
Stargate(app)
stargate(["top", "--interval", "60s"], obj=CLIContext(app, no_color=False, workdir=None))
"""


def test_draws_and_ends_on_q(
    make_app: MakeApp, redis_server: ServerAddress, prefix: str, topic: str, tmp_path: Path
) -> None:
    put(Stargate.of(make_app("ws://127.0.0.1:1")).lanes, Lane(topic), "a")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, redis_server.url, prefix],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "100", "LINES": "20"},
    )
    os.close(theirs)
    try:
        seen = _read_until(ours, b"#0")
        assert b"\x1b[?1049h" in seen
        assert b"q quits" in seen
        os.write(ours, b"q")
        assert b"\x1b[?1049l" in _read_until(ours, b"\x1b[?1049l")
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, wanted: bytes) -> bytes:
    seen, end = b"", time.monotonic() + WAIT
    while wanted not in seen:
        left = end - time.monotonic()
        ready, _, _ = select.select([terminal], [], [], max(0.0, left))
        assert ready, f"not within {WAIT:g} s: {wanted!r} in {seen!r}"
        seen += os.read(terminal, 65536)
    return seen


def test_one_screen_where_there_is_no_terminal(run: Run, make_app: MakeApp, topic: str) -> None:
    app = make_app("ws://127.0.0.1:1")
    put(Stargate.of(app).lanes, Lane(topic), "a")
    ran = run("top", app=app)
    assert ran.code == 0
    assert "backlog 1 " in ran.out
    assert "\x1b" not in ran.out


def test_one_look_for_programs(run: Run, make_app: MakeApp, topic: str) -> None:
    """The forms of ``status`` and ``lanes``; the fullest lane comes first."""
    app = make_app("ws://127.0.0.1:1", lanes=2)
    for index, context in ((0, "a"), (1, "b"), (1, "c")):
        put(Stargate.of(app).lanes, Lane(topic, index), context)
    for arguments in (("top", "--json"), ("top", "--once", "--json")):
        found = run(*arguments, app=app).json
        assert tuple(found) == TopView.__struct_fields__
        assert tuple(found["status"]) == StatusView.__struct_fields__
        assert found["status"]["backlog"] == 3
        assert [lane["lane"] for lane in found["lanes"]] == [f"{topic}#1", f"{topic}#0"]
        assert tuple(found["lanes"][0]) == LaneView.__struct_fields__


def test_draws_again_and_again_until_it_is_ended(
    run: Run, make_app: MakeApp, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each screen shows what there is then."""
    app = make_app("ws://127.0.0.1:1")
    outbox = Stargate.of(app).lanes
    put(outbox, Lane(topic), "a")
    drawn: list[str] = []
    terminal: Any = SimpleNamespace(
        isatty=lambda: True, write=drawn.append, flush=lambda: None, fileno=lambda: 0
    )
    waits: list[float] = []

    def pressed(keys: Any, seconds: float) -> bool:
        waits.append(seconds)
        put(outbox, Lane(topic), f"b{len(waits)}")
        return len(waits) == 3

    monkeypatch.setattr(top_module, "sys", SimpleNamespace(stdin=terminal, stdout=terminal))
    monkeypatch.setattr(top_module, "_screen", lambda *_: nullcontext())
    monkeypatch.setattr(top_module, "_pressed_q", pressed)
    assert run("top", "--interval", "1s", app=app).code == 0
    assert waits == [1.0, 1.0, 1.0]
    assert len(drawn) == 3
    for number, screen in enumerate(drawn, 1):
        assert f"backlog {number} " in screen
