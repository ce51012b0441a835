"""What ``doctor`` gathers where servers tell it little."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.operations.doctor import diagnosis, service, topics
from celery_stargate.operations.doctor.diagnosis import Diagnosis
from celery_stargate.operations.doctor.finding import Level
from celery_stargate.operations.doctor.topics import TopicFacts
from celery_stargate.pulsar.admin import AdminAnswer
from tests.unit.helpers import make_app


class Admin:
    """An admin API that answers by the end of the path, and else that the token may not ask."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def get(self, path: str) -> AdminAnswer:
        """Answer."""
        name = path.partition("?")[0].rpartition("/")[2]
        found = self.answers.get(name)
        return AdminAnswer(403, None) if found is None else AdminAnswer(200, found)


def asked(**answers: Any) -> dict[str, Any]:
    """Return what is told of a topic."""
    admin: Any = Admin(**answers)
    return topics._ask(admin, Topic.parse("orders"))  # noqa: SLF001


def test_a_token_that_may_ask_for_nothing() -> None:
    """Nothing is known then, and nothing is said."""
    assert asked() == {}


@pytest.mark.parametrize(("partitions", "exists"), [(0, None), (3, True)])
def test_a_token_that_may_see_the_partitions_only(partitions: int, exists: bool | None) -> None:
    """Whether a topic without partitions exists is not known: no producer may make it."""
    told = asked(partitions={"partitions": partitions})
    assert told["exists"] is exists
    assert "subscriptions" not in told
    assert "has_schema" not in told


def test_a_token_that_may_see_all() -> None:
    """Each answer has its place."""
    told = asked(
        partitions={"partitions": 0},
        stats={"subscriptions": {"a": {}}, "backlogSize": 5, "deduplicationStatus": "Enabled"},
        schema={"version": 1},
    )
    assert (told["exists"], told["subscriptions"], told["backlog_bytes"]) == (True, 1, 5)
    assert (told["deduplication"], told["has_schema"]) == ("Enabled", True)


def test_settings_without_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are no mistake: each call names one. With some, each is examined."""
    looked: list[str] = []

    def gather(endpoint: Any, admin: Any, topic: Topic, options: Any, **_: Any) -> TopicFacts:
        looked.append(topic.name)
        return TopicFacts(topic=topic, options=options)

    monkeypatch.setattr(diagnosis, "AdminApi", lambda endpoint: None)
    monkeypatch.setattr(diagnosis, "gather_topic", gather)
    monkeypatch.setattr(diagnosis, "examine", lambda checks, facts: ())
    facts: Any = SimpleNamespace(token=None)
    endpoint: Any = None

    def findings(**conf: Any) -> list[Any]:
        settings = Settings.read({f"stargate_{name}": each for name, each in conf.items()})
        return list(Diagnosis(make_app())._topics(settings, endpoint, facts))  # noqa: SLF001

    [found] = findings()
    assert (found.level, found.found) == (Level.NOTE, "no topic is in the settings")
    assert findings(topics={"a": "orders"}) == []
    assert findings(topic="bills") == []
    assert looked == ["orders", "bills"]


@pytest.mark.parametrize("certificate", [None, {}, {"notAfter": "Jan  5 09:34:43 2030 GMT"}])
def test_when_a_certificate_expires(certificate: Any) -> None:
    """It is told where the server's certificate says so."""

    @contextmanager
    def wrap_socket(connection: Any, *, server_hostname: str) -> Any:
        yield SimpleNamespace(getpeercert=lambda: certificate)

    context: Any = SimpleNamespace(wrap_socket=wrap_socket)
    with socket.socket() as connection:
        told = service._greet(connection, context, "pulsar.example")  # noqa: SLF001
    expected = {"certificate_expires": ssl.cert_time_to_seconds("Jan  5 09:34:43 2030 GMT")}
    assert told == (expected if certificate else {})


@pytest.mark.parametrize(
    ("seconds", "words"), [(90, "2 minutes"), (3 * 3600, "3 hours"), (3 * 86_400, "3 days")]
)
def test_a_time_in_words(seconds: float, words: str) -> None:
    """In the unit that says enough."""
    assert service._days(seconds) == words  # noqa: SLF001


@pytest.mark.parametrize(("admin", "asked_for"), [(False, ["a"]), (True, ["a", "b", "c"])])
def test_what_does_not_answer_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, admin: bool, asked_for: list[str]
) -> None:
    """The topics behind it are told as not asked, unless the admin API answers."""
    looked: list[str] = []

    def gather(endpoint: Any, api: Any, topic: Topic, options: Any, **_: Any) -> Any:
        looked.append(topic.name)
        return SimpleNamespace(broken=True, admin=admin)

    monkeypatch.setattr(diagnosis, "AdminApi", lambda endpoint: None)
    monkeypatch.setattr(diagnosis, "gather_topic", gather)
    monkeypatch.setattr(diagnosis, "examine", lambda checks, facts: ())
    settings = Settings.read({"stargate_topics": {each: each for each in "abc"}})
    facts: Any = SimpleNamespace(token=None)
    endpoint: Any = SimpleNamespace(url="ws://pulsar.invalid:8080")
    found = list(Diagnosis(make_app())._topics(settings, endpoint, facts))  # noqa: SLF001
    assert looked == asked_for
    assert [each.level for each in found] == ([] if admin else [Level.WARNING])
