"""The leases of one relay: which shards of keys are its own, and for how long."""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from celery_stargate.contrib.django.rows import model_of
from celery_stargate.contrib.django.shards import SHARDS

__all__ = ["Leases"]

#: The part of a lease after which it is renewed, and before whose end nothing is begun any more.
_PART = 1 / 3


class Leases:
    """Takes, renews and gives up leases on shards; times are the database's.

    A lease is a row with an owner, a time and a fencing token, which grows with each change of the
    owner. What a relay writes about rows it writes within :meth:`fence`, so a relay that was paused
    beyond its lease changes nothing.

    Arguments:
        using: the database.
        duration: seconds.
        monotonic: the clock by which the relay knows when to renew.
    """

    def __init__(
        self, using: str, duration: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._using = using
        self._duration = timedelta(seconds=duration)
        self._monotonic = monotonic
        self._renew_at = -math.inf
        self._valid_until = -math.inf
        #: Shard → fencing token.
        self.held: dict[int, int] = {}

    @property
    def valid(self) -> bool:
        """Whether there is time enough for a batch before the leases end."""
        return self._monotonic() < self._valid_until

    def keep(self) -> None:
        """Renew where it is time; take what is free, up to a fair share; give up the rest.

        Raises:
            django.db.DatabaseError: the database did not answer.
        """
        now = self._monotonic()
        if now < self._renew_at:
            return
        self._announce()
        share = math.ceil(SHARDS / max(1, self._alive()))
        self._renew()
        while len(self.held) > share:
            self._give_up([self.held.popitem()[0]])
        if len(self.held) < share:
            self._take(share - len(self.held))
        seconds = self._duration.total_seconds()
        # Counted from before the statements: the database's lease ends later than this.
        self._renew_at = now + seconds * _PART
        self._valid_until = now + seconds * (1 - _PART)

    @contextmanager
    def fence(self) -> Iterator[list[int]]:
        """Open a transaction in which the shards that it yields are surely ours.

        Their rows are locked: another relay can take them only after the commit. SQLite has one
        writer at a time, and no such locks.

        Raises:
            django.db.DatabaseError: the database did not answer.
        """
        with transaction.atomic(using=self._using):
            ours = self._shards.filter(owner=self.name, expires_at__gt=Now()).order_by("number")
            locked = ours.select_for_update().values_list("number", "token")
            yield [number for number, token in locked if self.held.get(number) == token]

    def release(self) -> None:
        """Give up all leases, so that another relay need not wait for their end.

        Raises:
            django.db.DatabaseError: the database did not answer.
        """
        held, self.held = list(self.held), {}
        self._renew_at = self._valid_until = -math.inf
        self._give_up(held)
        self._relays.filter(name=self.name).delete()

    @property
    def _shards(self) -> Any:
        return model_of("OutboxShard").objects.using(self._using)

    @property
    def _relays(self) -> Any:
        return model_of("OutboxRelay").objects.using(self._using)

    def _announce(self) -> None:
        if not self._relays.filter(name=self.name).update(seen_at=Now()):
            model = self._shards.model
            self._shards.bulk_create(
                [model(number=number) for number in range(SHARDS)], ignore_conflicts=True
            )
            self._relays.create(name=self.name, seen_at=Now())
        self._relays.filter(seen_at__lt=Now() - 10 * self._duration).delete()

    def _alive(self) -> int:
        return int(self._relays.filter(seen_at__gt=Now() - self._duration).count())

    def _renew(self) -> None:
        if not self.held:
            return
        mine = self._shards.filter(owner=self.name, expires_at__gt=Now())
        mine.update(expires_at=Now() + self._duration)
        self.held = dict(mine.values_list("number", "token"))

    def _take(self, most: int) -> None:
        free = Q(owner="") | Q(expires_at__isnull=True) | Q(expires_at__lte=Now())
        numbers = list(
            self._shards.filter(free).order_by("number").values_list("number", flat=True)[:most]
        )
        if not numbers:
            return
        # The condition stands in the UPDATE: of two relays that saw the same shard, one gets it.
        self._shards.filter(free, number__in=numbers).update(
            owner=self.name, token=F("token") + 1, expires_at=Now() + self._duration
        )
        mine = self._shards.filter(owner=self.name, expires_at__gt=Now())
        self.held = dict(mine.values_list("number", "token"))

    def _give_up(self, numbers: list[int]) -> None:
        self._shards.filter(owner=self.name, number__in=numbers).update(owner="", expires_at=None)
