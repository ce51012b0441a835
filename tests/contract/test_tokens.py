"""Who may do what, on brokers that demand tokens."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus

from tests.contract.wire import (
    TOKEN_SECRET,
    Broker,
    Socket,
    consumer_path,
    frame,
    ids,
    new_topic,
    producer_path,
)
from tests.servers.admin import AdminError, PulsarAdmin
from tests.servers.credentials import make_token


@pytest.mark.parametrize(
    "token",
    [
        None,
        "garbage",
        make_token(TOKEN_SECRET, "admin", -60),
        make_token(b"some other secret, also long enough", "admin"),
    ],
    ids=["none", "garbage", "expired", "forged"],
)
def test_no_good_token_is_a_401(guarded: Broker, token: str | None) -> None:
    """Before the query is looked at."""
    for query in ({}, {"compressionType": "wrong"}):
        refused = guarded.refusal(producer_path(new_topic(), **query), token)
        assert (refused.status, refused.sentence) == (401, "Authentication required")


def test_another_role_is_a_403_until_it_is_granted(guarded: Broker) -> None:
    """Even where there is no such namespace."""
    stranger = make_token(TOKEN_SECRET, "stranger")
    topic = new_topic()
    for path in (
        producer_path(topic),
        producer_path(topic, compressionType="wrong"),
        consumer_path(topic),
        producer_path("persistent://public/no-such-namespace/topic"),
    ):
        refused = guarded.refusal(path, stranger)
        assert (refused.status, refused.sentence) == (403, "Not authorized")
    friend = make_token(TOKEN_SECRET, "friend")
    guarded.admin.grant("public/default", "friend", ["produce"])
    with guarded.producer(topic, friend) as producer:
        ids(producer.ask(frame()))
    assert guarded.refusal(consumer_path(topic), friend).status == 403


def test_a_super_user(guarded: Broker) -> None:
    """May do everything that can be done."""
    token = make_token(TOKEN_SECRET, "admin", 60)
    with guarded.producer(new_topic(), token) as producer:
        ids(producer.ask(frame()))
    path = producer_path("persistent://public/no-such-namespace/topic")
    assert guarded.refusal(path, token).status == 404


def test_a_token_in_the_query(guarded: Broker) -> None:
    """It works (and ends up in logs)."""
    token = make_token(TOKEN_SECRET, "admin")
    with guarded.producer(new_topic(), token=token) as producer:
        ids(producer.ask(frame()))


def test_another_scheme_is_a_401(guarded: Broker) -> None:
    """Even with a good token behind it."""
    token = make_token(TOKEN_SECRET, "admin")
    with pytest.raises(InvalidStatus) as caught:
        Socket(guarded.url + producer_path(new_topic()), {"Authorization": f"Basic {token}"})
    assert caught.value.response.status_code == 401


@pytest.mark.parametrize(("role", "status"), [(None, 401), ("stranger", 403)])
def test_the_admin_api_asks_too(guarded: Broker, role: str | None, status: int) -> None:
    """With the same tokens."""
    token = make_token(TOKEN_SECRET, role) if role is not None else None
    with pytest.raises(AdminError) as caught:
        PulsarAdmin(guarded.http_url, token=token).topics("public/default")
    assert caught.value.status == status
