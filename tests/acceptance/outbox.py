"""Django's outbox under kills and outages: `python -m tests.acceptance.outbox --rows 100000`.

Writers put rows for some keys into PostgreSQL, in transactions of which some are rolled back, whole
or to a savepoint, while two relays and a Celery worker run. On the way a relay is killed with -9
(twice), PostgreSQL is killed and comes back, Redis is restarted, and the link to Pulsar is cut for
a while. Afterwards the topic must hold every committed row, no other, each key's in order; and
every row must be closed by the receipt of its message.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections, transaction
from django.db.utils import Error as DatabaseError
from django.test import override_settings
from websockets.sync.client import connect

from tests.django_project.rig import OutboxRig
from tests.django_project.setup import configure, empty, migrate, use_postgres
from tests.integration.rig import Proxy
from tests.servers.admin import PulsarAdmin, topic_path
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer

__all__ = ["Outcome", "Trial"]

_KEYS = 50
_WRITERS = 4
#: The bound on the wait for the next receipt, in seconds.
WAIT = 180.0


@dataclass(frozen=True)
class Outcome:
    """What a trial came to."""

    committed: int
    rolled_back: int
    lost: int
    never_committed: int
    duplicates: int
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

    def __str__(self) -> str:
        return (
            f"{self.committed} rows committed, {self.rolled_back} rolled back: {self.lost} lost, "
            f"{self.never_committed} sent though rolled back, {self.duplicates} stored twice, "
            f"{self.keys_out_of_order} keys out of order, {self.not_stored} not closed as stored, "
            f"{self.closed_without_receipt} closed without a receipt; {self.seconds:.1f} s"
        )


class Trial:
    """One run.

    Args:
        folder: for data and logs.
        pulsar_url, admin: the broker, which is reached through a proxy.
        rows: about how many rows are committed.
        seed: of what is random.
        close_queue: whether the relays close rows in batches, or workers one by one.
    """

    def __init__(
        self,
        folder: Path,
        pulsar_url: str,
        admin: PulsarAdmin,
        rows: int,
        *,
        seed: int = 1,
        close_queue: bool = False,
    ) -> None:
        self._close_queue = close_queue
        self._folder = folder
        self._pulsar_url = pulsar_url
        self._admin = admin
        self._target = rows
        self._random = random.Random(seed)
        self._open = ExitStack()
        self._written = 0
        self._rolled_back = 0
        self._locks = [threading.Lock() for _ in range(_KEYS)]
        self._sequence = [0] * _KEYS
        self._count = threading.Lock()
        self._failed: list[BaseException] = []

    def run(self) -> Outcome:
        """Write, break, mend, wait, and look."""
        began = time.monotonic()
        with self._open:
            self._start()
            events = self._events()
            writers = [
                threading.Thread(target=self._guard, args=(self._write, number))
                for number in range(_WRITERS)
            ]
            for each in writers:
                each.start()
            for part, event in events:
                self._until(partial(self._has_written, part))
                event()
            for each in writers:
                each.join()
            self._thaw()
            if self._failed:
                raise self._failed[0]
            self._wait_for_receipts()
            return self._look(time.monotonic() - began)

    def _start(self) -> None:
        port = urlsplit(self._pulsar_url).port
        assert port is not None
        self._link = self._open.enter_context(Proxy(port))
        self._postgres = self._open.enter_context(PostgresServer(config={"fsync": "on"}))
        use_postgres(self._postgres.django)
        migrate("postgres")
        empty("postgres")
        self._redis = self._open.enter_context(RedisServer(self._folder / "redis", appendonly=True))
        self._rabbitmq = self._open.enter_context(RabbitServer(self._folder / "rabbitmq"))
        self._rig = self._open.enter_context(
            OutboxRig(
                "postgres",
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
        from celery_stargate.contrib.django import lanes

        patch.setattr(lanes, "current_stargate", lambda: self._rig.stargate)
        conf: dict[str, Any] = {"check_after": 10.0}
        if self._close_queue:
            queue = f"{self._rig.name}-close"
            conf["close_queue"] = queue
            override = override_settings(CELERY_STARGATE_OUTBOX_CLOSE_QUEUE=queue)
            self._open.enter_context(override)
        self._environment = self._rig.environment(**conf)
        self._worker = self._process(
            "worker",
            *("celery", "-A", "tests.django_project.celery", "worker", "-c", "2", "-l", "INFO"),
            *("--without-mingle", "--without-gossip"),
        )
        self._worker.start(lambda: " ready." in self._worker.log_path.read_text(), timeout=60)
        self._open.callback(self._worker.stop)
        self._relays = [self._relay(number) for number in range(2)]
        for each in self._relays:
            each.start(lambda: True, timeout=10)
            self._open.callback(each.kill)

    def _relay(self, number: int) -> ServerProcess:
        return self._process(
            f"relay-{number}",
            *("tests.django_project.manage", "stargate_outbox_relay", "--database", "postgres"),
        )

    def _process(self, name: str, *arguments: str) -> ServerProcess:
        return ServerProcess(
            name,
            [sys.executable, "-m", *arguments],
            log_path=self._folder / f"{name}.log",
            env=self._environment,
            cwd=Path(__file__).parents[2],
        )

    def _events(self) -> list[tuple[float, Callable[[], None]]]:
        """What happens when which part of the rows is written."""
        return [
            (0.1, self._open_a_long_transaction),
            (0.15, lambda: self._kill_relay(0)),
            (0.25, self._link.close),
            (0.35, self._link.open),
            (0.45, self._restart_postgres),
            (0.6, self._redis.restart),
            (0.7, lambda: self._kill_relay(1)),
            (0.8, self._close_the_long_transaction),
        ]

    def _has_written(self, part: float) -> bool:
        return self._written >= part * self._target

    def _kill_relay(self, number: int) -> None:
        self._relays[number].kill()
        self._relays[number].start(lambda: True, timeout=10)

    def _restart_postgres(self) -> None:
        self._close_the_long_transaction()
        self._postgres.kill()
        self._postgres.start()
        self._open_a_long_transaction()

    def _open_a_long_transaction(self) -> None:
        """Write a row and leave its transaction open, in a thread of its own."""
        self._release = threading.Event()
        written = threading.Event()

        def hold() -> None:
            from celery_stargate.contrib.django import outbox

            with transaction.atomic(using="postgres"):
                outbox.produce(f"late {time.monotonic()}", using="postgres")
                written.set()
                self._release.wait(WAIT)
            connections["postgres"].close()

        self._holder = threading.Thread(target=self._guard, args=(hold,))
        self._holder.start()
        assert written.wait(30)

    def _close_the_long_transaction(self) -> None:
        self._release.set()
        self._holder.join()

    def _thaw(self) -> None:
        self._release.set()

    def _guard(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:  # noqa: BLE001  # raised again by run()
            self._failed.append(error)

    def _write(self, number: int) -> None:
        chance = random.Random(self._random.random() + number)
        while self._written < self._target and not self._failed:
            key = chance.randrange(_KEYS)
            try:
                with self._locks[key]:
                    self._transaction(chance, key)
            except (DatabaseError, OSError):
                # The database is away: whether it committed, its table says.
                connections["postgres"].close()
                time.sleep(0.2)
        connections["postgres"].close()

    def _transaction(self, chance: random.Random, key: int) -> None:
        """Write some rows of one key; now and then roll back, or back to a savepoint."""
        from celery_stargate.contrib.django import outbox

        def rows(count: int) -> None:
            messages = []
            for _ in range(count):
                self._sequence[key] += 1
                messages.append((f"k{key}", f"k{key} {self._sequence[key]}"))
            outbox.produce_many(messages, using="postgres")

        count, undone = chance.randint(1, 8), 0
        roll_back = chance.random() < 0.1
        with transaction.atomic(using="postgres"):
            rows(count)
            if chance.random() < 0.2:
                undone = chance.randint(1, 3)
                with transaction.atomic(using="postgres"):
                    rows(undone)
                    transaction.set_rollback(True, using="postgres")
            if roll_back:
                transaction.set_rollback(True, using="postgres")
        with self._count:
            self._rolled_back += undone + (count if roll_back else 0)
            self._written += 0 if roll_back else count

    def _until(self, condition: Callable[[], bool], timeout: float = 1800.0) -> None:
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end and not self._failed:
            time.sleep(0.05 if self._target <= 1000 else 0.5)

    def _wait_for_receipts(self) -> None:
        """Wait until all rows are closed, or none is for a while."""
        left = None
        while (now := self._open_rows()) != left and now:
            left = now
            self._until(lambda: self._open_rows() < now, WAIT)  # called at once

    def _open_rows(self) -> int:
        return int(self._rig.rows.filter(state__in=("pending", "recorded")).count())

    def _look(self, seconds: float) -> Outcome:
        rows = list(self._rig.rows.values("uuid", "key", "payload", "state", "message_id"))
        by_payload = {bytes(row["payload"]).decode(): row for row in rows}
        stored = self._read()
        payloads = [payload for payload, _ in stored]
        first: dict[str, int] = {}
        ids: dict[str, set[str]] = {}
        for place, (payload, message_id) in enumerate(stored):
            first.setdefault(payload, place)
            ids.setdefault(payload, set()).add(message_id)
        out_of_order = 0
        for key in {row["key"] for row in rows} - {None}:
            places = [
                first[payload]
                for payload, row in by_payload.items()
                if row["key"] == key and payload in first
            ]
            out_of_order += places != sorted(places)
        connections["postgres"].close()
        return Outcome(
            committed=len(rows),
            rolled_back=self._rolled_back,
            lost=len(by_payload.keys() - first.keys()),
            never_committed=len(first.keys() - by_payload.keys()),
            duplicates=len(payloads) - len(first),
            keys_out_of_order=out_of_order,
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


def main() -> int:
    """Run one trial on a broker of its own, and say what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--close-queue", action="store_true", help="relays close rows in batches, not workers"
    )
    options = parser.parse_args()
    from tests.servers.pulsar import PulsarServer

    configure()
    with (
        tempfile.TemporaryDirectory(prefix="stargate-outbox-") as folder,
        PulsarServer(Path(folder) / "pulsar") as broker,
    ):
        trial = Trial(
            Path(folder),
            broker.url,
            PulsarAdmin(broker.http_url),
            options.rows,
            seed=options.seed,
            close_queue=options.close_queue,
        )
        outcome = trial.run()
    print(outcome)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
