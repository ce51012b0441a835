"""What the tests of the outbox are made with, over real lanes in Redis."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from celery import Celery
from django.conf import settings
from django.db import transaction
from django.test import override_settings

from celery_stargate import Stargate
from celery_stargate.contrib.django import outbox
from celery_stargate.contrib.django.rows import outbox_rows
from celery_stargate.lanes.lane import Lane
from tests.alone import forget, own_names
from tests.django_project.settings import DATABASES_VARIABLE, SETTINGS_VARIABLE

__all__ = ["STEPS", "OutboxRig"]

_ROOT = Path(__file__).parents[2]

#: Where `dying_relay` can die.
STEPS = ("leased", "read", "half-put", "put", "half-marked", "marked")

#: A short lease: tests wait for it to end.
LEASE = 1.0


class OutboxRig:
    """An app with a prefix and queues of its own, for one database.

    Args:
        using: the alias of the database.
        redis_url: the Redis of lanes, broker and results.
        pulsar_url: where messages go; nowhere by default.
        conf: more settings of Celery, with its names.
    """

    def __init__(
        self, using: str, redis_url: str, pulsar_url: str = "ws://127.0.0.1:1", **conf: Any
    ) -> None:
        self.using = using
        self.name = f"outbox-{uuid.uuid4().hex[:10]}"
        self.topic = f"persistent://public/default/{self.name}"
        self.conf: dict[str, Any] = {
            **own_names(self.name, redis_url),
            "stargate_url": pulsar_url,
            "stargate_redis_url": redis_url,
            "stargate_topic": self.topic,
            "stargate_lease": 2.0,
            **conf,
        }
        app = Celery("shop", set_as_current=False)
        app.conf.update(self.conf)
        self.stargate = Stargate(app)
        self.redis = redis.Redis.from_url(redis_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stargate.close()
        self.stargate.app.close()
        forget(self.redis, self.name)
        self.redis.close()

    @property
    def rows(self) -> Any:
        """All rows of the outbox."""
        return outbox_rows(self.using).order_by("pk")

    def states(self) -> set[str]:
        """The states that rows are in."""
        return set(self.rows.order_by().values_list("state", flat=True).distinct())

    def write(self, *messages: Any, late: bool = False, **options: Any) -> list[outbox.Handle]:
        """Write messages in one transaction; `late` ones only the relay hands over."""
        with (
            override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=not late),
            transaction.atomic(using=self.using),
        ):
            return outbox.produce_many(messages, using=self.using, **options)

    def in_lane(self, topic: str | None = None) -> list[tuple[str, str]]:
        """Context and payload of each message in the lane, in its order."""
        entries: Any = self.redis.xrange(Lane(topic or self.topic).key(self.name, "log"))
        found = []
        for _, fields in entries:
            frame = json.loads(next(value for value in fields.values() if value[:1] == b"{"))
            found.append((frame["context"], base64.b64decode(frame["payload"]).decode()))
        return found

    def payloads(self, topic: str | None = None) -> list[str]:
        """The payloads in the lane, in its order."""
        return [payload for _, payload in self.in_lane(topic)]

    def environment(self, **conf: Any) -> dict[str, str]:
        """The environment of a process of this project; `conf` holds outbox settings."""
        databases = json.loads(json.dumps(settings.DATABASES, default=str))
        given = {f"CELERY_{name.upper()}": value for name, value in self.conf.items()}
        given["CELERY_STARGATE_OUTBOX_LEASE"] = LEASE
        given |= {f"CELERY_STARGATE_OUTBOX_{name.upper()}": v for name, v in conf.items()}
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "tests.django_project.settings",
            DATABASES_VARIABLE: json.dumps(databases),
            SETTINGS_VARIABLE: json.dumps(given),
        }

    def start(self, module: str, *arguments: str, **conf: Any) -> subprocess.Popen[str]:
        """Start `python -m` in the project; its output is piped."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=self.environment(**conf),
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def relay(self, *arguments: str, **conf: Any) -> subprocess.Popen[str]:
        """Start the relay's command."""
        return self.start(
            "tests.django_project.manage",
            "stargate_outbox_relay",
            "--database",
            self.using,
            *arguments,
            **conf,
        )

    def run(self, module: str, *arguments: str, **conf: Any) -> tuple[int, str]:
        """Run `python -m` to its end; return code and output."""
        process = self.start(module, *arguments, **conf)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output
