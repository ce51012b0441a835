"""When the relay reads again at once, and when it waits to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from django.db import transaction
from django.test import override_settings

from celery_stargate.contrib.django import outbox
from celery_stargate.contrib.django.pending import PendingRow
from celery_stargate.contrib.django.relay import Relay
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.support.stop_event import StopEvent
from tests.django_project.world import FakeLanes

pytestmark = pytest.mark.usefixtures("using")


class Told:
    """What wakes a relay; with the first wait it ends."""

    def __init__(self, stop: StopEvent, *, tells: bool) -> None:
        self.tells = tells
        self._stop = stop

    def wait(self, timeout: float) -> None:
        self._stop.set()

    def close(self) -> None:
        """Hold nothing."""


@pytest.mark.parametrize(
    ("tells", "batch_size", "reads"),
    [
        # Whatever is committed after the read is told.
        (True, 10, 1),
        # A poll would let it wait.
        (False, 10, 2),
        # There may be more than one read returns.
        (True, 1, 3),
    ],
)
def test_it_waits_when_it_has_caught_up(
    fake: FakeLanes,
    monkeypatch: pytest.MonkeyPatch,
    tells: bool,
    batch_size: int,
    reads: int,
) -> None:
    with override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False), transaction.atomic():
        outbox.produce_many(["one", "two"])
    stop = StopEvent()
    settings = replace(OutboxSettings.read(), batch_size=batch_size)
    relay = Relay("default", stop, settings, wake=Told(stop, tells=tells))
    counted = []
    read = relay.read

    def count() -> Sequence[PendingRow]:
        counted.append(1)
        return read()

    monkeypatch.setattr(relay, "read", count)
    assert relay.run() == 2
    assert fake.payloads() == ["one", "two"]
    assert len(counted) == reads
