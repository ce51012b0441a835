"""The endpoint: the headers of a handshake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from celery_stargate import ConfigurationError
from celery_stargate.model.settings import Settings
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import LinkBroken


def _fails() -> str:
    raise OSError("s3cr3t")


@pytest.mark.parametrize("token", ["a.b.c", "Bearer a.b.c", lambda: "a.b.c"])
def test_a_token_is_in_the_header(token: str | Callable[[], str]) -> None:
    """Once with its scheme, however it is given."""
    assert Endpoint("ws://h", token).headers() == {"Authorization": "Bearer a.b.c"}
    assert Endpoint("ws://h").headers() == {}


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (lambda: "s3cr3t\n", "returned begins or ends with white space, as the text of a file"),
        (lambda: "s3c r3t", "returned is not a token: it contains white space"),
        (lambda: "s3cr3t\r\nX: y", "returned is not a token"),
        (lambda: "", "returned must be text that is not empty, not str"),
        (lambda: None, "returned must be text that is not empty, not NoneType"),
        (lambda: b"s3cr3t", "returned must be text that is not empty, not bytes"),
        (_fails, "the callable in stargate_token failed with OSError"),
    ],
)
def test_a_callable_that_gives_no_token(token: Callable[[], str], words: str) -> None:
    """It is told as a mistake in the configuration, without the token."""
    with pytest.raises(ConfigurationError) as caught:
        Endpoint("ws://h", token).headers()
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_callable_that_ends_the_program() -> None:
    """It would end the event loop that all lanes share: it is told as any other failure."""

    def token() -> str:
        raise SystemExit(3)

    with pytest.raises(ConfigurationError, match="failed with SystemExit"):
        asyncio.run(Endpoint("ws://h:1", token).fetch_headers())


def test_errors_name_settings_as_a_namespace_does(tmp_path: Path) -> None:
    """So that they are found in Django's settings."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    conf = {
        "CELERY_STARGATE_URL": "wss://h",
        "CELERY_STARGATE_TOKEN": lambda: "a\n",
        "CELERY_STARGATE_TLS_CA": file,
    }
    endpoint = Endpoint.of(Settings.read(conf, "CELERY"))
    with pytest.raises(ConfigurationError, match="the callable in CELERY_STARGATE_TOKEN returned"):
        endpoint.headers()
    with pytest.raises(ConfigurationError, match="^CELERY_STARGATE_TLS_CA, CELERY_STARGATE_TLS_C"):
        endpoint.tls()


def test_a_token_callable_that_hangs() -> None:
    """Is a connection that cannot be made now: it is tried again."""
    release = threading.Event()

    def token() -> str:
        release.wait(30)
        return "x"

    endpoint = Endpoint("ws://h:1", token, open_timeout=0.1)
    with pytest.raises(LinkBroken, match=r"stargate_token did not return within 0\.1 s"):
        asyncio.run(endpoint.fetch_headers())
    release.set()
    assert asyncio.run(Endpoint("ws://h:1", lambda: "y").fetch_headers()) == {
        "Authorization": "Bearer y"
    }


def test_a_token_callable_that_cannot_be_hashed() -> None:
    """A dataclass with ``__call__`` is one: equal objects of it are different callables."""

    @dataclass
    class Service:
        account: str

        def __call__(self) -> str:
            release.wait(0 if first_hangs.is_set() else 30)
            return self.account

    release, first_hangs = threading.Event(), threading.Event()
    hanging, other = Service("shop"), Service("shop")
    with pytest.raises(LinkBroken):
        asyncio.run(Endpoint("ws://h:1", hanging, open_timeout=0.1).fetch_headers())
    first_hangs.set()
    assert asyncio.run(Endpoint("ws://h:1", other).fetch_headers()) == {
        "Authorization": "Bearer shop"
    }
    with pytest.raises(LinkBroken):
        asyncio.run(Endpoint("ws://h:1", hanging, open_timeout=0.1).fetch_headers())
    release.set()
