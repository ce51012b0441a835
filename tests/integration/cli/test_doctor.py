"""``doctor``: its words, its JSON and its exit code."""

from __future__ import annotations

from pathlib import Path

from celery_stargate import Acknowledger
from celery_stargate.operations.doctor.finding import Finding
from celery_stargate.testing import LocalPulsar
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for
from tests.servers.admin import PulsarAdmin
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
