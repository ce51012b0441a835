"""What does not wait for PostgreSQL's disk: the note of a hand-over, and the NOTIFY of a commit."""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from celery_stargate.contrib.django.rows import RELAXED, relaxed
from celery_stargate.contrib.django.wake import notify
from tests.django_project.rig import OutboxRig

pytestmark = pytest.mark.parametrize("using", ["postgres"], indirect=True)


def setting(using: str) -> str:
    with connections[using].cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize("late", [False, True])
def test_a_commit_waits_for_the_disk_once(rig: OutboxRig, late: bool) -> None:
    """What comes after it is alone in its transaction, and repeated where a crash takes it back."""
    with CaptureQueriesContext(connections[rig.using]) as queries:
        rig.write("a", late=late)
    after = [each["sql"] for each in queries][-1]
    assert RELAXED in after
    assert ("pg_notify" if late else "UPDATE") in after
    assert rig.states() == {"pending" if late else "recorded"}
    assert setting(rig.using) == "on"


def test_a_transaction_of_the_users_is_not_relaxed(rig: OutboxRig) -> None:
    """One that notifies, or notes, before its end waits for the disk with all that it holds."""
    with transaction.atomic(using=rig.using):
        notify(rig.using)
        assert list(relaxed(rig.rows)) == []
        assert setting(rig.using) == "on"


def test_the_setting_holds_in_the_statement(rig: OutboxRig) -> None:
    rig.write("a", late=True)
    told = {"told": "current_setting('synchronous_commit')"}
    assert list(relaxed(rig.rows).extra(select=told).values_list("told", flat=True)) == ["off"]
    assert setting(rig.using) == "on"
