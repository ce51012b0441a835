"""The real web servers: one that is restarted publishes at once, because it gave its lanes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from celery_stargate.testing import LocalPulsar
from tests.integration.rig import elapsed, wait_for
from tests.integration.test_exit import require_given_back
from tests.integration.web.gunicorn_conf import READY
from tests.servers.fixtures import ServerAddress
from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess

_PROGRAMS = Path(sys.executable).parent
_ROOT = Path(__file__).parents[3]
_SITE = "tests.integration.web.site"
_GUNICORN = (
    "gunicorn --config python:tests.integration.web.gunicorn_conf --workers 2 "
    "--bind 127.0.0.1:{port}"
)

#: How each server is started.
SERVERS = {
    "uvicorn": f"uvicorn --loop uvloop --port {{port}} {_SITE}:closing",
    # Without a lifespan it ends itself by the signal, before Python's exit handlers.
    "uvicorn-bare": f"uvicorn --loop asyncio --port {{port}} {_SITE}:asgi",
    "uvicorn-workers": f"uvicorn --port {{port}} --workers 2 {_SITE}:closing",
    "hypercorn": f"hypercorn --bind 127.0.0.1:{{port}} {_SITE}:asgi",
    "gunicorn-sync": f"{_GUNICORN} {_SITE}:wsgi",
    "gunicorn-preload": f"{_GUNICORN} --preload {_SITE}:wsgi",
    "gunicorn-gthread": f"{_GUNICORN} --worker-class gthread --threads 4 {_SITE}:wsgi",
    "gunicorn-gevent": f"{_GUNICORN} --worker-class gevent {_SITE}:wsgi",
    "gunicorn-uvicorn": f"{_GUNICORN} --worker-class uvicorn_worker.UvicornWorker {_SITE}:closing",
    "uwsgi": f"uwsgi --http-socket 127.0.0.1:{{port}} --master --processes 2 --enable-threads "
    f"--die-on-term --stats 127.0.0.1:{{stats}} --module {_SITE}:wsgi",
}


class Site:
    """One web server of the site, which may be restarted."""

    def __init__(self, server: str, log: Path, command: str = "", **environ: str) -> None:
        self.port, self._stats = free_ports(2)
        ports = {"port": self.port, "stats": self._stats}
        program, *arguments = (command or SERVERS[server]).format(**ports).split()
        assert shutil.which(program, path=str(_PROGRAMS)), f"{program} is not installed"
        self.log = log
        self._workers = 2 if program == "gunicorn" else 0
        self._tells_stats = "--stats" in arguments
        self.process = ServerProcess(
            server,
            [str(_PROGRAMS / program), *arguments],
            log_path=log,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **environ},
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections, and each worker of gunicorn signals.

        A worker ignores a SIGTERM that comes earlier, and gunicorn kills it 30 s later.
        """
        ready = self._ready_workers() + self._workers
        self.process.start(
            lambda: bool(self.answers()) and self._ready_workers() >= ready, timeout=60
        )

    def _ready_workers(self) -> int:
        """How many workers of gunicorn have said that they are ready, since the first start."""
        return self.log.read_text().count(READY) if self.log.exists() else 0

    def get(self) -> str:
        """Send a request; return the answer."""
        answer = self.answers()
        assert answer, self.log.read_text()
        return answer

    def answers(self) -> str:
        """Send a request; return the answer, or nothing if there is none."""
        try:
            url = f"http://127.0.0.1:{self.port}/"
            with urllib.request.urlopen(url, timeout=40) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def _idle(self) -> bool:
        """Whether no worker of uWSGI is busy, as it says itself."""
        with socket.create_connection(("127.0.0.1", self._stats), 10) as stats:
            told = json.load(stats.makefile())
        return all(worker["status"] == "idle" for worker in told["workers"])

    def end(self, signum: int = signal.SIGTERM) -> None:
        """Send the main process a signal, and wait until it has ended."""
        pid = self.process.pid
        assert pid is not None
        if self._tells_stats:
            # In a worker that has not quite ended its request, uWSGI runs no exit handlers.
            wait_for(self._idle)
        os.kill(pid, signum)
        try:
            wait_for(lambda: not self.process.alive, 30)
        finally:
            self.process.kill()


@pytest.fixture
def environ(
    redis_server: ServerAddress, local: LocalPulsar, topic: str, prefix: str
) -> Iterator[dict[str, str]]:
    """What the site reads."""
    yield {
        "SITE_REDIS": redis_server.url,
        "SITE_PULSAR": local.url,
        "SITE_TOPIC": topic,
        "SITE_PREFIX": prefix,
    }


@pytest.mark.parametrize("server", SERVERS)
def test_a_restarted_server_publishes_at_once(
    server: str,
    environ: dict[str, str],
    redis_server: ServerAddress,
    tmp_path: Path,
) -> None:
    """It ends in time, gives its lanes back, and the next one does not wait for a lease of 30 s."""
    site = Site(server, tmp_path / "log", **environ)
    site.start()
    try:
        assert site.get().startswith("stored")
        with elapsed() as seconds:
            site.end()
        assert seconds() < 15
        if server != "uvicorn-bare":
            require_given_back(redis_server, environ["SITE_PREFIX"], environ["SITE_TOPIC"])
        with elapsed() as seconds:
            site.start()
            assert site.get().startswith("stored")
        assert seconds() < 20
    finally:
        site.process.kill()


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn-sync"])
def test_a_server_that_was_killed_is_not_waited_for(
    server: str, environ: dict[str, str], tmp_path: Path
) -> None:
    """Its successor on the same machine sees that it is gone, and takes its lanes at once."""
    site = Site(server, tmp_path / "log", **environ)
    site.start()
    try:
        site.process.kill()
        with elapsed() as seconds:
            site.start()
            assert site.get().startswith("stored")
        assert seconds() < 20
    finally:
        site.process.kill()


def test_what_was_owned_before_the_fork_is_not_the_childrens(
    environ: dict[str, str], redis_server: ServerAddress, tmp_path: Path
) -> None:
    """A preloaded application that published already: the parent's lanes go on, and come back."""
    site = Site("gunicorn-preload", tmp_path / "log", **environ, SITE_EARLY="1")
    site.start()
    try:
        assert site.get().startswith("stored")
        site.end()
        require_given_back(redis_server, environ["SITE_PREFIX"], environ["SITE_TOPIC"])
    finally:
        site.process.kill()


def test_djangos_runserver(environ: dict[str, str], tmp_path: Path) -> None:
    """Neither after a reload nor after a restart does a request wait for a lease."""
    project = tmp_path / "project.py"
    shutil.copy(Path(__file__).with_name("runserver.py"), project)
    name = Path(sys.executable).name
    site = Site("runserver", tmp_path / "log", f"{name} {project} runserver {{port}}", **environ)
    site.start()
    try:
        before = site.get()
        with elapsed() as seconds:
            # The reloader compares a file with its last look, and may not have had its first.
            end = time.monotonic() + 60
            while site.answers() in ("", before):
                assert time.monotonic() < end, "it was not loaded again"
                project.touch()
                with suppress(AssertionError):
                    wait_for(lambda: site.answers() not in ("", before), 5)
        assert seconds() < 20
        with elapsed() as seconds:
            # The reloader kills its child.
            site.end()
            site.start()
            assert site.get().startswith("stored")
        assert seconds() < 20
    finally:
        site.process.kill()
