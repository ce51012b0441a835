"""Which Redis holds the lanes, and what its answers look like."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_stargate import ConfigurationError
from celery_stargate.lanes.store import find_redis_url, stream_entries


def app(broker: str | None = None, backend: str | None = None) -> Celery:
    """Return an app that connects to nothing."""
    return Celery("shop", broker=broker, backend=backend, set_as_current=False)


@pytest.mark.parametrize(
    ("setting", "broker", "backend", "found"),
    [
        ("redis://own/1", "redis://broker", "redis://backend", "redis://own/1"),
        (None, "redis://broker", "redis://backend", "redis://backend"),
        (None, "rediss://broker", None, "rediss://broker"),
        (None, "redis://broker", "rpc://", "redis://broker"),
        (None, "amqp://broker", "redis+socket:///run/redis.sock", "unix:///run/redis.sock"),
        (
            None,
            "amqp://broker",
            "rediss://host?ssl_cert_reqs=CERT_REQUIRED",
            "rediss://host?ssl_cert_reqs=required",
        ),
    ],
)
def test_the_setting_comes_first_then_the_backend_then_the_broker(
    setting: str | None, broker: str, backend: str | None, found: str
) -> None:
    """Whichever of them is a Redis."""
    assert find_redis_url(setting, app(broker, backend)) == found


@pytest.mark.parametrize("backend", [None, "rpc://", "db+sqlite://"])
def test_no_redis_at_all(backend: str | None) -> None:
    """Says which setting to use."""
    with pytest.raises(ConfigurationError, match="set stargate_redis_url"):
        find_redis_url(None, app("amqp://broker", backend))


@pytest.mark.parametrize("setting", ["http://host", "amqp://user:hunter2@host", "redis://[x"])
def test_a_setting_that_is_no_redis(setting: str) -> None:
    """Is refused, though the backend would do; a password in it is not shown."""
    with pytest.raises(ConfigurationError, match="^stargate_redis_url must be") as caught:
        find_redis_url(setting, app("redis://broker", "redis://backend"))
    assert "hunter2" not in str(caught.value)


def test_streams_of_both_protocols() -> None:
    """RESP2 gives pairs, RESP3 a mapping with one more list."""
    entries = [(b"1-0", {b"l": b"a"})]
    assert [tuple(each) for each in stream_entries([[b"log", entries]])] == [(b"log", entries)]
    assert stream_entries({b"log": [entries]}) == [(b"log", entries)]
    assert stream_entries(None) == []
    assert stream_entries({}) == []
