"""The shop and the outbox's admin, clicked through in Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_stargate.testing import LocalPulsar
from tests.acceptance import browser as browser_module
from tests.acceptance.browser import Browser
from tests.acceptance.shop import Shop
from tests.servers import redis as redis_module
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer

#: Who may do what: staff with these permissions; the password is the name.
_USERS = {
    "operator": ["view", "replay", "requeue", "discard"],
    "viewer": ["view"],
    "nobody": [],
}
_MAKE_USERS = """
from django.contrib.auth.models import Permission, User
for name, verbs in {users!r}.items():
    user = User.objects.create_user(name, password=name, is_staff=True)
    models = ("outboxmessage", "failedmessage", "deadletter")
    codes = [f"{{verb}}_{{model}}" for verb in verbs for model in models]
    user.user_permissions.set(Permission.objects.filter(codename__in=codes))
"""
_WRITE = """
from django.db import transaction
from celery_stargate.contrib.django import outbox
with transaction.atomic():
    for n in range(8):
        outbox.produce({{"payload": "secret", "key": f"customer-{{n % 3}}"}}, topic={topic!r})
"""
_PRODUCE = """
from celery import current_app
produce = current_app.tasks["celery_stargate.produce"]
for n in range(3):
    produce.apply_async(({"payload": "secret"},), {"topic": "invoices"}, task_id=f"direct-{n}")
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    require(browser_module.missing_reason())
    with Browser.open() as browser:
        yield browser


@pytest.fixture(scope="module")
def local() -> Iterator[LocalPulsar]:
    """Pulsar, which these tests stop and start."""
    with LocalPulsar() as local:
        yield local


@pytest.fixture(scope="module")
def shop(local: LocalPulsar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop with a worker; 8 stored rows, and 8 refused ones of a topic that takes no more."""
    require(redis_module.missing_reason())
    folder = tmp_path_factory.mktemp("shop")
    with RedisServer(folder / "redis") as redis:
        shop = Shop(folder, redis.url, local.url)
        try:
            shop.start(worker=True)
            shop.manage("shell", "-c", _MAKE_USERS.format(users=_USERS))
            local.create_topic(shop.invoices)
            local.terminate(shop.invoices)
            for topic in ("orders", "invoices"):
                shop.manage("shell", "-c", _WRITE.format(topic=topic))
            shop.manage("shell", "-c", _PRODUCE)
            yield shop
        finally:
            shop.stop()


def _log_in(browser: Browser, shop: Shop, name: str) -> None:
    browser.driver.delete_all_cookies()
    browser.go(f"{shop.url}admin/login/")
    browser.fill("#id_username", name)
    browser.fill("#id_password", name)
    browser.click("input[type=submit]")


def _list(browser: Browser, shop: Shop, query: str = "", model: str = "outboxmessage") -> None:
    browser.go(f"{shop.url}admin/celery_stargate/{model}/{query}")


def _states(browser: Browser) -> set[str]:
    return {each.text for each in browser.all("#result_list .field-state")}


def _until_states(browser: Browser, shop: Shop, query: str, states: set[str]) -> None:
    def there() -> bool:
        _list(browser, shop, query)
        return _states(browser) == states

    browser.until(there, f"{states} in {query}")


def _act(browser: Browser, action: str) -> None:
    """Choose the first row and an action, and go."""
    browser.one("#result_list .action-select").click()
    browser.choose("select[name=action]", action)
    browser.click("button[name=index], .actions button[type=submit]")


def test_an_order_waits_while_pulsar_is_away_and_goes_by_itself(
    browser: Browser, shop: Shop, local: LocalPulsar
) -> None:
    """Ordered, it becomes *published* on the page; with Pulsar away it stays *new*, the admin shows
    the row as *recorded*, its lane's backlog and its pending context; with Pulsar back it goes."""

    def order(item: str) -> str:
        browser.go(shop.url)
        browser.fill("input[name=item]", item)
        browser.click("form button")
        return f'tr[data-order="{browser.one("tr[data-order]").get_attribute("data-order")}"]'

    row = order("Lamp")
    browser.until(lambda: "published" in browser.text(row), "published")
    local.stop()
    try:
        row = order("Chair")
        assert "new" in browser.text(row)
        browser.take("shop")
        _log_in(browser, shop, "operator")
        _list(browser, shop, "?state__exact=recorded")
        assert _states(browser) == {"Recorded"}
        assert "1 recorded" in browser.text("#stargate-figures")
        browser.follow("Lanes in Redis")
        assert shop.topic in browser.text("#stargate-lanes")
        browser.take("lanes")
        lane = f'a[href*="{shop.topic.rpartition("/")[2]}%23"]'
        assert browser.text(lane) == "1"
        browser.click(lane)
        assert "celery_stargate.outbox.close" in browser.text("#stargate-pending")
        browser.take("pending")
    finally:
        local.start()
    browser.go(shop.url)
    browser.until(lambda: "published" in browser.text(row), "published")


def test_an_operator_finds_replays_requeues_and_discards(browser: Browser, shop: Shop) -> None:
    """List, filters, both searches, the page of a row with a hidden payload, and all three actions
    with their confirmation; the row's history says who did it."""
    _log_in(browser, shop, "operator")
    _until_states(browser, shop, "?state__exact=stored", {"Stored"})
    _until_states(browser, shop, f"?topic={shop.invoices}", {"Refused"})
    _list(browser, shop)
    assert {"Stored", "Refused"} <= _states(browser)
    browser.take("messages")
    browser.follow("invoices")
    assert _states(browser) == {"Refused"}

    browser.fill("#searchbar", "customer-1")
    browser.click("#changelist-search input[type=submit]")
    assert {each.text for each in browser.all(".field-key")} == {"customer-1"}
    browser.click("#result_list .field-short_context a")
    context = browser.text(".field-context .readonly")
    assert "Hidden (6 B)" in browser.text() and "secret" not in browser.text()
    browser.take("message")
    _list(browser, shop, f"?q={context}")
    assert len(browser.all("#result_list .field-state")) == 1

    _act(browser, "discard_messages")
    assert context in browser.text()
    browser.take("confirm")
    browser.click("input[type=submit][value=Discard]")
    assert "Discard: 1 message." in browser.text(".messagelist")
    _list(browser, shop, f"?q={context}")
    assert _states(browser) == {"Discarded"}
    browser.click("#result_list .field-short_context a")
    browser.click(".historylink")
    assert "discard" in browser.text("#change-history").lower() and "operator" in browser.text()

    _list(browser, shop, "?state__exact=stored&q=customer-2")
    _act(browser, "replay_messages")
    assert "a second copy" in browser.text()
    browser.click("input[type=submit][value=Replay]")
    assert "Replay: 1 message." in browser.text(".messagelist")
    shop.manage("stargate_outbox_relay", "--burst")
    browser.until(lambda: _attempts(browser, shop, "Stored") == 1, "a second attempt is stored")

    _list(browser, shop, model="failedmessage")
    assert _states(browser) == {"Refused"}
    browser.take("failed")
    _act(browser, "requeue_messages")
    browser.click("input[type=submit][value=Requeue]")
    assert "Requeue: 1 message." in browser.text(".messagelist")
    shop.manage("stargate_outbox_relay", "--burst")
    browser.until(lambda: _attempts(browser, shop, "Refused") == 1, "refused a second time")


def _attempts(browser: Browser, shop: Shop, state: str) -> int:
    """How many rows in a state are at their second attempt."""
    _list(browser, shop, f"?state__exact={state.lower()}")
    return sum(each.text == "2" for each in browser.all("#result_list .field-attempts"))


def _dead(browser: Browser) -> set[str]:
    return {each.text for each in browser.all("#result_list .field-id")}


def test_an_operator_replays_and_discards_dead_letters(browser: Browser, shop: Shop) -> None:
    """Those in Redis: list, filters, search, one's page with its history, both actions; one that
    has an outbox row is not replayed beside it. The audit of the command line names the user."""
    _log_in(browser, shop, "operator")

    def failed() -> bool:
        _list(browser, shop, "?q=direct-2", model="deadletter")
        return _dead(browser) == {"direct-2"}

    browser.until(failed, "the produced messages are dead letters")
    _list(browser, shop, model="deadletter")
    assert {"direct-0", "direct-1", "direct-2"} < _dead(browser)
    browser.take("dead-letters")
    browser.follow("BrokerServiceException")
    browser.follow("1 hour")
    assert "No dead letter matches." in browser.text("#result_list")

    _list(browser, shop, "?q=direct-1", model="deadletter")
    browser.follow("direct-1")
    assert "BrokerServiceException" in browser.text() and "secret" not in browser.text()
    browser.take("dead-letter")
    browser.follow("Replay or discard")
    _act(browser, "replay")
    assert "Replay 1 dead letter?" in browser.text("h1, #content h1, #content")
    browser.take("dead-confirm")
    browser.click("input[type=submit][value=Replay]")
    assert "Replay: 1 dead letter." in browser.text(".messagelist")

    def again() -> bool:
        browser.go(f"{shop.url}admin/celery_stargate/deadletter/direct-1/change/")
        return "2: the first" in browser.text()

    browser.until(again, "it failed a second time")
    assert "operator" in browser.text("#change-history")

    _list(browser, shop, model="deadletter")
    count = len(_dead(browser))
    browser.one("#action-toggle").click()
    browser.choose("select[name=action]", "replay")
    browser.click("button[name=index]")
    assert "left out: requeue their outbox messages" in browser.text(".messagelist")
    browser.follow("No, take me back")

    _list(browser, shop, "?q=direct-0", model="deadletter")
    _act(browser, "discard")
    browser.click("input[type=submit][value=Discard]")
    _list(browser, shop, model="deadletter")
    assert len(_dead(browser)) == count - 1 and "direct-0" not in _dead(browser)
    last = shop.celery("stargate", "describe", "--json")
    assert "operator in Django's admin" in last

    _log_in(browser, shop, "viewer")
    _list(browser, shop, model="deadletter")
    assert _dead(browser) and not browser.all("select[name=action]")
    _log_in(browser, shop, "nobody")
    _list(browser, shop, model="deadletter")
    assert "403 Forbidden" in browser.text()


def test_a_user_without_the_permission_is_refused(browser: Browser, shop: Shop) -> None:
    """A viewer has no actions, and one that is sent all the same does nothing; a user without the
    permission to view gets no list, no lanes and no contexts."""
    _log_in(browser, shop, "viewer")
    _until_states(browser, shop, f"?topic={shop.topic}&q=customer-0", {"Stored"})
    assert not browser.all("select[name=action]")
    browser.take("viewer")
    send = """
        const done = arguments[arguments.length - 1];
        const body = new URLSearchParams({action: "replay_messages", confirmed: "yes"});
        for (let id = 1; id < 20; id++) body.append("_selected_action", id);
        const token = document.cookie.match(/csrftoken=([^;]+)/)[1];
        fetch(".", {method: "POST", headers: {"X-CSRFToken": token}, body}).then(
            (answer) => done(answer.status), (error) => done(String(error)));
    """
    assert browser.driver.execute_async_script(send) == 200
    _list(browser, shop, f"?topic={shop.topic}&q=customer-0")
    assert _states(browser) == {"Stored"}
    assert {each.text for each in browser.all(".field-attempts")} == {"1"}

    _log_in(browser, shop, "nobody")
    for page in ("", "lanes/", "lanes/pending/?lane=x"):
        _list(browser, shop, page)
        assert "403 Forbidden" in browser.text(), page
