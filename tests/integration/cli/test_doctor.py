"""``doctor``: its words, its JSON and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_stargate import Acknowledger
from celery_stargate.operations.doctor.finding import Finding
from celery_stargate.testing import LocalPulsar
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for
from tests.servers.admin import PulsarAdmin
from tests.servers.fixtures import ServerAddress
from tests.servers.redis import RedisServer


def test_tells_what_why_and_what_mends_it(run: Run, make_app: MakeApp) -> None:
    ran = run("doctor", app=make_app("ws://127.0.0.1:1"))
    assert ran.code == 2
    assert "pulsar-connection: no connection to ws://127.0.0.1:1" in ran.out
    assert "why: no message can be sent" in ran.out
    assert "fix: start Pulsar" in ran.out
    assert "ok " not in ran.out
    assert " errors, " in ran.out.splitlines()[-1]


def test_json_has_the_documented_fields(run: Run, make_app: MakeApp) -> None:
    ran = run("doctor", "--json", app=make_app("ws://127.0.0.1:1"))
    assert ran.code == 2
    assert all(tuple(each) == Finding.__struct_fields__ for each in ran.lines)


@pytest.mark.parametrize(
    ("setting", "check"), [("broker_url", "broker"), ("result_backend", "result-backend")]
)
def test_what_celery_cannot_use_is_2_and_all_else_is_asked(
    run: Run, make_app: MakeApp, redis_server: ServerAddress, setting: str, check: str
) -> None:
    conf = {setting: "foo://:s3cr3t@h"}
    app = make_app("ws://127.0.0.1:1", redis_url=redis_server.url, conf=conf)
    ran = run("doctor", "--json", app=app)
    assert ran.code == 2
    found = {each["check"]: each["level"] for each in ran.lines}
    assert found[check] == "error"
    assert {"versions", "redis-connection", "workers", "pulsar-connection"} <= set(found)
    assert "s3cr3t" not in ran.out + ran.err


def test_the_exit_code_follows_the_worst_finding(
    run: Run, make_app: MakeApp, local: LocalPulsar, tmp_path: Path, topic: str
) -> None:
    admin = PulsarAdmin(local.http_url)
    admin.create_topic(topic)
    admin.create_subscription(topic, "reader")
    with RedisServer(tmp_path, config={"appendonly": "yes"}) as redis:
        urls = {"broker_url": redis.url, "result_backend": redis.url}
        app = make_app(local.url, redis_url=redis.url, conf=urls)
        assert run("doctor", app=app).code == 1  # no worker is alive
        with Acknowledger(app):
            wait_for(lambda: run("doctor", app=app).code == 0)
            ran = run("doctor", "--verbose", app=app)
    assert ran.code == 0
    assert "ok       workers: a worker is alive" in ran.out
