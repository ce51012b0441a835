"""``celery -A … stargate``: Celery's own command finds ours, by its entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.servers.fixtures import ServerAddress, require

_APP = """
import os
from celery import Celery
from celery_stargate import Stargate

app = Celery("shop", broker=os.environ["SHOP_REDIS"], backend=os.environ["SHOP_REDIS"])
app.conf.stargate_url = "ws://127.0.0.1:1"
app.conf.stargate_prefix = "acceptance-commands"
Stargate(app)
"""


def _installed() -> str | None:
    if any(each.name == "stargate" for each in entry_points(group="celery.commands")):
        return None
    return "celery-stargate is not installed with its entry points: pip install -e ."


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["stargate", "--help"], 0, "doctor"),
        (["stargate", "status", "--interval", "0"], 0, "backlog"),
        (["stargate", "pending", "--older-than", "soon"], 2, "no duration"),
        (["stargate", "doctor"], 2, "pulsar-connection"),
        (["--help"], 0, "stargate"),
    ],
)
def test_celery_finds_the_commands(
    tmp_path: Path, redis_server: ServerAddress, arguments: list[str], code: int, words: str
) -> None:
    ran = _run(tmp_path, redis_server, arguments)
    assert ran.returncode == code, ran.stderr
    assert words in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["produce", "--topic", "a"], 2, "standard input is closed; give MESSAGE or --file"),
        (["dead", "restore", "-"], 2, "standard input is closed; give the name of a file"),
        (["pause", "a"], 2, "standard input is closed; give --yes"),
        (["top"], 0, "LANE"),
    ],
)
def test_standard_input_that_is_closed(
    tmp_path: Path, redis_server: ServerAddress, arguments: list[str], code: int, words: str
) -> None:
    """Python has no ``sys.stdin`` then."""
    ran = _run(tmp_path, redis_server, ["stargate", *arguments], "sh", "-c", 'exec "$@" <&-', "sh")
    assert ran.returncode == code, ran.stderr
    assert words in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def _run(
    folder: Path, redis: ServerAddress, arguments: list[str], *through: str
) -> subprocess.CompletedProcess[str]:
    require(_installed())
    (folder / "shop.py").write_text(_APP)
    command = [sys.executable, "-m", "celery", "-A", "shop", "--workdir", str(folder), *arguments]
    return subprocess.run(
        [*through, *command],
        env={**os.environ, "SHOP_REDIS": redis.url},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
