"""``describe``: one report, without secrets."""

from __future__ import annotations

from celery_stargate import Stargate
from celery_stargate.lanes.lane import Lane
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.servers.fixtures import ServerAddress


def test_reports_versions_settings_topology_and_counts(
    run: Run, make_app: MakeApp, topic: str
) -> None:
    topics = {"orders": {"topic": topic, "lanes": 2}}
    app = make_app("ws://127.0.0.1:1", topics=topics, topic="orders")
    put(Stargate.of(app).lanes, Lane(topic), "a")
    report = run("describe", "--json", app=app).json
    assert set(report) == {
        "versions",
        "settings",
        "celery",
        "redis",
        "status",
        "workers",
        "actions",
    }
    assert report["versions"]["celery"]
    assert report["settings"]["lease"] == 2.0
    assert "ping_interval" not in report["settings"]
    assert report["settings"]["topics"] == {"orders": {"topic": topic, "lanes": 2}}
    assert report["redis"]["redis_version"]
    assert report["status"]["backlog"] == 1
    text = run("describe", app=app).out
    assert "settings:\n  url: ws://127.0.0.1:1\n" in text
    assert "    orders:\n" in text


def test_masks_secrets(run: Run, make_app: MakeApp, redis_server: ServerAddress) -> None:
    url = redis_server.url.replace("redis://", "redis://default:s3cr3t@")
    app = make_app(
        "ws://127.0.0.1:1",
        token="s3cr3t",
        redis_url=url,
        conf={"broker_url": url, "result_backend": url},
    )
    # This Redis has no password, and lets nobody in who gives one: it is away for the report.
    ran = run("describe", app=app)
    assert ran.code == 0
    assert "s3cr3t" not in ran.out + ran.err
    assert "token: ********" in ran.out
