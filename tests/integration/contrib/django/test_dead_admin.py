"""The admin of the dead letters in Redis: pages, filters, actions by permission, and their log."""

from __future__ import annotations

import html
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client

from celery_stargate import Failure, Message, StoreUnavailable
from celery_stargate.contrib.django import dead_admin, dead_letters, lanes
from celery_stargate.contrib.django.closing import close_row
from celery_stargate.contrib.django.operations import discard, requeue
from celery_stargate.contrib.django.relay import run_burst
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.model.frame import encode_frame
from celery_stargate.operations.audit import Audit
from celery_stargate.operations.reading import reader_of
from tests.django_project.rig import OutboxRig

LIST = "/admin/celery_stargate/deadletter/"
VIEW = "view_deadletter"
ALL = (VIEW, "replay_deadletter", "discard_deadletter")

pytestmark = pytest.mark.parametrize("using", ["default"], indirect=True)


@pytest.fixture(autouse=True)
def _no_users(using: str) -> Iterator[None]:
    yield
    User.objects.all().delete()


def client_with(*permissions: str) -> Client:
    """A client whose user may only do so much."""
    User.objects.filter(username="operator").delete()
    user = User.objects.create_user("operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def bury(rig: OutboxRig, *names: str, topic: str | None = None, code: str = "http-404") -> None:
    """Let messages become dead letters."""
    lane = Lane(topic or rig.topic)
    outbox = rig.stargate.lanes
    outbox.put_many(
        [
            (
                lane,
                Record(each, on_ack='{"task": "shop.paid"}'),
                encode_frame(Message("secret"), each, 10**6),
            )
            for each in names
        ],
        timeout=60,
    )
    for each in names:
        failure = Failure(
            context=each, topic=lane.topic, status="refused", code=code, reason="no <such> topic"
        )
        settled = outbox.settle(lane, failure, anyone=True).settled
        assert settled is not None
        outbox.finish(lane, [settled])


def page(client: Client, url: str = LIST, **query: str) -> str:
    answer = client.get(url, query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def shown(text: str) -> list[str]:
    """The ids in a list."""
    return [html.unescape(each) for each in re.findall(r'field-id".*?><a [^>]*>(.*?)</a>', text)]


def tokens(text: str) -> list[str]:
    return [html.unescape(each) for each in re.findall(r'_selected_action" value="(.*?)"', text)]


def act(client: Client, text: str, action: str, query: str = "", **more: str) -> Any:
    """Post an action on all that a page shows."""
    form = {"action": action, "_selected_action": tokens(text), **more}
    return client.post(f"{LIST}{query}", form, follow=True)


def ids(rig: OutboxRig) -> set[str]:
    return {each.id for each in rig.stargate.dead_letters.find()}


def test_the_list_shows_causes_and_no_payload(rig: OutboxRig) -> None:
    """Also of what the admin's index says, and of the page of one dead letter."""
    bury(rig, "a", "b")
    client = client_with(VIEW)
    text = page(client)
    assert sorted(shown(text)) == ["a", "b"]
    assert "http-404" in text
    assert "<strong>2</strong> dead letters" in text
    assert "secret" not in text and "no <such>" not in text
    assert "Dead letters in Redis" in page(client, "/admin/")
    text = page(client, f"{LIST}a/change/")
    assert "shop.paid" in text and "no &lt;such&gt; topic" in text and "secret" not in text
    assert "no dead letter of this context" in page(client, f"{LIST}none/change/")


def test_filters_and_search(rig: OutboxRig) -> None:
    """By topic, error class or code, age, and by a whole context."""
    other = f"{rig.topic}-other"
    bury(rig, "a")
    bury(rig, "b", topic=other, code="deadline")
    client = client_with(VIEW)
    assert shown(page(client, topic=other)) == ["b"]
    assert shown(page(client, error="http-404")) == ["a"]
    assert shown(page(client, error="deadline", topic=rig.topic)) == []
    assert shown(page(client, age="3600")) == []
    key = Lane(rig.topic).key(rig.name, "dead")
    made_older(rig, "a", 4000)
    assert rig.redis.zcard(key) == 1
    assert shown(page(client, age="3600")) == ["a"]
    assert shown(page(client, age="86400")) == []
    assert shown(page(client, q="b")) == ["b"]
    assert shown(page(client, q=" b ")) == ["b"]
    assert shown(page(client, q="bb")) == []


def made_older(rig: OutboxRig, name: str, seconds: int, topic: str | None = None) -> None:
    """Let a dead letter have failed earlier."""
    lane = Lane(topic or rig.topic)
    dead, heads = lane.key(rig.name, "dead"), lane.key(rig.name, "dead_letters")
    client: Any = rig.redis
    last = int(client.zscore(dead, name)) - seconds * 1000
    head = client.hget(heads, name).split(b" ", 5)
    head[4] = str(last).encode()
    client.hset(heads, name, b" ".join(head))
    client.zadd(dead, {name: last})


def test_pages_are_bounded_and_go_on_where_they_ended(rig: OutboxRig) -> None:
    """230 in two topics: each is on one page, the latest first, whatever fails meanwhile."""
    for part in range(23):
        topic = None if part % 2 else f"{rig.topic}-other"
        names = [f"{part:02}-{each}" for each in range(10)]
        bury(rig, *names, topic=topic)
        for name in names:
            # Two parts of one millisecond would have no order.
            made_older(rig, name, 23 - part, topic)
    client = client_with(VIEW)
    text, pages = page(client), []
    while True:
        pages.append(shown(text))
        link = re.search(r'href="([^"]*)">Next page', text)
        if link is None:
            break
        bury(rig, f"late-{len(pages)}")
        text = page(client, LIST + html.unescape(link[1]))
    assert [len(each) for each in pages] == [100, 100, 30]
    found = [name for each in pages for name in each]
    assert len(set(found)) == 230
    assert [name[:2] for name in found] == sorted((name[:2] for name in found), reverse=True)
    assert client.get(LIST, {"after": "x"}).status_code == 404
    assert client.get(LIST, {"after": '[1,"x","y"]'}).status_code == 404


def test_replay_asks_does_and_tells_who(rig: OutboxRig) -> None:
    """The message goes again; Django's log and the audit in Redis name the user."""
    bury(rig, "a", "b")
    client = client_with(*ALL)
    text = page(client, q="a")
    asked = act(client, text, "replay").content.decode()
    assert "Replay 1 dead letter?" in asked and ids(rig) == {"a", "b"}
    done = act(client, asked, "replay", confirmed="yes").content.decode()
    assert "Replay: 1 dead letter." in done
    assert ids(rig) == {"b"}
    assert "a.replay-1" in [context for context, _ in rig.in_lane()]
    (entry,) = LogEntry.objects.filter(user__username="operator")
    assert (entry.object_id, entry.change_message) == ("a", "replay (stargate dead letter)")
    assert entry.get_admin_url() == f"{LIST}a/change/"
    assert "replay (stargate" in page(client, f"{LIST}a/change/")
    reader = reader_of(rig.stargate.runtime)
    last, first = Audit(reader.redis, reader.registry).last(2)
    assert (first.what, last.details) == ("dead replay", {"done": 1})
    assert first.who.startswith("operator in Django's admin, ")


def test_discard_all_that_match(rig: OutboxRig) -> None:
    """Those of other topics stay, and so does one that failed after the question was asked."""
    other = f"{rig.topic}-other"
    bury(rig, *(f"a{n}" for n in range(120)))
    bury(rig, "b", topic=other)
    client = client_with(*ALL)
    query = f"?topic={rig.topic}"
    asked = client.post(f"{LIST}{query}", {"action": "discard", "select_across": "1"})
    text = asked.content.decode()
    assert "Discard 120 dead letters?" in text and "and 100 more" in text
    bury(rig, "late")
    done = act(client, text, "discard", query, confirmed="yes").content.decode()
    assert "Discard: 120 dead letters." in done
    assert ids(rig) == {"b", "late"}
    assert LogEntry.objects.filter(user__username="operator").count() == 120


def test_more_that_match_than_an_action_does(
    rig: OutboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question says so; the others are left, and are there for the next action."""
    monkeypatch.setattr(dead_admin, "_MOST", 2)
    bury(rig, "a", "b", "c")
    client = client_with(*ALL)
    form = {"action": "discard", "select_across": "1"}
    text = client.post(LIST, form).content.decode()
    assert (
        "Discard 2 dead letters?" in text and "More than these match: this is the first 2." in text
    )
    act(client, text, "discard", confirmed="yes")
    assert len(ids(rig)) == 1
    text = client.post(LIST, form).content.decode()
    assert "Discard 1 dead letter?" in text and "More than these match" not in text


def test_one_that_somebody_else_took_meanwhile_is_told(
    rig: OutboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After they were read, and before they are discarded: it is counted apart, and not logged."""
    bury(rig, "a", "b")
    client = client_with(*ALL)
    text = page(client)
    whole = dead_letters.act

    def late(stargate: Any, verb: Any, letters: Any, by: str) -> Iterator[Any]:
        assert len(list(whole(stargate, verb, letters[:1], "somebody else"))) == 1
        yield from whole(stargate, verb, letters, by)

    monkeypatch.setattr(dead_letters, "act", late)
    done = act(client, text, "discard", confirmed="yes").content.decode()
    assert "Discard: 1 dead letter." in done
    assert "Discard: 1 dead letter: gone, or failed again, since the page was made." in done
    assert LogEntry.objects.filter(user__username="operator").count() == 1


def test_one_that_failed_again_meanwhile_is_left(rig: OutboxRig) -> None:
    """What was chosen is what was seen."""
    bury(rig, "a")
    client = client_with(*ALL)
    text = page(client)
    made_older(rig, "a", 5)
    done = act(client, text, "discard", confirmed="yes").content.decode()
    assert "There is nothing to discard." in done
    assert ids(rig) == {"a"}


def test_what_has_an_outbox_row_is_requeued_there(rig: OutboxRig) -> None:
    """A replay would send it beside its row, which would not hear of it. It can be discarded."""
    (handle,) = rig.write("x")
    lane = Lane(rig.topic)
    failure = Failure(
        context=handle.context, topic=rig.topic, status="refused", code="http-404", reason="no"
    )
    settled = rig.stargate.lanes.settle(lane, failure, anyone=True).settled
    assert settled is not None
    rig.stargate.lanes.finish(lane, [settled])
    bury(rig, str(uuid.uuid4()))
    client = client_with(*ALL)
    text = page(client)
    assert f"/outboxmessage/{handle.row().pk}/change/" in text
    assert "No: requeue" in page(client, f"{LIST}{handle.context}/change/")
    done = act(client, text, "replay", confirmed="yes").content.decode()
    assert "1 dead letter left out" in done and "Replay: 1 dead letter." in done
    assert ids(rig) == {handle.context}
    act(client, page(client), "discard", confirmed="yes")
    assert ids(rig) == set()


def test_a_row_that_is_requeued_is_no_dead_letter(rig: OutboxRig) -> None:
    """Once the relay has sent it again; those of other rows stay, and so do those of no row."""
    handle, other = rig.write("x", "y")
    for each in (handle, other):
        failure = Failure(
            context=each.context, topic=rig.topic, status="unknown", code="deadline", reason="-"
        )
        lane = Lane(rig.topic)
        settled = rig.stargate.lanes.settle(lane, failure, anyone=True).settled
        assert settled is not None
        rig.stargate.lanes.finish(lane, [settled])
        close_row(rig.using, failure.to_dict())
    bury(rig, "a")
    assert requeue(rig.rows.filter(uuid=handle.uuid)) == 1
    assert len(ids(rig)) == 3
    assert run_burst(rig.using) == 1
    assert ids(rig) == {"a", other.context}
    assert discard(rig.rows) == 1
    assert ids(rig) == {"a"}


def test_permissions(rig: OutboxRig) -> None:
    """Each action has one; without the one to view there is no page; nobody adds or deletes."""
    bury(rig, "a")
    client = client_with(VIEW, "discard_deadletter")
    text = page(client)
    assert 'value="discard"' in text and 'value="replay"' not in text
    chosen = tokens(text)
    form = {"action": "replay", "_selected_action": chosen, "confirmed": "yes"}
    assert client.post(LIST, form).status_code == 403
    assert ids(rig) == {"a"}
    text = page(client_with(VIEW))
    assert not tokens(text) and "select name" not in text
    client = client_with("replay_deadletter")
    for url in (LIST, f"{LIST}a/change/"):
        assert client.get(url).status_code == 403
    assert client.post(LIST, form).status_code == 403
    client = client_with(*ALL)
    for url in (f"{LIST}add/", f"{LIST}a/delete/"):
        assert client.get(url).status_code == 403
    assert client.get(f"{LIST}a/history/").url == f"{LIST}a/change/"


def test_a_form_of_somebody_else_is_a_bad_request(rig: OutboxRig) -> None:
    client = client_with(*ALL)
    for given in ("x", '[["a","b"]]', '{"a": 1}'):
        form = {"action": "discard", "_selected_action": given, "confirmed": "yes"}
        assert client.post(LIST, form).status_code == 400
    assert "No action was chosen" in client.post(LIST, {}, follow=True).content.decode()


def test_without_redis_the_page_says_so(rig: OutboxRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an action that Redis left half-way logs what was done."""
    bury(rig, *(f"a{n}" for n in range(101)))
    client = client_with(*ALL)
    text = page(client)
    whole = dead_letters.act

    def half(*given: Any) -> Iterator[Any]:
        for count, change in enumerate(whole(*given)):
            if count == 3:
                raise StoreUnavailable("Redis is away")
            yield change

    monkeypatch.setattr(dead_letters, "act", half)
    done = act(client, text, "discard", confirmed="yes").content.decode()
    assert "Not all was done: Redis is away" in done and "Discard: 3 dead letters." in done
    assert LogEntry.objects.filter(user__username="operator").count() == 3

    def away() -> Any:
        raise StoreUnavailable("Redis is away")

    monkeypatch.setattr(lanes, "current_stargate", away)
    for url in (LIST, f"{LIST}a1/change/"):
        assert "Redis is away" in page(client, url)


def test_commands_that_read_all_tables_pass_them_over(rig: OutboxRig, tmp_path: Any) -> None:
    """There is no table: ``dumpdata`` must not look for one."""
    path = tmp_path / "dump.json"
    call_command("dumpdata", "celery_stargate", output=str(path))
    dumped = {each["model"] for each in json.loads(path.read_text())}
    assert "celery_stargate.deadletter" not in dumped
