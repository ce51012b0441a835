"""A report has no secret in it."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate.lanes.target import parse_target
from celery_stargate.model.settings import Settings
from celery_stargate.operations.describe import describe, masked_url
from tests.unit.helpers import make_app


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:word@host:1/0", "redis://:********@host:1/0"),
        ("rediss://shop:w@rd@host/0?x=1", "rediss://shop:********@host/0?x=1"),
        ("redis://[broken", "********"),
        ("redis://host/0?password=word&x=1", "redis://host/0?password=********&x=1"),
        ("db+mysql://u:w@h/d?a=1&Passwd=w", "db+mysql://u:********@h/d?a=1&Passwd=********"),
        ("None", "None"),
        ("sentinel://:w@a:1;sentinel://b:1", "sentinel://:********@a:1;sentinel://b:1"),
    ],
)
def test_masks_a_password(url: str, masked: str) -> None:
    assert masked_url(url) == masked


class Away:
    """Reads the lanes of a Redis that is away."""

    @property
    def redis(self) -> Any:
        """Ask it."""
        raise OSError("no route to it")

    def __getattr__(self, name: str) -> Any:
        raise OSError("no route to it")


@pytest.mark.parametrize(
    ("token", "shown"), [("s3cr3t", "********"), (lambda: "s3cr3t", "a callable")]
)
def test_only_settings_that_are_not_the_defaults_are_told(token: Any, shown: str) -> None:
    """With those of the topics; a secret is masked wherever it stands, and Redis may be away."""
    url = "redis://:s3cr3t@redis.invalid:6379/0"
    topics = {"orders": {"topic": "orders", "lanes": 2}, "bills": "bills"}
    conf: dict[str, Any] = {
        "stargate_url": "ws://pulsar.invalid:8080",
        "stargate_token": token,
        "stargate_allow_token_without_tls": True,
        "stargate_redis_url": url,
        "stargate_redis_options": {"password": "s3cr3t"},
        "stargate_max_in_flight": 7,
        "stargate_topics": topics,
    }
    app = make_app(broker_url="amqp://u:s3cr3t@rabbit.invalid//", **conf)
    reader: Any = Away()
    report = describe(app, Settings.read(conf), parse_target(url), reader)
    assert "s3cr3t" not in str(report)
    settings = report["settings"]
    assert settings["token"] == shown
    assert settings["redis_url"] == "redis://:********@redis.invalid:6379/0"
    assert settings["redis_options"] == "********"
    assert settings["max_in_flight"] == 7
    assert {name: each.get("lanes") for name, each in settings["topics"].items()} == {
        "orders": 2,
        "bills": None,
    }
    assert "lease" not in settings
    assert "no route to it" in str(report["redis"])
