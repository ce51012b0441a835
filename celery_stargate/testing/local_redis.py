"""A Redis of a test run's own: `redis-server` in a process, or fakeredis where there is none."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import redis

__all__ = ["LocalRedis", "RedisMissing"]

#: Seconds that it may take to start.
_START_TIMEOUT = 20.0
#: Seconds that it may take to end; one that is frozen does not.
_END_TIMEOUT = 5.0
#: The port may be taken between the choice and the start.
_TRIES = 3
#: What `redis-server` logs when it has the port, and when another process has it.
_LISTENS, _TAKEN = "eady to accept connections", "Failed listening on port"
#: Ends the server when this process closes the pipe, or ends in whatever way; ends with the server.
_UNTIL_CLOSED = """
exec 3<&0
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill "$server"; } &
reader=$!
exec 3<&-
wait "$server"
kill "$reader"
"""


class RedisMissing(RuntimeError):
    """There is no Redis to start: neither `redis-server` nor fakeredis is installed."""


class LocalRedis:
    """A Redis on a free port of 127.0.0.1 that keeps nothing on disk, and ends with this process.

        with LocalRedis() as server:
            app.conf.broker_url = server.url

    Args:
        fake: use fakeredis even where `redis-server` is installed. It is slower.
    """

    def __init__(self, *, fake: bool = False) -> None:
        self._fake = fake
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.url = ""

    @staticmethod
    def missing_reason() -> str | None:
        """Return why no Redis can be started here, and what to do about it; None if one can."""
        if shutil.which("redis-server") or importlib.util.find_spec("fakeredis"):
            return None
        return (
            "there is no Redis for the tests: redis-server is not on PATH, and fakeredis is not "
            "installed. Install one of them (apt-get install redis-server, brew install redis, or "
            'pip install "celery-stargate[testing]"), or name a server with --stargate-redis-url'
        )

    def start(self) -> None:
        """Start it; it answers when this returns.

        Raises:
            RedisMissing: there is none to start.
            RuntimeError: it did not start; the text holds the end of its log.
        """
        missing = self.missing_reason()
        if missing:
            raise RedisMissing(missing)
        self._folder = tempfile.TemporaryDirectory(prefix="stargate-redis-")
        left = _TRIES
        while True:
            left -= 1
            try:
                return self._start(Path(self._folder.name))
            except RuntimeError:
                self._end_process()
                if not left:
                    self.stop()
                    raise

    def stop(self) -> None:
        """End it. It does nothing if it does not run."""
        self._end_process()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def flush(self) -> None:
        """Delete all keys."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start(self, folder: Path) -> None:
        log = folder / "redis.log"
        server = None if self._fake else shutil.which("redis-server")
        port = _free_port()
        if server is None:
            command = [sys.executable, "-m", "celery_stargate.testing.fake_redis"]
        else:
            command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
            command += ["--appendonly", "no", "--dir", str(folder)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603  # nothing in it is from outside
                ["/bin/sh", "-c", _UNTIL_CLOSED, "redis", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the tests, which end it.
                start_new_session=True,
            )
        end = time.monotonic() + _START_TIMEOUT
        while True:
            text = log.read_text(errors="replace")
            self.url = f"redis://127.0.0.1:{port}/0" if server else text.partition("\n")[0]
            # Another server may have taken the port meanwhile, and would answer too.
            if self.url and (not server or _LISTENS in text) and _answers(self.url):
                return
            ended = self._process.poll() is not None or _TAKEN in text
            if ended or time.monotonic() > end:
                raise RuntimeError(f"Redis did not start:\n{text[-2000:]}")
            time.sleep(0.02)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            # The shell leads a session of its own, which is the server's too.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except (redis.RedisError, ValueError):
        return False
