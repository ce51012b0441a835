"""Mistakes in Pulsar: topics and policies on the real broker, handshakes on LocalPulsar."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from celery_stargate import Acknowledger
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.operations.doctor.between import Between, without_admin
from tests.integration.operations.doctor.conftest import Diagnose
from tests.integration.rig import wait_for
from tests.servers.admin import PulsarAdmin, topic_path
from tests.servers.credentials import make_tls, make_token, tls_missing_reason
from tests.servers.fixtures import PulsarAddress, require
from tests.servers.ports import free_ports
from tests.servers.redis import RedisServer

SECRET = b"the secret of the doctor's tests, long enough"


def of_topic(found: dict[str, Any]) -> list[str]:
    """The names of the checks about Pulsar that found something."""
    return [name for name in found if name.startswith(("topic", "pulsar"))]


@pytest.mark.plants("topics")
def test_a_service_that_does_not_answer_is_asked_for_one_topic(
    make_app: MakeApp, diagnose: Diagnose
) -> None:
    """It takes connections and says nothing: each topic would be waited for."""
    topics = {name: f"persistent://public/default/{name}" for name in ("one", "two", "three")}
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        asked: list[bytes] = []

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = silent.accept()
                    with connection:
                        asked.append(connection.recv(1000).partition(b"\r\n")[0])

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        found = diagnose(make_app(url, topics=topics, topic=None))
    assert "two" not in repr(found)
    assert found["topics"].found.startswith("2 more topics were not asked")
    assert sum(b"/ws/v2/producer" in each for each in asked) == 1


def test_a_sound_topic_has_no_finding(
    make_app: MakeApp, diagnose: Diagnose, own_topic: str
) -> None:
    found = diagnose(make_app(topic=own_topic))
    assert of_topic(found) == []


@pytest.mark.plants("topic-exists")
def test_finds_that_a_topic_does_not_exist(
    make_app: MakeApp, diagnose: Diagnose, namespace: str, admin: PulsarAdmin
) -> None:
    missing = f"persistent://{namespace}/missing"
    found = diagnose(make_app(topic=missing))
    assert of_topic(found) == ["topic-exists"]
    # To look is not to make.
    assert admin.topics(namespace) == []


@pytest.mark.plants("topic-retention")
def test_finds_a_topic_that_drops_what_it_stores(
    make_app: MakeApp, diagnose: Diagnose, own_topic: str, namespace: str, admin: PulsarAdmin
) -> None:
    nothing = {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0}
    admin.call("POST", f"namespaces/{namespace}/retention", nothing)
    app = make_app(topic=own_topic)
    found = diagnose(app)
    assert of_topic(found) == ["topic-retention"]
    assert f"set-retention {namespace}" in found["topic-retention"].mend
    admin.create_subscription(own_topic, "reader")
    assert of_topic(diagnose(app)) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param(
            {"delivery": "effectively_once"},
            "not set",
            marks=pytest.mark.plants("topic-partitions"),
        ),
        pytest.param(
            {"delivery": "effectively_once", "partitions": 2},
            "is 2",
            marks=pytest.mark.plants("topic-partitions"),
        ),
        ({"delivery": "effectively_once", "partitions": 3}, ""),
        ({}, ""),
    ],
)
def test_finds_wrong_partitions(
    make_app: MakeApp,
    diagnose: Diagnose,
    namespace: str,
    admin: PulsarAdmin,
    settings: dict[str, Any],
    words: str,
) -> None:
    name = f"persistent://{namespace}/parted"
    admin.create_partitioned_topic(name, 3)
    found = diagnose(make_app(topic=name, **settings))
    if words:
        assert words in found["topic-partitions"].found
        assert "partitions to 3" in found["topic-partitions"].mend
    else:
        assert of_topic(found) == []


@pytest.mark.plants("topic-deduplication")
def test_finds_that_a_topic_is_not_deduplicated(
    make_app: MakeApp, diagnose: Diagnose, own_topic: str, namespace: str, admin: PulsarAdmin
) -> None:
    admin.set_namespace_deduplication(namespace, False)
    path = topic_path(own_topic)
    wait_for(lambda: admin.call("GET", f"{path}/stats")["deduplicationStatus"] == "Disabled")
    found = diagnose(make_app(topic=own_topic, delivery="effectively_once"))
    assert of_topic(found) == ["topic-deduplication"]
    assert of_topic(diagnose(make_app(topic=own_topic))) == []


@pytest.mark.plants("topic-quota")
def test_finds_a_quota_that_evicts(
    make_app: MakeApp, diagnose: Diagnose, own_topic: str, namespace: str, admin: PulsarAdmin
) -> None:
    # Pulsar wants more retention than that.
    admin.set_backlog_quota(namespace, limit_bytes=10 << 20, policy="consumer_backlog_eviction")
    found = diagnose(make_app(topic=own_topic))
    assert of_topic(found) == ["topic-quota"]


@pytest.mark.plants("topic-schema")
def test_finds_a_schema_that_refuses_raw_bytes(
    make_app: MakeApp, diagnose: Diagnose, own_topic: str, namespace: str, admin: PulsarAdmin
) -> None:
    schema = {"type": "STRING", "schema": "", "properties": {}}
    admin.call("POST", f"schemas/{namespace}/orders/schema", schema)
    app = make_app(topic=own_topic)
    assert diagnose(app)["topic-schema"].level == "note"
    admin.call("POST", f"namespaces/{namespace}/schemaValidationEnforced", True)
    path = f"{topic_path(own_topic)}/schemaValidationEnforced?applied=true"
    wait_for(lambda: admin.call("GET", path) is True)
    assert diagnose(app)["topic-schema"].level == "error"


@pytest.mark.plants("topic-frame")
def test_finds_frames_that_the_broker_does_not_take(
    make_app: MakeApp, diagnose: Diagnose, own_topic: str
) -> None:
    found = diagnose(make_app(topic=own_topic, max_frame_size=2_000_000))
    assert of_topic(found) == ["topic-frame"]
    assert "1048576" in found["topic-frame"].found


@pytest.mark.plants("pulsar-connection")
def test_finds_that_pulsar_is_away(make_app: MakeApp, diagnose: Diagnose) -> None:
    [port] = free_ports(1)
    found = diagnose(make_app(f"ws://127.0.0.1:{port}"))
    assert of_topic(found) == ["pulsar-connection"]


@pytest.mark.plants("topic-admin")
def test_finds_a_gateway_that_lets_no_admin_call_through(
    make_app: MakeApp, diagnose: Diagnose, pulsar: PulsarAddress, own_topic: str
) -> None:
    """A producer is taken all the same; only the rest could not be looked at."""
    port = urlsplit(pulsar.url).port
    assert port is not None
    with Between(port, asked=without_admin) as gateway:
        found = diagnose(make_app(gateway.url(pulsar.url), topic=own_topic))
    assert of_topic(found) == ["topic-admin"]
    assert found["topic-admin"].level == "note"


@pytest.mark.plants("topic-handshake")
def test_finds_the_binary_port_in_the_url(
    make_app: MakeApp, diagnose: Diagnose, pulsar: PulsarAddress, topic: str
) -> None:
    url = pulsar.service_url.replace("pulsar://", "ws://")
    found = diagnose(make_app(url))
    assert "webSocketServiceEnabled" in found["topic-handshake"].mend


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503, 504])
@pytest.mark.plants("topic-handshake")
def test_tells_each_refused_handshake_in_words(
    make_app: MakeApp, diagnose: Diagnose, local: LocalPulsar, topic: str, status: int
) -> None:
    PulsarAdmin(local.http_url).create_topic(topic)
    local.faults.refuse_handshakes(status, reason="what Pulsar says")
    found = diagnose(make_app(local.url))
    assert "what Pulsar says" in found["topic-handshake"].found
    assert found["topic-handshake"].level == "error"


@pytest.mark.plants("pulsar-token")
def test_finds_an_expired_token(make_app: MakeApp, diagnose: Diagnose, topic: str) -> None:
    with LocalPulsar(token_secret=SECRET) as local:
        found = diagnose(make_app(local.url, token=make_token(SECRET, "admin", -3600)))
    assert "expired 60 minutes ago" in found["pulsar-token"].found
    assert "does not accept the token" in found["topic-handshake"].found


@pytest.mark.plants("pulsar-token")
def test_finds_a_token_that_expires_soon(make_app: MakeApp, diagnose: Diagnose, topic: str) -> None:
    with LocalPulsar(token_secret=SECRET) as local:
        token = make_token(SECRET, "admin", 3 * 86_400)
        admin = PulsarAdmin(local.http_url, token=token)
        admin.create_topic(topic)
        admin.create_subscription(topic, "reader")
        fixed = diagnose(make_app(local.url, token=token))
        fetched = diagnose(make_app(local.url, token=lambda: token))
    assert "expires in 3 days" in fixed["pulsar-token"].found
    assert "pulsar-token" not in fetched


@pytest.mark.plants("topic-handshake")
def test_finds_that_no_token_is_set(make_app: MakeApp, diagnose: Diagnose, topic: str) -> None:
    with LocalPulsar(token_secret=SECRET) as local:
        found = diagnose(make_app(local.url))
    assert "stargate_token" in found["topic-handshake"].mend


@pytest.mark.plants("topic-handshake")
def test_finds_a_role_that_may_not_produce(
    make_app: MakeApp, diagnose: Diagnose, topic: str
) -> None:
    with LocalPulsar(token_secret=SECRET) as local:
        found = diagnose(make_app(local.url, token=make_token(SECRET, "shop")))
    assert "--role shop --actions produce" in found["topic-handshake"].mend


@pytest.mark.plants("pulsar-token")
def test_finds_a_token_that_cannot_be_had(make_app: MakeApp, diagnose: Diagnose) -> None:
    def fails() -> str:
        raise RuntimeError("s3cr3t")

    with LocalPulsar(token_secret=SECRET) as local:
        found = diagnose(make_app(local.url, token=fails))
    assert "RuntimeError" in found["pulsar-token"].found
    assert of_topic(found) == ["pulsar-token"]


@pytest.mark.plants("pulsar-secrecy")
def test_finds_a_token_that_goes_over_an_open_line(make_app: MakeApp, diagnose: Diagnose) -> None:
    options = {"token": "s3cr3t", "allow_token_without_tls": True}
    found = diagnose(make_app("ws://pulsar.invalid:8080", **options))
    assert "pulsar.invalid" in found["pulsar-secrecy"].found
    assert "wss://" in found["pulsar-secrecy"].mend


@pytest.mark.plants("pulsar-tls")
def test_finds_what_is_wrong_with_tls(
    make_app: MakeApp, diagnose: Diagnose, tmp_path: Path, topic: str
) -> None:
    require(tls_missing_reason())
    files = make_tls(tmp_path)
    with LocalPulsar(ssl_context=files.server_context()) as local:
        admin = PulsarAdmin(local.http_url, context=files.client_context())
        admin.create_topic(topic)
        untrusted = diagnose(make_app(local.url))
        misnamed = diagnose(
            make_app(local.url, tls_ca=str(files.ca), tls_server_name="pulsar.example")
        )
        trusted = diagnose(make_app(local.url, tls_ca=str(files.ca)))
        plain = local.url.replace("wss", "ws")
        missing = diagnose(make_app(plain))
    assert "stargate_tls_ca" in untrusted["pulsar-tls"].mend
    assert "stargate_tls_server_name" in misnamed["pulsar-tls"].mend
    assert "pulsar-tls" not in trusted
    assert "topic-handshake" not in trusted
    assert "topic-handshake" in missing


@pytest.mark.plants("pulsar-tls")
def test_finds_tls_where_the_server_speaks_none(
    make_app: MakeApp, diagnose: Diagnose, local: LocalPulsar
) -> None:
    found = diagnose(make_app(local.url.replace("ws", "wss")))
    assert of_topic(found) == ["pulsar-tls"]


@pytest.mark.plants("pulsar-settings")
def test_finds_that_the_url_is_missing(make_app: MakeApp, diagnose: Diagnose) -> None:
    found = diagnose(make_app(None))
    assert "stargate_url is not set" in found["pulsar-settings"].found


def test_a_sound_set_up_has_no_finding(
    make_app: MakeApp, diagnose: Diagnose, own_topic: str, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, config={"appendonly": "yes"}) as redis:
        app = make_app(
            topic=own_topic,
            redis_url=redis.url,
            conf={"broker_url": redis.url, "result_backend": redis.url},
        )
        with Acknowledger(app):
            wait_for(lambda: "workers" not in diagnose(app))
            assert diagnose(app) == {}
