"""Where the token goes: to the host of the settings, over TLS, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

import celery_stargate
from celery_stargate import ConfigurationError, ProduceError, Stargate
from celery_stargate.model.settings import Settings
from celery_stargate.operations.doctor.diagnosis import Diagnosis
from celery_stargate.pulsar.admin import AdminApi
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.testing import LocalPulsar
from tests.security.conftest import answering, listening

TOKEN = "c4n4ry.t0k3n"
SETTING = "stargate_allow_token_without_tls"
PATH = "/ws/v2/producer/persistent/public/default/orders"
#: Hosts that are another machine, or may be one.
FOREIGN = [
    *("pulsar", "pulsar.example.org", "10.0.0.1", "169.254.169.254", "0.0.0.0", "[::]"),
    *("localhost.example.org", "127.0.0.1.example.org", "notlocalhost", "localhost."),
    # Forms of 127.0.0.1 that only some resolvers read.
    *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:10.0.0.1]", "[fe80::1]"),
]
LOOPBACK = ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "[::1]", "[::ffff:127.0.0.1]"]


def read(url: str, token: Any = TOKEN, **settings: Any) -> Settings:
    """Read settings with a URL and a token."""
    return Settings.read({"stargate_url": url, "stargate_token": token, **settings})


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("token", [TOKEN, lambda: TOKEN], ids=["text", "callable"])
def test_no_token_goes_to_another_host_without_tls(host: str, token: Any) -> None:
    """The error says where it would go, and what to set; it does not say the token."""
    with pytest.raises(ConfigurationError, match=SETTING) as caught:
        read(f"ws://{host}:8080", token)
    assert host.strip("[]") in str(caught.value)
    assert "wss://" in str(caught.value)
    assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_token_goes_to_this_machine(host: str) -> None:
    """Nobody else hears it."""
    assert read(f"ws://{host}:8080").token == TOKEN


def test_what_allows_it() -> None:
    """TLS, the setting, or no token at all; and a setting that is False allows nothing."""
    read("wss://pulsar.example.org")
    read("ws://pulsar.example.org", **{SETTING: True})
    Settings.read({"stargate_url": "ws://pulsar.example.org"})
    with pytest.raises(ConfigurationError):
        read("ws://pulsar.example.org", **{SETTING: False})


@pytest.mark.parametrize(
    "call",
    [
        lambda app: app.tasks["celery_stargate.produce"].delay("x"),
        lambda app: Stargate.of(app).produce("x", timeout=1),
        lambda app: Stargate.of(app).produce_many(["x"], timeout=1),
        lambda app: celery_stargate.Acknowledger(app).start(),
    ],
    ids=["delay", "produce", "produce_many", "acknowledger"],
)
def test_every_way_in_is_closed(call: Callable[[Celery], object]) -> None:
    """Nothing is recorded that could not be sent."""
    app = Celery("tokens", set_as_current=False)
    app.conf.update(
        stargate_url="ws://pulsar.example.org",
        stargate_token=TOKEN,
        stargate_topic="persistent://public/default/orders",
        broker_url="memory://",
        stargate_redis_url="redis://127.0.0.1:1/0",
    )
    Stargate(app)
    with pytest.raises(ConfigurationError, match=SETTING):
        call(app)


def test_a_token_for_a_url_given_with_the_call() -> None:
    """Beside the URL or in it; the argument has the setting's name."""
    url = f"ws://pulsar.invalid:8080{PATH}"
    for given in ({"token": TOKEN}, {"token": lambda: TOKEN}):
        with pytest.raises(ConfigurationError, match="allow_token_without_tls"):
            celery_stargate.produce(url, "x", **given)
    for query in (f"?token={TOKEN}", f"?a=b&token={TOKEN}", "?token=", f"?%74oken={TOKEN}"):
        with pytest.raises(ConfigurationError, match="allow_token_without_tls") as caught:
            celery_stargate.produce(url + query, "x")
        assert TOKEN not in repr(caught.value)
    # It is tried, and there is no such host.
    with pytest.raises(ProduceError):
        celery_stargate.produce(url, "x", token=TOKEN, allow_token_without_tls=True, timeout=0.2)


def test_doctor_tells_it() -> None:
    """As an error with what to set; with the setting, as a warning."""
    app = Celery("tokens", set_as_current=False)
    app.conf.update(stargate_url="ws://pulsar.example.org", stargate_token=TOKEN)
    [finding] = Diagnosis(app).findings()
    assert (finding.check, finding.level) == ("settings", "error")
    assert SETTING in finding.found
    assert TOKEN not in repr(finding)


# Redirects and proxies.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["ws://127.0.0.1:{port}/", "http://127.0.0.1:{port}/", "//[::1]"])
def test_a_redirect_is_not_followed(status: int, where: str) -> None:
    """Neither by a producer nor by a question to the admin API: the token stays."""
    with listening(answering(b"")) as other:
        location = where.format(port=other.port)
        answer = f"HTTP/1.1 {status} x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        with listening(answering(answer.encode())) as server:
            url = f"ws://127.0.0.1:{server.port}"
            with pytest.raises(ProduceError, match=str(status)):
                celery_stargate.produce(url + PATH, "x", token=TOKEN, timeout=5)
            assert AdminApi(Endpoint(url, token=TOKEN)).get("clusters").status == status
        assert len(server.heard) == 2
        assert all(TOKEN.encode() in each for each in server.heard)
        assert other.heard == []


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell has set for other programs does not get the token."""
    with listening(answering(b"")) as proxy, LocalPulsar(tokens={TOKEN: "admin"}) as local:
        for name in ("http", "https", "ws", "wss", "all", "socks"):
            for variable in (f"{name}_proxy", f"{name}_PROXY".upper()):
                monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        receipt = celery_stargate.produce(local.url + PATH, "x", token=TOKEN, timeout=10)
        assert receipt.status == "stored"
        path = "persistent/public/default/orders/stats"
        assert AdminApi(Endpoint(local.url, token=TOKEN)).get(path).status == 200
    assert proxy.heard == []


# URLs that come from somebody else.


ALLOWED = ["pulsar.example.org", "127.0.0.1:{port}", "[::1]"]


@pytest.mark.parametrize(
    "host",
    [
        *FOREIGN[:1],
        *FOREIGN[2:],
        *("localhost", "127.0.0.1", "127.0.0.1:1", "[::2]", "pulsar.example.org.evil.example"),
        *("evil.example#pulsar.example.org", "evil.example/pulsar.example.org"),
        *("pulsar.example.org@evil.example", "pulsar.example.org:x@evil.example"),
        *("evil.example\\@pulsar.example.org", "evil.example?pulsar.example.org"),
    ],
)
def test_a_host_that_is_not_allowed(host: str) -> None:
    """Whatever it looks like: nothing is resolved, and nothing is connected to."""
    allowed = [each.format(port=2) for each in ALLOWED]
    for scheme in ("ws", "wss", "http", "file"):
        with pytest.raises(ConfigurationError):
            celery_stargate.produce(
                f"{scheme}://{host}{PATH}", "x", allowed_hosts=allowed, timeout=1
            )


def test_a_host_that_is_allowed(local: LocalPulsar) -> None:
    """With its port, without it, and in any case; a text is no list."""
    for allowed in ([f"127.0.0.1:{local.port}"], {"127.0.0.1"}, ("x", "127.0.0.1")):
        receipt = celery_stargate.produce(local.url + PATH, "x", allowed_hosts=allowed)
        assert receipt.status == "stored"
    for nothing in ([], ["127.0.0.1:1"]):
        with pytest.raises(ConfigurationError, match="allowed_hosts"):
            celery_stargate.produce(local.url + PATH, "x", allowed_hosts=nothing)
    with pytest.raises(ConfigurationError, match="allowed_hosts must be a list"):
        celery_stargate.produce(local.url + PATH, "x", allowed_hosts="127.0.0.1")


def test_a_user_in_the_url_is_refused_and_not_shown() -> None:
    """Whatever stands before the ``@`` may be a password."""
    url = f"ws://user:{TOKEN}@127.0.0.1:1{PATH}"
    for allowed in (None, ["127.0.0.1"], ["elsewhere"]):
        with pytest.raises(ConfigurationError) as caught:
            celery_stargate.produce(url, "x", allowed_hosts=allowed)
        assert TOKEN not in repr(caught.value)
