"""Callers of the outbox for its trial: they commit, roll back, die after the commit, and dawdle."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.db.utils import Error as DatabaseError

from celery_stargate.contrib.django import outbox

__all__ = ["Holder", "Writers"]

KEYS = 50
_THREADS = 4
#: How long a transaction may be held open, in seconds.
_HELD = 300.0


class Writers:
    """Threads that write rows for some keys until a number is committed.

    Of ten transactions one is rolled back, two are rolled back to a savepoint, and three commit and
    then forget what is to be done after the commit, as a process does that dies there: the relay
    must take their rows.

    Args:
        using: the database.
        target: about how many rows are to be committed.
        seed: of what is random.
    """

    def __init__(self, using: str, target: int, seed: int) -> None:
        self.using = using
        self.target = target
        #: Beyond so many rows they write slowly: what else is to happen comes first.
        self.allowed = target
        self.written = self.rolled_back = self.forgotten = 0
        #: Rows of one transaction. SQLite commits few a second beside other writers.
        self._most = min(50, max(8, target // 1000))
        self.failed: list[BaseException] = []
        self._seed = seed
        self._locks = [threading.Lock() for _ in range(KEYS)]
        self._sequence = [0] * KEYS
        self._count = threading.Lock()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self.guard, args=(self._write, number))
            for number in range(_THREADS)
        ]

    def start(self) -> None:
        """Begin."""
        for each in self._threads:
            each.start()

    def finish(self) -> None:
        """End when the target is reached; raise what went wrong."""
        self.allowed = self.target
        self._done.set()
        for each in self._threads:
            each.join()
        if self.failed:
            raise self.failed[0]

    def guard(self, work: Callable[..., None], *args: Any) -> None:
        """Do work, and keep its exception for :meth:`finish`."""
        try:
            work(*args)
        except BaseException as error:  # noqa: BLE001  # raised again by finish()
            self.failed.append(error)
        finally:
            connections[self.using].close()

    def _write(self, number: int) -> None:
        chance = random.Random(self._seed * 1000 + number)
        while not self.failed and not (self._done.is_set() and self.written >= self.target):
            if self.written >= self.allowed:
                time.sleep(0.5)
            key = chance.randrange(KEYS)
            try:
                with self._locks[key]:
                    self._transaction(chance, key)
            except (DatabaseError, OSError):
                # The database is away: whether it committed, its table says.
                connections[self.using].close()
                time.sleep(0.2)

    def _transaction(self, chance: random.Random, key: int) -> None:
        """Write some rows of one key; now and then roll back, or back to a savepoint."""

        def rows(count: int) -> None:
            messages = []
            for _ in range(count):
                self._sequence[key] += 1
                messages.append((f"k{key}", f"k{key} {self._sequence[key]}"))
            outbox.produce_many(messages, using=self.using)

        count, undone = chance.randint(1, self._most), 0
        roll_back, forget = chance.random() < 0.1, chance.random() < 0.3
        with transaction.atomic(using=self.using):
            rows(count)
            if chance.random() < 0.2:
                undone = chance.randint(1, 3)
                with transaction.atomic(using=self.using):
                    rows(undone)
                    transaction.set_rollback(True, using=self.using)
            if roll_back:
                transaction.set_rollback(True, using=self.using)
            elif forget:
                connections[self.using].run_on_commit.clear()
        with self._count:
            self.rolled_back += undone + (count if roll_back else 0)
            self.written += 0 if roll_back else count
            self.forgotten += 0 if roll_back or not forget else count


class Holder:
    """Writes a row and holds its transaction open, while others commit later rows.

    Args:
        writers: whose database it is, and who gets what goes wrong.
    """

    def __init__(self, writers: Writers) -> None:
        self._using = writers.using
        self._release = threading.Event()
        self._written = threading.Event()
        self._thread = threading.Thread(target=writers.guard, args=(self._hold,))

    def start(self) -> None:
        """Write the row, and return."""
        self._thread.start()
        assert self._written.wait(60)

    def commit(self) -> None:
        """Commit; a second time it does nothing."""
        self._release.set()
        self._thread.join()

    def _hold(self) -> None:
        with transaction.atomic(using=self._using):
            outbox.produce(f"late {time.monotonic()}", using=self._using)
            self._written.set()
            self._release.wait(_HELD)
