"""Django's outbox under kills and outages: `python -m tests.acceptance.outbox --rows 100000`.

Writers put rows for some keys into PostgreSQL or SQLite, in transactions of which some are rolled
back, whole or to a savepoint, while two relays and a Celery worker run. Some callers forget their
rows after the commit, as a process does that dies there. On the way

- a relay is killed with -9, twice at any moment and once at each of its steps;
- PostgreSQL is killed and comes back (SQLite has no server);
- a transaction is held open across the others' commits (SQLite has one writer at a time);
- Redis is restarted, and the link to Pulsar is cut for a while.

Afterwards the topic must hold every committed row, no other, each key's in order; and every row
must be closed by the receipt of its message.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections
from django.test import override_settings
from websockets.sync.client import connect

from benchmarks.readme import replace_block
from celery_stargate.contrib.django import lanes
from tests.acceptance.outbox_writers import Holder, Writers
from tests.django_project.rig import STEPS, OutboxRig
from tests.django_project.setup import configure, empty, migrate, use_postgres
from tests.integration.rig import Proxy
from tests.servers.admin import PulsarAdmin, topic_path
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess
from tests.servers.pulsar import PulsarServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer

__all__ = ["DATABASES", "Outcome", "Plan", "Trial"]

#: The databases' names, and their aliases in the project.
DATABASES = {"postgresql": "postgres", "sqlite": "default"}
#: The bound on the wait for the next receipt, in seconds.
WAIT = 180.0
_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "django.md"


@dataclass(frozen=True)
class Plan:
    """What a trial is to be.

    Args:
        database: `postgresql` or `sqlite`.
        rows: about how many rows are committed.
        seed: of what is random.
        close_queue: whether the relays close rows in batches, or workers one by one.
    """

    database: str
    rows: int
    seed: int = 1
    close_queue: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a trial came to."""

    committed: int
    rolled_back: int
    forgotten: int
    relay_kills: int
    late: int
    lost: int
    never_committed: int
    duplicates: int
    keys: int
    keys_out_of_order: int
    not_stored: int
    closed_without_receipt: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether every promise was kept; a message may stand in the topic twice, in its place."""
        return not (
            self.lost
            or self.never_committed
            or self.keys_out_of_order
            or self.not_stored
            or self.closed_without_receipt
        )

    def lines(self) -> dict[str, str]:
        """What the page says of it."""
        return {
            "rows committed": f"{self.committed:,}",
            "of them forgotten by their caller after the commit": f"{self.forgotten:,}",
            "of them in a transaction held open across others' commits": f"{self.late}",
            "rows rolled back": f"{self.rolled_back:,}",
            "relays killed with -9": f"{self.relay_kills}",
            "**lost**": f"{self.lost}",
            "**sent though rolled back**": f"{self.never_committed}",
            "**closed without a receipt**": f"{self.closed_without_receipt}",
            "**not closed as stored**": f"{self.not_stored}",
            "**keys out of order**": f"{self.keys_out_of_order} of {self.keys}",
            "twice in the topic, in their place": f"{self.duplicates:,}",
            "minutes": f"{self.seconds / 60:.1f}",
        }

    def __str__(self) -> str:
        return "; ".join(f"{name}: {value}" for name, value in self.lines().items())


class Trial:
    """One run.

    Args:
        folder: for data and logs.
        pulsar_url, admin: the broker, which is reached through a proxy.
        plan: what it is to be.
    """

    def __init__(self, folder: Path, pulsar_url: str, admin: PulsarAdmin, plan: Plan) -> None:
        self._plan = plan
        self._using = DATABASES[plan.database]
        self._folder = folder
        self._pulsar_url = pulsar_url
        self._admin = admin
        self._open = ExitStack()
        self._kills = self._late = 0

    def run(self) -> Outcome:
        """Write, break, mend, wait, and look."""
        began = time.monotonic()
        with self._open:
            self._start()
            writers = Writers(self._using, self._plan.rows, self._plan.seed)
            self._new_holder: Callable[[], Holder] = lambda: Holder(writers)
            events = self._events()
            writers.allowed = 0
            writers.start()
            for part, event in events:
                writers.allowed = int(part * self._plan.rows)
                self._until(lambda: writers.written >= writers.allowed or bool(writers.failed))
                event()
            writers.finish()
            self._wait_for_receipts()
            return self._look(writers, time.monotonic() - began)

    def _start(self) -> None:
        port = urlsplit(self._pulsar_url).port
        assert port is not None
        self._link = self._open.enter_context(Proxy(port))
        if self._using == "postgres":
            self._postgres = self._open.enter_context(PostgresServer(config={"fsync": "on"}))
            use_postgres(self._postgres.django)
        migrate(self._using)
        empty(self._using)
        self._redis = self._open.enter_context(RedisServer(self._folder / "redis", appendonly=True))
        self._rabbitmq = self._open.enter_context(RabbitServer(self._folder / "rabbitmq"))
        self._rig = self._open.enter_context(
            OutboxRig(
                self._using,
                self._redis.url,
                f"ws://127.0.0.1:{self._link.port}",
                # With Redis as Celery's broker, what a worker had fetched when Redis went away
                # comes back after the visibility timeout and kombu's 100 s.
                broker_url=self._rabbitmq.url,
            )
        )
        # Pulsar drops what no subscription waits for when it begins a new ledger.
        self._admin.create_subscription(self._rig.topic, "keep")
        patch = self._open.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(lanes, "current_stargate", lambda: self._rig.stargate)
        conf: dict[str, Any] = {"check_after": 10.0}
        if self._plan.close_queue:
            queue = f"{self._rig.name}-close"
            conf["close_queue"] = queue
            override = override_settings(CELERY_STARGATE_OUTBOX_CLOSE_QUEUE=queue)
            self._open.enter_context(override)
        self._environment = self._rig.environment(**conf)
        worker = self._process(
            "worker",
            *("celery", "-A", "tests.django_project.celery", "worker", "-c", "2", "-l", "INFO"),
            *("--without-mingle", "--without-gossip"),
        )
        worker.start(lambda: " ready." in worker.log_path.read_text(), timeout=60)
        self._open.callback(worker.stop)
        manage = ("tests.django_project.manage", "stargate_outbox_relay", "--database", self._using)
        self._relays = [self._process(f"relay-{number}", *manage) for number in range(2)]
        for each in self._relays:
            each.start(lambda: True, timeout=10)
            self._open.callback(each.kill)

    def _process(self, name: str, *arguments: str) -> ServerProcess:
        return ServerProcess(
            name,
            [sys.executable, "-m", *arguments],
            log_path=self._folder / f"{name}.log",
            env=self._environment,
            cwd=_ROOT,
        )

    def _events(self) -> list[tuple[float, Callable[[], None]]]:
        """What happens when which part of the rows is written."""
        events: list[tuple[float, Callable[[], None]]] = [
            (0.15, partial(self._kill_relay, 0)),
            (0.25, self._link.close),
            (0.35, self._link.open),
            (0.6, self._redis.restart),
            (0.7, partial(self._kill_relay, 1)),
        ]
        # In between, a relay that dies at each step.
        events += [
            (part, partial(self._die_at, step))
            for part, step in zip((0.1, 0.2, 0.4, 0.5, 0.55, 0.75), STEPS, strict=True)
        ]
        if self._using == "postgres":
            holders = [self._new_holder() for _ in range(2)]
            self._late = len(holders)
            events += [
                (0.05, holders[0].start),
                (0.43, holders[0].commit),
                (0.45, self._restart_postgres),
                (0.48, holders[1].start),
                (0.8, holders[1].commit),
            ]
        return sorted(events, key=lambda event: event[0])

    def _kill_relay(self, number: int) -> None:
        self._relays[number].kill()
        self._kills += 1
        self._relays[number].start(lambda: True, timeout=10)

    def _die_at(self, step: str) -> None:
        """Start a third relay, which takes its share and kills itself with -9 at a step."""
        dying = self._process(
            f"dying-{step}", "tests.django_project.dying_relay", step, self._using, "wait"
        )
        dying.start(lambda: True, timeout=10)
        self._until(lambda: not dying.alive, 120.0)
        assert not dying.alive, f"it did not die at {step}: {dying.log_tail()}"
        # It is dead; this only takes its exit status.
        dying.kill()
        self._kills += 1

    def _restart_postgres(self) -> None:
        self._postgres.kill()
        self._postgres.start()

    def _until(self, condition: Callable[[], bool], timeout: float = 1800.0) -> None:
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end:
            time.sleep(0.05 if self._plan.rows <= 1000 else 0.5)

    def _wait_for_receipts(self) -> None:
        """Wait until all rows are closed, or none is for a while."""
        left = None
        while (now := self._open_rows()) != left and now:
            left = now
            self._until(lambda: self._open_rows() < now, WAIT)  # called at once

    def _open_rows(self) -> int:
        return int(self._rig.rows.filter(state__in=("pending", "recorded")).count())

    def _look(self, writers: Writers, seconds: float) -> Outcome:
        rows = list(self._rig.rows.values("uuid", "key", "payload", "state", "message_id"))
        by_payload = {bytes(row["payload"]).decode(): row for row in rows}
        stored = self._read()
        first: dict[str, int] = {}
        ids: dict[str, set[str]] = {}
        for place, (payload, message_id) in enumerate(stored):
            first.setdefault(payload, place)
            ids.setdefault(payload, set()).add(message_id)
        places: dict[str, list[int]] = {}
        for payload, row in by_payload.items():
            if row["key"] is not None and payload in first:
                places.setdefault(row["key"], []).append(first[payload])
        connections[self._using].close()
        return Outcome(
            committed=len(rows),
            rolled_back=writers.rolled_back,
            forgotten=writers.forgotten,
            relay_kills=self._kills,
            late=self._late,
            lost=len(by_payload.keys() - first.keys()),
            never_committed=len(first.keys() - by_payload.keys()),
            duplicates=len(stored) - len(first),
            keys=len(places),
            keys_out_of_order=sum(found != sorted(found) for found in places.values()),
            not_stored=sum(row["state"] != "stored" for row in rows),
            closed_without_receipt=sum(
                row["state"] == "stored" and row["message_id"] not in ids.get(payload, ())
                for payload, row in by_payload.items()
            ),
            seconds=seconds,
        )

    def _read(self) -> list[tuple[str, str]]:
        """Payload and message id of everything in the topic, by a plain WebSocket reader."""
        topic = self._rig.topic
        count = int(self._admin.internal_stats(topic)["numberOfEntries"])
        url = f"{self._pulsar_url}/ws/v2/reader/{topic_path(topic)}?messageId=earliest"
        found: list[tuple[str, str]] = []
        with connect(url, compression=None, open_timeout=45, max_size=None, proxy=None) as reader:
            while len(found) < count:
                message = json.loads(reader.recv(timeout=60))
                reader.send(json.dumps({"messageId": message["messageId"]}))
                payload = base64.b64decode(message["payload"]).decode()
                found.append((payload, message["messageId"]))
        return found


def report(plan: Plan, outcome: Outcome) -> str:
    """What the page says of a run."""
    command = f"python -m tests.acceptance.outbox --database {plan.database} --rows {plan.rows}"
    if plan.close_queue:
        command += " --close-queue"
    lines = [f"| {plan.database}, seed {plan.seed} | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in outcome.lines().items()]
    busy = f"{os.cpu_count()} cores shared with other work, load {os.getloadavg()[0]:.0f}"
    lines += ["", f"Measured {datetime.now(UTC):%Y-%m-%d} by `{command}`; {busy}."]
    return "\n".join(lines)


def main() -> int:
    """Run one trial, on the broker that the environment names or one of its own; say how it was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=DATABASES, default="postgresql")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--close-queue", action="store_true", help="relays close rows in batches, not workers"
    )
    parser.add_argument("--write-docs", action="store_true", help="write it into docs/django.md")
    options = parser.parse_args()
    plan = Plan(options.database, options.rows, options.seed, options.close_queue)
    configure()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="stargate-outbox-")))
        url, http_url = (
            os.environ.get(f"STARGATE_TEST_PULSAR_{name}") for name in ("URL", "HTTP_URL")
        )
        if not url or not http_url:
            broker = opened.enter_context(PulsarServer(folder / "pulsar"))
            url, http_url = broker.url, broker.http_url
        outcome = Trial(folder, url, PulsarAdmin(http_url), plan).run()
    print(outcome)
    if options.write_docs:
        text = _PAGE.read_text("utf-8")
        block = report(plan, outcome)
        _PAGE.write_text(replace_block(text, block, f"outbox-{plan.database}"), "utf-8")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
