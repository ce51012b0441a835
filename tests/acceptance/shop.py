"""The Django example as a process: `manage.py runserver`, a worker, and its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.acceptance.rig import WAIT, eventually
from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess, listening

__all__ = ["Shop"]

_ROOT = Path(__file__).parents[2]
_DJANGO = _ROOT / "examples" / "django_shop"


class Shop:
    """The Django project on a database and a topic of its own.

    Args:
        folder: for the database, the settings and logs.
        redis_url, pulsar_url: as its settings read them from the environment.
        more: lines for the end of its settings.
    """

    def __init__(self, folder: Path, redis_url: str, pulsar_url: str, more: str = "") -> None:
        self.topic = f"persistent://public/default/django-{uuid.uuid4().hex[:12]}"
        self.invoices = f"{self.topic}-invoices"
        topics = {"orders": self.topic, "invoices": self.invoices}
        settings = f"shop_settings_{uuid.uuid4().hex[:8]}"
        (folder / f"{settings}.py").write_text(
            "from shop.settings import *\n"
            f"DATABASES['default']['NAME'] = {str(folder / 'shop.sqlite3')!r}\n"
            f"CELERY_STARGATE_TOPICS = {topics!r}\n{more}"
        )
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (_ROOT, folder, _DJANGO))),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": settings,
            "REDIS_URL": redis_url,
            "STARGATE_URL": pulsar_url,
        }
        self._port = free_ports(1)[0]
        self.server = self._process(
            folder / "server.log", "manage.py", "runserver", "--noreload", f"127.0.0.1:{self._port}"
        )
        self.worker = self._process(
            folder / "worker.log", "-m", "celery", "-A", "shop", "worker", "-l", "INFO", "-c", "2"
        )

    def _process(self, log: Path, *arguments: str) -> ServerProcess:
        command = [sys.executable, *arguments]
        return ServerProcess(log.stem, command, log_path=log, env=self._env, cwd=_DJANGO)

    @property
    def url(self) -> str:
        """The shop's page."""
        return f"http://127.0.0.1:{self._port}/"

    def manage(self, *arguments: str) -> str:
        """Run a command of `manage.py`, and return what it prints."""
        return self._run("manage.py", *arguments)

    def celery(self, *arguments: str) -> str:
        """Run a command of its Celery app, and return what it prints."""
        return self._run("-m", "celery", "-A", "shop", *arguments)

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command,
            env=self._env,
            cwd=_DJANGO,
            timeout=WAIT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def start(self, *, worker: bool) -> None:
        """Make the database, start the web server, and a worker where one is wanted."""
        self.manage("migrate")
        self.server.start(lambda: listening(self._port), timeout=30)
        if worker:
            self.worker.start(lambda: " ready." in self.worker.log_path.read_text(), timeout=45)

    def stop(self) -> None:
        """End both."""
        self.worker.stop()
        self.server.stop()

    def request(self, path: str, form: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """GET a path, or POST a form to it: the status and the JSON of the answer."""
        data = urlencode(form).encode() if form is not None else None
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._port}{path}", data, timeout=WAIT
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            assert error.headers["Content-Type"] == "application/json", body[:3000]
            return error.code, json.loads(body)

    def order(self, number: int) -> dict[str, Any]:
        """An order as its view shows it."""
        return self.request(f"/orders/{number}/")[1]

    def settled(self, number: int) -> dict[str, Any]:
        """An order, once it is no longer new."""
        eventually(lambda: self.order(number)["status"] != "new")
        return self.order(number)
