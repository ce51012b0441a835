"""Which Redis holds the lanes, as Celery and kombu read an app's settings."""

from __future__ import annotations

import ssl
from typing import Any

import celery
import pytest
import redis
from celery import Celery

from celery_stargate import ConfigurationError
from celery_stargate.lanes.configured import find_target, target_of_backend
from celery_stargate.lanes.connections import Connections


class Provider(redis.CredentialProvider):
    """Gives a user and a password, as a cloud's token service does."""

    def get_credentials(self) -> tuple[str, str]:
        """Return them."""
        return "user", "token"


#: Celery's version; earlier ones read less of a Redis, and kombu with them.
VERSION = tuple(int(part) for part in celery.__version__.split(".")[:2])
PROVIDER = f"{__name__}:Provider"
TLS = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_ca_certs": "/ca.pem"}


def app(broker: str | None = None, backend: str | None = None, **conf: Any) -> Celery:
    """Return an app that connects to nothing."""
    made = Celery("shop", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(conf)
    return made


def shown(target: Any, *names: str) -> dict[str, Any]:
    """Return some of a target's parameters, those that it has."""
    return {name: target.parameters[name] for name in names if name in target.parameters}


@pytest.mark.parametrize(
    ("setting", "broker", "backend", "found"),
    [
        ("redis://own/1", "redis://broker", "redis://backend", {"host": "own", "db": 1}),
        (None, "redis://broker", "redis://backend/2", {"host": "backend", "db": 2}),
        (None, "redis://broker/3", None, {"host": "broker", "db": 3}),
        (None, "redis://broker/4", "rpc://", {"host": "broker", "db": 4}),
        (None, "amqp://b", "redis+socket:///run/r.sock", {"path": "/run/r.sock", "db": 0}),
        (
            None,
            "redis+socket:///run/r.sock?virtual_host=3",
            "rpc://",
            {"path": "/run/r.sock", "db": 3},
        ),
        (
            None,
            "amqp://b",
            "redis+socket:///run/r.sock?virtual_host=5",
            {"path": "/run/r.sock", "db": 5},
        ),
        (
            "redis+socket:///run/r.sock?virtual_host=6",
            "amqp://b",
            "rpc://",
            {"path": "/run/r.sock", "db": 6},
        ),
    ],
)
def test_the_setting_comes_first_then_the_backend_then_the_broker(
    setting: str | None, broker: str, backend: str | None, found: dict[str, Any]
) -> None:
    """Whichever of them is a Redis."""
    assert shown(find_target(app(broker, backend), setting, {}), "host", "path", "db") == found


@pytest.mark.parametrize("backend", [None, "rpc://", "db+sqlite://"])
def test_no_redis_at_all(backend: str | None) -> None:
    """Says which setting to use."""
    with pytest.raises(ConfigurationError, match="set stargate_redis_url"):
        find_target(app("amqp://broker", backend), None, {})


@pytest.mark.parametrize(
    "setting",
    ["http://host", "amqp://user:hunter2@host", "redis://[x", "redis://:hunter2/x@host:p"],
)
def test_a_setting_that_is_no_redis(setting: str) -> None:
    """Is refused, though the backend would do; a password in it is not shown."""
    with pytest.raises(ConfigurationError, match="^stargate_redis_url ") as caught:
        find_target(app("redis://broker", "redis://backend"), setting, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "broker", "backend", "words"),
    [
        ("redis://r%2E.svc", None, None, "stargate_redis_url names the host 'r..svc'"),
        ("sentinel://h1,h..2", None, None, "stargate_redis_url names the host 'h..2'"),
        (None, "redis://r..svc", None, "broker_url names the host 'r..svc'"),
        (None, "amqp://b", "redis://r..svc/2", "result_backend names the host 'r..svc'"),
    ],
)
def test_a_host_that_cannot_be_one(
    setting: str | None, broker: str | None, backend: str | None, words: str
) -> None:
    """Whoever names it: a connection to it would raise an error that tells nothing."""
    with pytest.raises(ConfigurationError, match=words):
        find_target(app(broker, backend), setting, {"master_name": "m"} if setting else {})


@pytest.mark.parametrize("scheme", ["rediss", "redis"] if VERSION >= (5, 7) else ["rediss"])
def test_tls_of_the_result_backend(scheme: str) -> None:
    """As Celery's own setting has it; before 5.7 only with ``rediss``."""
    target = find_target(app("amqp://b", f"{scheme}://h", redis_backend_use_ssl=TLS), None, {})
    assert target.transport == "tls"
    assert shown(target, "ssl_ca_certs", "ssl_cert_reqs") == TLS


def test_tls_of_the_broker() -> None:
    """As kombu reads broker_use_ssl."""
    target = find_target(app("rediss://h:1/2", "rpc://", broker_use_ssl=TLS), None, {})
    assert target.transport == "tls"
    assert shown(target, "host", "port", "db", "ssl_ca_certs") == {
        "host": "h",
        "port": 1,
        "db": 2,
        "ssl_ca_certs": "/ca.pem",
    }


def test_a_broker_that_kombu_reaches_without_the_tls_of_its_url() -> None:
    """It does so without a word, and the password would go over the network as it is."""
    with pytest.raises(ConfigurationError, match="kombu would connect without TLS, because"):
        find_target(app("rediss://:hunter2@h/2", broker_use_ssl=True), None, {})


@pytest.mark.parametrize("requirement", ["CERT_NONE", "none"])
def test_certificate_requirements_as_celery_or_redis_py_write_them(requirement: str) -> None:
    """In a URL of our own."""
    target = find_target(app(), f"rediss://h?ssl_cert_reqs={requirement}", {})
    assert shown(target, "ssl_cert_reqs") == {"ssl_cert_reqs": "none"}


#: Celery and kombu know them since 5.6.
CREDENTIALS_OF_CELERY: Any = [
    (None, f"redis://h?credential_provider={PROVIDER}", "rpc://", {}),
    (None, "amqp://b", "redis://h", {"redis_backend_credential_provider": PROVIDER}),
][: 2 if VERSION >= (5, 6) else 0]


@pytest.mark.parametrize(
    ("setting", "broker", "backend", "conf"),
    [
        (f"redis://a:b@h?credential_provider={PROVIDER}", None, None, {}),
        (None, "amqp://b", f"redis://a:b@h?credential_provider={PROVIDER}", {}),
        *CREDENTIALS_OF_CELERY,
    ],
)
def test_a_credential_provider(
    setting: str | None, broker: str | None, backend: str | None, conf: dict[str, Any]
) -> None:
    """Takes the place of user and password."""
    target = find_target(app(broker, backend, **conf), setting, {})
    assert isinstance(target.parameters["credential_provider"], Provider)
    assert shown(target, "username", "password") == {}


def test_a_credential_provider_that_is_none() -> None:
    """Is refused when the connections are made."""
    with pytest.raises(ConfigurationError, match="credential_provider"):
        find_target(app(), "redis://h?credential_provider=no.such:Provider", {})
    with pytest.raises(ConfigurationError, match=r"must be a redis\.CredentialProvider"):
        find_target(app(), "redis://h", {"credential_provider": 5})


#: Celery and kombu give a connection its name since 5.6.
CLIENT_NAME = {"client_name": "n"} if VERSION >= (5, 6) else {}


def test_settings_of_celerys_backend() -> None:
    """User, password, name and health check have settings of their own there."""
    made = app(
        "amqp://b",
        "redis://h",
        redis_username="u",
        redis_password="p",
        redis_client_name="n",
        redis_backend_health_check_interval=7,
    )
    target = find_target(made, None, {})
    assert shown(target, "username", "password", "client_name", "health_check_interval") == {
        "username": "u",
        "password": "p",
        **CLIENT_NAME,
        "health_check_interval": 7,
    }


def test_transport_options_of_the_broker() -> None:
    """As kombu's channel takes them."""
    made = app(
        "redis://:s%40%3A%2F%25%23@h",
        "rpc://",
        broker_transport_options={"client_name": "n", "health_check_interval": 9},
    )
    target = find_target(made, None, {})
    assert shown(target, "password", "client_name", "health_check_interval") == {
        "password": "s@:/%#",
        **CLIENT_NAME,
        "health_check_interval": 9,
    }


def test_our_options_go_over_what_is_found() -> None:
    """And TLS follows from them."""
    target = find_target(app("redis://h", None), None, {"client_name": "x", "ssl_ca_certs": "/ca"})
    assert target.transport == "tls"
    assert shown(target, "client_name", "ssl_ca_certs") == {
        "client_name": "x",
        "ssl_ca_certs": "/ca",
    }


SENTINELS = (("a", 1), ("b", 26379))


@pytest.mark.parametrize(
    ("setting", "broker", "backend", "conf", "options"),
    [
        (
            "sentinel://u:p@a:1/3;sentinel://b:26379",
            None,
            None,
            {},
            {"master_name": "m", "sentinel_kwargs": {"password": "s"}},
        ),
        (
            "redis+sentinel://u:p@a:1,b/3?master_name=m",
            None,
            None,
            {},
            {"sentinel_kwargs": {"password": "s"}},
        ),
        (
            "redis-sentinel://u:p@a:1,b/3?service_name=m",
            None,
            None,
            {},
            {"sentinel_kwargs": {"password": "s"}},
        ),
        (
            None,
            "amqp://b",
            "sentinel://u:p@a:1/3;sentinel://b:26379/3",
            {
                "result_backend_transport_options": {
                    "master_name": "m",
                    "sentinel_kwargs": {"password": "s"},
                }
            },
            {},
        ),
        (
            None,
            "sentinel://u:p@a:1/3;sentinel://b:26379/3",
            "rpc://",
            {
                "broker_transport_options": {
                    "master_name": "m",
                    "sentinel_kwargs": {"password": "s"},
                }
            },
            {},
        ),
    ],
)
def test_sentinel(
    setting: str | None,
    broker: str | None,
    backend: str | None,
    conf: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """In each form that users write, and from each place."""
    target = find_target(app(broker, backend, **conf), setting, options)
    assert target.sentinels == SENTINELS
    assert target.master_name == "m"
    assert target.sentinel_parameters == {"password": "s"}
    # Celery's Sentinel backend drops the user before 5.6.
    user = (
        {}
        if backend is not None and "sentinel" in backend and VERSION < (5, 6)
        else {"username": "u"}
    )
    assert shown(target, "host", "username", "password", "db") == {
        **user,
        "password": "p",
        "db": 3,
    }


@pytest.mark.parametrize(
    ("broker", "backend"),
    [("amqp://b", "sentinel://a:1"), ("sentinel://a:1", "rpc://")],
)
def test_sentinel_without_the_name_of_a_master(broker: str, backend: str) -> None:
    """Says where to set it, before anything connects."""
    with pytest.raises(ConfigurationError, match="master_name"):
        find_target(app(broker, backend), None, {})
    assert find_target(app(broker, backend), None, {"master_name": "m"}).master_name == "m"


@pytest.mark.parametrize(
    ("backend", "url", "same"),
    [
        ("redis://", "redis://localhost:6379/0", True),
        ("redis://host/1", "redis://host:6379/1", True),
        ("redis://host/1", "redis://host/2", False),
        ("redis://host/1", "redis://other/1", False),
        ("redis://host:1/1", "redis://host:2/1", False),
        ("redis://host", "rediss://host", False),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock", True),
        # Another user may have other rights there.
        ("redis://:a@host", "redis://:b@host", False),
        ("rpc://", "redis://", False),
        ("redis://host:x", "redis://host", False),
    ],
)
def test_whether_results_are_stored_beside_the_lanes(backend: str, url: str, same: bool) -> None:
    """In the same database, by the same user."""
    try:
        found = target_of_backend(app("memory://", backend))
    except ConfigurationError:
        found = None
    assert Connections(url).same_as(found) is same


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://:hunter2@h", "redis://h:6379/0"),
        ("rediss://u:hunter2@h:1/2", "rediss://h:1/2"),
        ("unix://:hunter2@/run/r.sock?db=3", "unix:///run/r.sock?db=3"),
        ("sentinel://:hunter2@a:1/4;sentinel://b:2", "sentinel://a:1,b:2/4?master_name=m"),
    ],
)
def test_a_target_shows_no_secret(url: str, address: str) -> None:
    """Neither in a traceback's locals nor in a report."""
    target = find_target(app(), url, {"master_name": "m"})
    assert "hunter2" not in repr(target)
    assert target.address == address


def test_a_cluster_needs_a_redis_py_that_is_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told when the settings are read, with what to install."""
    url = "rediscluster://a:1,b:2"
    monkeypatch.setattr(redis, "__version__", "5.2.1")
    with pytest.raises(ConfigurationError, match="redis-py 6.4 or newer, and 5.2.1 is installed"):
        find_target(Celery("x"), url, {})
    monkeypatch.setattr(redis, "__version__", "6.4.0")
    assert find_target(Celery("x"), url, {"password": "p"}).address == url
