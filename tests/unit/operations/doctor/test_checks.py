"""The checks judge facts; each mistake has its name, and what is sound has none."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import pytest

from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.operations.doctor import celery_checks
from celery_stargate.operations.doctor.celery_checks import CELERY_CHECKS, CeleryFacts
from celery_stargate.operations.doctor.finding import (
    Check,
    Finding,
    Level,
    examine,
    exit_code,
)
from celery_stargate.operations.doctor.lanes import LANE_CHECKS, LanesFacts
from celery_stargate.operations.doctor.peers import PEER_CHECKS, PeerFacts, PeerSettings
from celery_stargate.operations.doctor.redis_checks import REDIS_CHECKS, RedisFacts
from celery_stargate.operations.doctor.service import SERVICE_CHECKS, ServiceFacts
from celery_stargate.operations.doctor.token import TokenFacts
from celery_stargate.operations.doctor.topics import TOPIC_CHECKS, TopicFacts
from celery_stargate.operations.views import LaneView, WorkerView

_Facts = TypeVar("_Facts")
_DAY = 86_400.0


def problems(checks: Sequence[Check[_Facts]], facts: _Facts) -> list[Finding]:
    """Return what is not ok; each says what was found, why it matters and what mends it."""
    found = [each for each in examine(checks, facts) if each.level is not Level.OK]
    assert all(each.found and each.why and each.mend for each in found)
    return found


def names(found: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(each.check, each.level.value) for each in found]


_REDIS: dict[str, Any] = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
    "used_memory": 1 << 20,
    "aof_enabled": 1,
    "rdb_last_bgsave_status": "ok",
    "aof_last_write_status": "ok",
}
_CONFIG = {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
_SNAPSHOTS = {"appendonly": "no", "appendfsync": "everysec", "save": "3600 1"}


def test_a_sound_redis_has_no_problem() -> None:
    assert problems(REDIS_CHECKS, RedisFacts(info=_REDIS, config=_CONFIG)) == []


def test_a_redis_that_tells_nothing_is_not_accused() -> None:
    assert problems(REDIS_CHECKS, RedisFacts()) == []


@pytest.mark.parametrize(
    ("info", "config", "more", "expected"),
    [
        ({"redis_version": "6.0.16"}, {}, {}, ("redis-version", "error")),
        ({"redis_version": "5.0.3"}, {}, {}, ("redis-version", "error")),
        ({"redis_mode": "sentinel"}, {}, {}, ("redis-topology", "error")),
        ({"role": "slave", "master_host": "h"}, {}, {}, ("redis-topology", "error")),
        ({"redis_mode": "cluster"}, {}, {}, ("redis-topology", "error")),
        (
            {"redis_mode": "cluster"},
            {"cluster-require-full-coverage": "yes"},
            {"in_buckets": True},
            ("redis-topology", "warning"),
        ),
        ({"maxmemory_policy": "allkeys-lru"}, {}, {}, ("redis-eviction", "warning")),
        (
            {"maxmemory_policy": "volatile-ttl", "maxmemory": 1 << 30},
            {},
            {},
            ("redis-eviction", "error"),
        ),
        ({"aof_enabled": 0}, {**_SNAPSHOTS, "save": ""}, {}, ("redis-persistence", "error")),
        ({"aof_enabled": 0}, _SNAPSHOTS, {}, ("redis-persistence", "warning")),
        ({}, {"appendfsync": "no"}, {}, ("redis-persistence", "warning")),
        ({"rdb_last_bgsave_status": "err"}, {}, {}, ("redis-disk", "error")),
        ({"aof_last_write_status": "err"}, {}, {}, ("redis-disk", "error")),
        ({"connected_slaves": 2}, {}, {}, ("redis-replication", "note")),
        ({}, {}, {"denied": ("XADD", "EVAL")}, ("redis-acl", "error")),
        ({}, {}, {"latency": 0.05}, ("redis-latency", "warning")),
        ({"maxmemory": 100, "used_memory": 85}, {}, {}, ("redis-memory", "warning")),
        ({"maxmemory": 100, "used_memory": 99}, {}, {}, ("redis-memory", "error")),
        ({}, {}, {"clock_ahead": -60.0}, ("redis-clock", "warning")),
    ],
)
def test_each_mistake_of_redis(
    info: dict[str, Any], config: dict[str, str], more: dict[str, Any], expected: tuple[str, str]
) -> None:
    facts = RedisFacts(info={**_REDIS, **info}, config={**_CONFIG, **config}, **more)
    assert names(problems(REDIS_CHECKS, facts)) == [expected]


def service(**facts: Any) -> ServiceFacts:
    return ServiceFacts(**{"url": "wss://pulsar.example:8443", "now": 1000.0, **facts})


def test_a_sound_service_has_no_problem() -> None:
    token = TokenFacts(is_jwt=True, expires=1000.0 + 90 * _DAY, role="shop")
    facts = service(token=token, certificate_expires=1000.0 + 90 * _DAY)
    assert facts.reachable
    assert problems(SERVICE_CHECKS, facts) == []
    assert problems(SERVICE_CHECKS, service(token=TokenFacts(is_jwt=False))) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"connection_problem": "Connection refused"}, ("pulsar-connection", "error")),
        ({"token_problem": "the callable failed"}, ("pulsar-token", "error")),
        (
            {"token": TokenFacts(is_jwt=True, expires=1000.0)},
            ("pulsar-token", "error"),
        ),
        (
            {"token": TokenFacts(is_jwt=True, expires=1000.0 + 6 * _DAY)},
            ("pulsar-token", "warning"),
        ),
        (
            {"url": "ws://pulsar.example:8080", "token": TokenFacts(is_jwt=False)},
            ("pulsar-secrecy", "warning"),
        ),
        ({"tls_problem": "self-signed certificate"}, ("pulsar-tls", "error")),
        ({"certificate_expires": 1000.0 + 13 * _DAY}, ("pulsar-tls", "warning")),
    ],
)
def test_each_mistake_of_the_service(facts: dict[str, Any], expected: tuple[str, str]) -> None:
    assert names(problems(SERVICE_CHECKS, service(**facts))) == [expected]


def test_a_token_that_is_fetched_anew_may_be_short_lived() -> None:
    token = TokenFacts(is_jwt=True, expires=1000.0 + 60)
    assert problems(SERVICE_CHECKS, service(token=token, token_is_fixed=False)) == []


def test_a_token_may_go_without_tls_on_this_host() -> None:
    facts = service(url="ws://127.0.0.1:8080", token=TokenFacts(is_jwt=False))
    assert problems(SERVICE_CHECKS, facts) == []


@pytest.mark.parametrize(
    ("problem", "cure"),
    [
        ("self-signed certificate in certificate chain", "stargate_tls_ca"),
        ("unable to get local issuer certificate", "stargate_tls_ca"),
        ("certificate has expired", "renew"),
        ("Hostname mismatch, certificate is not valid for 'x'", "stargate_tls_server_name"),
        ("WRONG_VERSION_NUMBER", "ws://"),
    ],
)
def test_each_tls_problem_has_its_cure(problem: str, cure: str) -> None:
    [found] = problems(SERVICE_CHECKS, service(tls_problem=problem))
    assert cure in found.mend


def topic(options: ProducerOptions | None = None, **facts: Any) -> TopicFacts:
    sound = {
        "admin": True,
        "exists": True,
        "tried": True,
        "partitions": 0,
        "subscriptions": 1,
        "retention": (0, 0),
        "deduplication": "Enabled",
        "has_schema": False,
    }
    return TopicFacts(
        topic=Topic.parse("shop/sales/orders"),
        options=options or ProducerOptions(),
        **{**sound, **facts},
    )


def test_a_sound_topic_has_no_problem() -> None:
    assert problems(TOPIC_CHECKS, topic()) == []
    assert problems(TOPIC_CHECKS, topic(subscriptions=0, retention=(-1, -1))) == []
    assert problems(TOPIC_CHECKS, topic(subscriptions=0, retention=(60, 100))) == []


_ONCE = ProducerOptions(delivery="effectively_once")


@pytest.mark.parametrize(
    ("options", "facts", "expected"),
    [
        (None, {"broken": "no connection"}, ("topic-handshake", "error")),
        (None, {"refused": (403, "HTTP 403")}, ("topic-handshake", "error")),
        (None, {"admin": False}, ("topic-admin", "note")),
        (None, {"exists": False}, ("topic-exists", "warning")),
        (
            None,
            {"exists": False, "broker": {"allowAutoTopicCreation": "false"}},
            ("topic-exists", "error"),
        ),
        (_ONCE, {"partitions": 4}, ("topic-partitions", "error")),
        (
            ProducerOptions(delivery="effectively_once", partitions=3),
            {"partitions": 4},
            ("topic-partitions", "error"),
        ),
        (
            ProducerOptions(delivery="effectively_once", partitions=3),
            {"partitions": 0},
            ("topic-partitions", "error"),
        ),
        (None, {"subscriptions": 0}, ("topic-retention", "error")),
        (None, {"subscriptions": 0, "retention": (60, 0)}, ("topic-retention", "error")),
        (_ONCE, {"deduplication": "Disabled"}, ("topic-deduplication", "error")),
        (
            None,
            {
                "quotas": {
                    "destination_storage": {
                        "limitSize": 100,
                        "limitTime": -1,
                        "policy": "consumer_backlog_eviction",
                    }
                }
            },
            ("topic-quota", "warning"),
        ),
        (
            None,
            {
                "quotas": {"destination_storage": {"limitSize": 100, "policy": "x"}},
                "backlog_bytes": 90,
            },
            ("topic-quota", "warning"),
        ),
        (None, {"has_schema": True, "schema_enforced": True}, ("topic-schema", "error")),
        (None, {"has_schema": True, "schema_enforced": False}, ("topic-schema", "note")),
        (ProducerOptions(max_frame_size=2_000_000), {}, ("topic-frame", "warning")),
        (
            ProducerOptions(max_frame_size=2_000_000),
            {"broker": {"webSocketMaxTextFrameSize": "1500000"}},
            ("topic-frame", "error"),
        ),
    ],
)
def test_each_mistake_of_a_topic(
    options: ProducerOptions | None, facts: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert names(problems(TOPIC_CHECKS, topic(options, **facts))) == [expected]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "redirect"),
        (400, "stargate_topics"),
        (401, "stargate_token"),
        (403, "grant-permission shop/sales --role shop --actions produce"),
        (404, "namespaces create shop/sales"),
        (409, "producer"),
        (429, "lanes"),
        (503, "topics stats"),
        (504, "bookies"),
        (500, "broker's log"),
    ],
)
def test_each_status_of_a_handshake_has_its_words(status: int, words: str) -> None:
    facts = topic(refused=(status, f"HTTP {status}: a sentence of Pulsar"), role="shop")
    [found] = problems(TOPIC_CHECKS, facts)
    assert words in f"{found.found} {found.mend}"
    assert "a sentence of Pulsar" in found.found


def test_sound_celery_has_no_problem() -> None:
    versions = {"celery": "5.7.0", "kombu": "5.7.0", "redis": "8.1.0", "websockets": "17.4"}
    assert problems(CELERY_CHECKS, CeleryFacts(versions=versions)) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"versions": {"celery": "5.4.0"}}, ("versions", "error")),
        ({"versions": {"websockets": "14.2"}}, ("versions", "error")),
        ({"hiredis": False}, ("hiredis", "note")),
        ({"broker_problem": "ConnectionRefusedError"}, ("broker", "error")),
        ({"results_disabled": True}, ("result-backend", "note")),
        ({"backend_problem": "ConnectionError"}, ("result-backend", "error")),
        ({"visibility_timeout": 5.0}, ("visibility-timeout", "warning")),
    ],
)
def test_each_mistake_of_celery(facts: dict[str, Any], expected: tuple[str, str]) -> None:
    assert names(problems(CELERY_CHECKS, CeleryFacts(**facts))) == [expected]


def lane(**fields: Any) -> LaneView:
    sound: dict[str, Any] = {
        "lane": "persistent://public/default/orders#0",
        "topic": "persistent://public/default/orders",
        "index": 0,
        "owner": "worker",
        "lease_seconds": 9.0,
        "backlog": 3,
        "unsent": 1,
        "sent": 2,
        "contexts": 3,
        "settled": 0,
        "recorded_total": 10,
        "sent_total": 9,
        "oldest_age_seconds": 1.0,
        "oldest_age_exact": True,
        "next_deadline_seconds": 100.0,
        "announced_seconds": 1.0,
    }
    return LaneView(**{**sound, **fields})


_ALIVE = WorkerView(worker="worker", alive_seconds=9.0, lanes=1, backlog=3)
_GONE = WorkerView(worker="gone", alive_seconds=None, lanes=0, backlog=0)


def lanes_facts(**facts: Any) -> LanesFacts:
    return LanesFacts(**{"settings": Settings(), "lanes": (lane(),), "workers": (_ALIVE,), **facts})


def test_sound_lanes_have_no_problem() -> None:
    assert problems(LANE_CHECKS, lanes_facts()) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"workers": (_GONE,)}, ("workers", "error")),
        ({"workers": (), "lanes": ()}, ("workers", "warning")),
        ({"lanes": (lane(owner=None),)}, ("lanes-owners", "warning")),
        ({"lanes": (lane(next_deadline_seconds=-61.0),)}, ("lanes-deadlines", "error")),
        ({"lanes": (lane(owner="paused by ann@host"),)}, ("lanes-paused", "warning")),
        ({"unregistered": ("orders#0",)}, ("lanes-registry", "error")),
        ({"stuck": 2}, ("lanes-effects", "error")),
        ({"unreadable": ("a", "b", "c", "d")}, ("lanes-records", "error")),
        ({"lanes": (lane(index=3),)}, ("lanes-settings", "warning")),
    ],
)
def test_each_mistake_of_the_lanes(facts: dict[str, Any], expected: tuple[str, str]) -> None:
    assert names(problems(LANE_CHECKS, lanes_facts(**facts))) == [expected]


_OURS = PeerSettings(
    version="1.0",
    prefix="stargate",
    url="ws://pulsar:8080",
    redis_id="abc",
    lanes={"orders": 2},
    delivery={"orders": "at_least_once"},
)


def test_workers_with_our_settings_are_no_problem() -> None:
    others = msgspec.structs.replace(_OURS, redis_id=None, lanes={"more": 7}, delivery={})
    facts = PeerFacts(ours=_OURS, theirs={"a": _OURS, "b": others})
    assert problems(PEER_CHECKS, facts) == []
    assert problems(PEER_CHECKS, PeerFacts(ours=_OURS, theirs={}, asked=False)) == []


@pytest.mark.parametrize(
    ("differs", "expected"),
    [
        ({"prefix": "other"}, ("workers-place", "error")),
        ({"redis_id": "def"}, ("workers-place", "error")),
        ({"buckets": 16}, ("workers-place", "error")),
        ({"url": "ws://other:8080"}, ("workers-place", "note")),
        ({"lanes": {"orders": 3}}, ("workers-topics", "warning")),
        ({"delivery": {"orders": "effectively_once"}}, ("workers-topics", "warning")),
        ({"version": "0.9"}, ("workers-version", "warning")),
    ],
)
def test_each_difference_of_a_worker(differs: dict[str, Any], expected: tuple[str, str]) -> None:
    facts = PeerFacts(ours=_OURS, theirs={"a": msgspec.structs.replace(_OURS, **differs)})
    assert names(problems(PEER_CHECKS, facts)) == [expected]


def test_an_empty_lane_of_other_settings_is_no_mistake() -> None:
    old = lane(index=3, backlog=0, contexts=0)
    assert problems(LANE_CHECKS, lanes_facts(lanes=(old,))) == []


def test_the_exit_code_is_that_of_the_worst() -> None:
    def finding(level: Level) -> Finding:
        return Finding("check", level, "found")

    assert exit_code([]) == 0
    assert exit_code([finding(Level.OK), finding(Level.NOTE)]) == 0
    assert exit_code([finding(Level.WARNING), finding(Level.OK)]) == 1
    assert exit_code([finding(Level.ERROR), finding(Level.WARNING)]) == 2


def test_each_check_has_a_name_of_its_own() -> None:
    tables: list[Sequence[Check[Any]]] = [
        REDIS_CHECKS,
        SERVICE_CHECKS,
        TOPIC_CHECKS,
        CELERY_CHECKS,
        LANE_CHECKS,
        PEER_CHECKS,
    ]
    all_names = [check.name for table in tables for check in table]
    assert len(set(all_names)) == len(all_names)


def test_a_driver_that_hangs_keeps_no_program_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a finding, and its thread is not waited for."""
    release = threading.Event()
    before = threading.enumerate()
    monkeypatch.setattr(celery_checks, "_TIMEOUT", 0.05)

    def hang() -> None:
        release.wait(30)

    found = celery_checks._problem(hang)  # noqa: SLF001
    assert found == "no answer within 0.05 s"
    hanging = [each for each in threading.enumerate() if each not in before]
    assert [each.daemon for each in hanging] == [True]
    release.set()
