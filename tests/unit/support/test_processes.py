"""Which names belong to processes that have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celery_stargate.support import processes
from celery_stargate.support.processes import has_ended, name_prefix, process_name

_NAME = "from celery_stargate.support.processes import process_name; print(process_name())"


def test_this_process_has_not_ended() -> None:
    """Each of its names is another one."""
    name = process_name()
    assert name.startswith(name_prefix())
    assert name != process_name()
    assert not has_ended(name)


def test_a_process_that_has_ended() -> None:
    """Though its process id may be another's now, or it was not waited for yet."""
    run = subprocess.run(
        [sys.executable, "-c", _NAME], capture_output=True, text=True, check=True, timeout=60
    )
    assert has_ended(run.stdout.strip())
    host, _, rest = process_name().rpartition(f"-{os.getpid()}-")
    machine, begin, token = rest.split(".")
    assert has_ended(f"{host}-{os.getpid()}-{machine}.{int(begin) - 1}.{token}")
    with subprocess.Popen(
        [sys.executable, "-c", _NAME], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        name = child.stdout.read().strip()
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None
        assert has_ended(name)


@pytest.mark.parametrize(
    "name",
    ["", "w1", "host-1-x", "host-1-2", f"host-1-{'0' * 16}.1.{'0' * 32}", "a-\udcff-1-0.0.0"],
)
def test_a_process_that_nobody_here_can_tell_of(name: str) -> None:
    """One of another machine may be alive, and so may one of an older version of this package."""
    assert not has_ended(name)


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process counts as ended, and names are still unique."""
    name = process_name()
    monkeypatch.setattr(processes, "Path", lambda *_: _Nothing())
    assert process_name() != process_name()
    assert not has_ended(name)


def test_a_process_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """``/proc`` may be mounted so that it hides them: one that is hidden may be alive."""
    run = subprocess.run(
        [sys.executable, "-c", _NAME], capture_output=True, text=True, check=True, timeout=60
    )
    alive, ended = process_name(), run.stdout.strip()
    monkeypatch.setattr(processes, "Path", _without_stat)
    assert not has_ended(alive)
    assert has_ended(ended)


def test_a_process_that_cannot_read_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that has too many files open then: nobody takes it for another one later."""
    with monkeypatch.context() as patches:
        patches.setattr(processes, "Path", _without_stat)
        name = process_name()
    assert not has_ended(name)


def _without_stat(text: str) -> Path | _Nothing:
    return _Nothing() if text.endswith("/stat") else Path(text)


class _Nothing:
    """A path that cannot be read."""

    def read_bytes(self) -> bytes:
        raise FileNotFoundError
