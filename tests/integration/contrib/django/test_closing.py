"""Rows closed together: each by its own outcome and once, while others write the same rows."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.db import connections
from django.utils import timezone

from celery_stargate.contrib.django.closing import close_rows
from celery_stargate.contrib.django.operations import requeue
from celery_stargate.contrib.django.rows import mark_recorded, outbox_rows
from celery_stargate.model.outcome import Failure, Receipt
from tests.django_project.rig import OutboxRig


def test_each_row_gets_its_own_outcome(rig: OutboxRig) -> None:
    """Receipts and failures together, a repeat, an earlier attempt, and one of no row."""
    stored, deduplicated, refused, unknown, again = rig.write(*"abcde")
    close_rows(rig.using, [Failure(context=again.context, code="x", reason="no").to_dict()])
    requeue(rig.rows.filter(uuid=again.uuid))
    outcomes = [
        Failure(context=unknown.context, status="unknown", code="deadline").to_dict(),
        Receipt(context=stored.context, message_id="CAE=").to_dict(),
        Failure(context=refused.context, code="h" * 200, reason="no %s 'topic'").to_dict(),
        Receipt(context=again.context, message_id="CAI=").to_dict(),
        Receipt(context=deduplicated.context, status="deduplicated").to_dict(),
        Receipt(context=stored.context, message_id="CAM=").to_dict(),
        Receipt(context="00000000-0000-4000-8000-000000000000").to_dict(),
    ]
    assert close_rows(rig.using, outcomes) == 4
    assert close_rows(rig.using, outcomes) == 0
    columns = ("state", "message_id", "code", "reason", "closed_at")
    told = Failure(context="", status="unknown", code="deadline").to_dict()["reason"]
    found = [(*rest, at is None) for *rest, at in rig.rows.values_list(*columns)]
    assert found == [
        ("stored", "CAE=", "stored", "", False),
        ("stored", "", "deduplicated", "", False),
        ("refused", "", "h" * 100, "no %s 'topic'", False),
        ("unknown", "", "deadline", told, False),
        ("pending", "", "", "", True),
    ]


def test_those_who_write_the_same_rows_do_not_block_each_other(rig: OutboxRig) -> None:
    """Two close them in opposite orders while a relay notes that they are in their lanes."""
    handles = rig.write(*(f"{n}" for n in range(100)), late=True)
    receipts = [Receipt(context=each.context).to_dict() for each in handles]
    ids = {"lane": [each.row().pk for each in handles]}
    start, errors = threading.Barrier(3), []

    def run(write: Callable[[], object]) -> None:
        start.wait(10.0)
        try:
            write()
        except Exception as error:  # noqa: BLE001  # told below
            errors.append(error)
        finally:
            connections[rig.using].close()

    threads = [
        threading.Thread(target=run, args=(write,))
        for write in (
            lambda: close_rows(rig.using, receipts),
            lambda: close_rows(rig.using, receipts[::-1]),
            lambda: mark_recorded(outbox_rows(rig.using), ids, timezone.now()),
        )
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30.0)
    assert errors == []
    assert rig.states() == {"stored"}
