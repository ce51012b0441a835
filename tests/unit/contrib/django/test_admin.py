"""The admin: lists, searches, actions by permission with confirmation, and masked payloads."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from celery_stargate import StoreUnavailable
from celery_stargate.contrib.django import admin, lanes, outbox
from celery_stargate.contrib.django.closing import close_row
from celery_stargate.contrib.django.models import OutboxMessage
from celery_stargate.contrib.django.paging import BoundedPaginator
from celery_stargate.contrib.django.states import State
from celery_stargate.operations.views import ContextState
from tests.django_project.world import TOPIC, FakeLanes

LIST = "/admin/celery_stargate/outboxmessage/"
DEAD = "/admin/celery_stargate/failedmessage/"

pytestmark = pytest.mark.usefixtures("using", "fake")


def client_with(*permissions: str) -> Client:
    """A client whose user may only do so much."""
    User.objects.filter(username="operator").delete()
    user = User.objects.create_user("operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


THIRD = {"payload": "secret-3", "properties": {"p": "secret"}}
VIEW = ("view_outboxmessage", "view_failedmessage")
ALL = (*VIEW, "replay_outboxmessage", "requeue_outboxmessage", "discard_outboxmessage")


@pytest.fixture
def rows(fake: FakeLanes) -> Iterator[list[outbox.Handle]]:
    """A stored row, a refused one, and one that waits."""
    with transaction.atomic():
        handles = outbox.produce_many(
            [
                ("a", "secret-1"),
                ("b", "secret-2"),
                {"payload": "secret-3", "properties": {"p": "secret"}},
            ]
        )
    close_row("default", fake.receipt(handles[0].context))
    close_row("default", fake.failure(handles[1].context))
    yield handles
    User.objects.filter(username="operator").delete()


def page(client: Client, url: str, **query: str) -> str:
    answer = client.get(url, query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def act(client: Client, action: str, *handles: outbox.Handle, url: str = LIST, **more: str) -> Any:
    ids = [handle.row().pk for handle in handles]
    return client.post(url, {"action": action, "_selected_action": ids, **more}, follow=True)


def test_the_list_shows_what_matters(rows: list[outbox.Handle]) -> None:
    """State, key, reason, and the figures above; never a payload."""
    text = page(client_with(*VIEW), LIST)
    assert "no such topic" in text and "field-key" in text
    assert "<strong>1</strong> recorded" in text and "<strong>1</strong> failed" in text
    assert "secret" not in text
    assert "of 3 " not in text


def test_filters_and_search(rows: list[outbox.Handle]) -> None:
    client = client_with(*VIEW)
    assert "1 outbox message" in page(client, LIST, state__exact="stored")
    assert "1 outbox message" in page(client, LIST, q="b")
    assert "0 outbox messages" in page(client, LIST, q="bb")
    assert "1 outbox message" in page(client, LIST, q=rows[2].context)
    assert "3 outbox messages" in page(client, LIST, topic=rows[0].topic)
    assert "0 outbox messages" in page(client, LIST, topic="persistent://public/default/none")


def test_a_key_is_found_whatever_it_looks_like() -> None:
    """As a context, and with space around it."""
    keys = [str(uuid.uuid4()), " b ", "<i>", "%", "_"]
    with transaction.atomic():
        handles = outbox.produce_many([(key, "x") for key in keys])
    client = client_with(*VIEW)
    for key, handle in zip(keys, handles, strict=True):
        text = page(client, LIST, q=key)
        assert "1 outbox message" in text and str(handle.uuid)[:8] in text, key


@pytest.mark.parametrize("write", [str, lambda row: row.hex, lambda row: f"{row}.7".upper()])
def test_a_context_is_found_however_it_is_written(rows: list[outbox.Handle], write: Any) -> None:
    """As of any attempt, and as the database has it."""
    assert "1 outbox message" in page(client_with(*VIEW), LIST, q=write(rows[0].uuid))


@pytest.mark.parametrize(
    "lookup",
    ["payload__contains", "on_ack__contains", "attributes__properties__p", "on_error", "payload"],
)
def test_what_is_hidden_is_no_filter(rows: list[outbox.Handle], lookup: str) -> None:
    """Who may not see it could else ask for it, letter by letter."""
    assert client_with(*VIEW).get(LIST, {lookup: "secret"}).status_code == 400


class _Replica:
    """A router that sends reads to a database without the table, as a replica that lags behind."""

    def db_for_read(self, model: Any, **_: Any) -> str | None:
        return "postgres" if model._meta.app_label == "celery_stargate" else None

    def db_for_write(self, model: Any, **_: Any) -> str:
        return "default"


def test_pages_read_where_the_rows_are_written(rows: list[outbox.Handle]) -> None:
    """A replica may not have them yet."""
    client = client_with(*ALL)
    with override_settings(DATABASE_ROUTERS=[_Replica()]):
        page(client, LIST)
        text = page(client, f"{LIST}{rows[2].row().pk}/change/")
        page(client, f"{LIST}{rows[2].row().pk}/history/")
        asked = act(client, "requeue_messages", rows[1])
        assert act(client, "requeue_messages", rows[1], confirmed="yes").status_code == 200
    assert "Hidden (8 B)" in text and asked.status_code == 200
    assert rows[1].row().attempt == 2


@override_settings(ROOT_URLCONF="tests.django_project.two_sites")
def test_each_admin_of_a_project_keeps_to_itself(
    rows: list[outbox.Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its links, its breadcrumbs and what follows an action lead to its own pages."""
    monkeypatch.setattr(lanes, "survey", lambda _: (0, []))
    monkeypatch.setattr(lanes, "pending_in", lambda *_: [])
    client = client_with(*ALL)
    site = LIST.replace("admin", "operators", 1)
    for text in (
        page(client, site),
        page(client, DEAD.replace("admin", "operators", 1)),
        page(client, f"{site}{rows[0].row().pk}/change/"),
        page(client, f"{site}lanes/"),
        page(client, f"{site}lanes/pending/", lane=TOPIC),
        act(client, "requeue_messages", rows[1], url=site).content.decode(),
    ):
        assert "/operators/" in text
        assert not re.search(r'href="/(admin|failures)/', text)


@override_settings(ROOT_URLCONF="tests.django_project.two_sites")
def test_an_admin_without_all_messages(rows: list[outbox.Handle]) -> None:
    """It has no pages of the lanes either, and no link to them."""
    text = page(client_with(*VIEW), DEAD.replace("admin", "failures", 1))
    assert "1 failed outbox message" in text and "Lanes in Redis" not in text


def test_a_search_reads_by_an_index(rows: list[outbox.Handle]) -> None:
    with CaptureQueriesContext(connection) as queries:
        page(client_with(*VIEW), LIST, q=rows[0].context)
    assert not any("UPPER" in each["sql"] or "LIKE" in each["sql"] for each in queries)


def test_the_page_of_a_row_masks_its_payload(rows: list[outbox.Handle]) -> None:
    client = client_with(*VIEW)
    text = page(client, f"{LIST}{rows[2].row().pk}/change/")
    assert "Hidden (8 B)" in text and "secret" not in text
    with override_settings(
        CELERY_STARGATE_OUTBOX_MASK="tests.unit.contrib.django.test_admin.first_letter"
    ):
        assert "s***" in page(client, f"{LIST}{rows[2].row().pk}/change/")


def first_letter(row: Any) -> str:
    return f"{bytes(row.payload).decode()[:1]}***"


def test_failed_rows_have_a_list_of_their_own(rows: list[outbox.Handle]) -> None:
    assert "1 failed outbox message" in page(client_with(*VIEW), DEAD)


def test_requeue_asks_does_and_logs(rows: list[outbox.Handle]) -> None:
    """Only what failed; and the row's page tells of the earlier attempt."""
    client = client_with(*ALL)
    asked = act(client, "requeue_messages", *rows)
    assert "Requeue 1 message?" in asked.content.decode()
    assert rows[1].state() is State.REFUSED
    done = act(client, "requeue_messages", *rows, confirmed="yes")
    assert "Requeue: 1 message." in done.content.decode()
    assert rows[1].row().context == f"{rows[1].uuid}.2"
    (entry,) = LogEntry.objects.filter(user__username="operator")
    assert (entry.object_id, entry.change_message) == (
        str(rows[1].row().pk),
        "requeue (stargate outbox)",
    )
    assert "1. refused" in page(client, f"{LIST}{rows[1].row().pk}/change/")


@override_settings(USE_THOUSAND_SEPARATOR=True)
def test_the_form_that_asks_has_ids_that_can_be_read_back(rows: list[outbox.Handle]) -> None:
    """Not as people read numbers, which Django writes into pages."""
    OutboxMessage.objects.filter(uuid=rows[1].uuid).update(id=1501)
    client = client_with(*ALL)
    asked = act(client, "requeue_messages", *rows).content.decode()
    assert re.findall(r'name="_selected_action" value="([^"]*)"', asked) == ["1501"]


def test_the_largest_action_fits_into_a_form(rows: list[outbox.Handle]) -> None:
    """The form that asks has a field for each row, and Django refuses one with too many."""
    form = {"action": "discard_messages", "_selected_action": list(range(admin._MOST))}
    answer = client_with(*ALL).post(LIST, {**form, "confirmed": "yes", "select_across": "1"})
    assert answer.status_code in {200, 302}


def test_an_action_on_too_many_rows_does_nothing(
    rows: list[outbox.Handle], fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the first of them, either; what it cannot be done with is not counted, wherever it is."""
    with transaction.atomic():
        late = outbox.produce("waits")
    handles = [*rows, late]
    close_row("default", fake.failure(rows[2].context))
    monkeypatch.setattr(admin, "_MOST", 1)
    client = client_with(*ALL)
    refused = act(client, "discard_messages", *handles, confirmed="yes")
    assert "That is more than 1 messages; use the command." in refused.content.decode()
    before = [State.STORED, State.REFUSED, State.REFUSED, State.RECORDED]
    assert [each.state() for each in handles] == before
    monkeypatch.setattr(admin, "_MOST", 2)
    act(client, "discard_messages", *handles, confirmed="yes")
    after = [State.STORED, State.DISCARDED, State.DISCARDED, State.RECORDED]
    assert [each.state() for each in handles] == after


def test_replay_and_discard(rows: list[outbox.Handle]) -> None:
    client = client_with(*ALL)
    act(client, "replay_messages", *rows, confirmed="yes")
    act(client, "discard_messages", *rows, url=LIST, confirmed="yes")
    assert [each.state() for each in rows] == [State.PENDING, State.DISCARDED, State.RECORDED]
    nothing = act(client, "discard_messages", rows[2])
    assert "nothing to discard" in nothing.content.decode()


def test_an_action_in_the_list_of_dead_letters(rows: list[outbox.Handle]) -> None:
    act(client_with(*ALL), "discard_messages", rows[1], url=DEAD, confirmed="yes")
    assert rows[1].state() is State.DISCARDED


@pytest.mark.parametrize("verb", ["replay", "requeue", "discard"])
def test_each_action_needs_its_own_permission(rows: list[outbox.Handle], verb: str) -> None:
    others = [name for name in ALL if not name.startswith(verb)]
    client = client_with(*others)
    assert f"{verb}_messages" not in page(client, LIST)
    before = [each.state() for each in rows]
    act(client, f"{verb}_messages", *rows, confirmed="yes")
    assert [each.state() for each in rows] == before


def test_nobody_adds_changes_or_deletes(rows: list[outbox.Handle]) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root-of-test"))
    try:
        assert client.get(f"{LIST}add/").status_code == 403
        pk = rows[0].row().pk
        assert client.post(f"{LIST}{pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.post(f"{LIST}{pk}/change/", {"key": "x"}).status_code == 403
    finally:
        User.objects.filter(username="root-of-test").delete()
    assert OutboxMessage.objects.get(pk=pk).key == "a"


def test_a_user_without_the_view_permission_sees_nothing(rows: list[outbox.Handle]) -> None:
    client = client_with()
    for url in (LIST, DEAD, f"{LIST}lanes/"):
        assert client.get(url).status_code == 403


def test_the_page_of_the_lanes(rows: list[outbox.Handle], monkeypatch: pytest.MonkeyPatch) -> None:
    view = lanes.LaneView(
        lane="persistent://public/default/x#0",
        topic="persistent://public/default/x",
        index=0,
        owner=None,
        lease_seconds=None,
        backlog=12,
        unsent=12,
        sent=0,
        contexts=13,
        settled=1,
        recorded_total=20,
        sent_total=8,
        oldest_age_seconds=33.2,
        oldest_age_exact=True,
        next_deadline_seconds=59.6,
        announced_seconds=1.0,
    )
    monkeypatch.setattr(lanes, "survey", lambda stargate: (2, [view]))
    client = client_with(*VIEW)
    text = page(client, f"{LIST}lanes/")
    assert "<strong>2</strong> producer workers" in text and "nobody" in text
    assert "0:01:00" in text and "0:00:33" in text

    def away(stargate: Any) -> Any:
        raise StoreUnavailable("Redis is away")

    monkeypatch.setattr(lanes, "survey", away)
    assert "Redis is away" in page(client, f"{LIST}lanes/")


def test_the_page_of_a_lanes_pending_contexts(
    rows: list[outbox.Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leads to the rows; a name that is no lane's is a 404; a Redis that is away is said."""
    view = lanes.ContextView(
        context=rows[2].context,
        lane=f"{TOPIC}#0",
        topic=TOPIC,
        state=ContextState.SENT,
        deadline_seconds=12.4,
        age_seconds=None,
        age_exact=True,
        messages=1,
        number=7,
        task=None,
        on_ack="celery_stargate.outbox.close",
        on_error=None,
        waits=False,
        parent=None,
    )
    asked = []

    def pending_in(stargate: Any, lane: str, most: int) -> list[lanes.ContextView]:
        asked.append(lane)
        if lane == "away":
            raise StoreUnavailable("Redis is away")
        if lane != view.lane:
            raise ValueError("not the name of a lane")
        return [view] * 300

    monkeypatch.setattr(lanes, "pending_in", pending_in)
    client, url = client_with(*VIEW), f"{LIST}lanes/pending/"
    text = page(client, url, lane=view.lane)
    assert f'?q={rows[2].context}">' in text and "0:00:12" in text
    assert text.count("celery_stargate.outbox.close") == 200 and "Only 200 are shown" in text
    assert "Redis is away" in page(client, url, lane="away")
    assert client.get(url, {"lane": "nothing"}).status_code == 404
    assert client_with().get(url, {"lane": view.lane}).status_code == 403
    assert asked == [view.lane, "away", "nothing"]


def test_a_list_counts_no_more_than_it_has_pages_for(
    rows: list[outbox.Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement reads all rows: each count has a limit, and dates are found by their ends."""
    monkeypatch.setattr(BoundedPaginator, "most", 2)
    client = client_with(*VIEW)
    with CaptureQueriesContext(connection) as asked:
        text = page(client, LIST)
    assert "2 outbox messages" in text and "There are more" in text
    ours = [each["sql"] for each in asked if "outboxmessage" in each["sql"]]
    counts = [sql for sql in ours if "COUNT(*)" in sql and "GROUP BY" not in sql]
    assert counts and all("LIMIT 3" in sql for sql in counts)
    assert not [sql for sql in ours if "DISTINCT" in sql]
    assert "There are more" not in page(client, LIST, state__exact="stored")


def test_dates_are_those_from_the_first_row_to_the_last(rows: list[outbox.Handle]) -> None:
    """Years, months and days, across the ends of months and years; and none for no rows."""
    first, second = rows[0].row(), rows[1].row()
    OutboxMessage.objects.exclude(pk__in=[first.pk, second.pk]).delete()

    def dates(begin: datetime, end: datetime, **query: str) -> list[str]:
        OutboxMessage.objects.filter(pk=first.pk).update(created_at=begin)
        OutboxMessage.objects.filter(pk=second.pk).update(created_at=end)
        shown = page(client_with(*VIEW), LIST, **query)
        found = re.search(r'class="toplinks"[^>]*>(.*?)</(?:nav|ul)>', shown, re.DOTALL)
        assert found, shown
        return re.findall(r'<a href="[^"]*">([^<]*)</a>', found[1])

    zone = timezone.get_current_timezone()
    at = datetime(2024, 2, 28, 23, tzinfo=zone)
    months = dates(at, datetime(2024, 5, 1, tzinfo=zone))
    assert months == ["February 2024", "March 2024", "April 2024", "May 2024"]
    assert dates(at, datetime(2026, 1, 1, tzinfo=zone)) == ["2024", "2025", "2026"]
    days = dates(at, datetime(2024, 2, 29, 1, tzinfo=zone))
    assert days[-2:] == ["February 28", "February 29"]
    OutboxMessage.objects.all().delete()
    assert "0 outbox messages" in page(client_with(*VIEW), LIST)
