"""Certificates that are not good: nobody gets as far as to hear the token."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import celery_stargate
from celery_stargate.model.fields import TABLE
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.operations.doctor.service import gather_service
from celery_stargate.pulsar.admin import AdminApi
from celery_stargate.pulsar.deduplication import _ask
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import LinkBroken
from celery_stargate.pulsar.producer import Producer
from tests.security.conftest import listening
from tests.servers.credentials import TLSFiles, sign_server

TOKEN = "c4n4ry.t0k3n"
TOPIC = Topic.parse("orders")
#: They are made faster than RSA keys.
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def self_signed(folder: Path, tls: TLSFiles) -> ssl.SSLContext:
    """Return the context of a server whose certificate nobody signed but itself."""
    _openssl(
        folder,
        *("req", "-x509", *EC, "-nodes", "-keyout", "own.key", "-out", "own.pem"),
        *("-subj", "/CN=localhost", "-days", "30"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
    )
    return _context(folder / "own.pem", folder / "own.key")


def wrong_name(folder: Path, tls: TLSFiles) -> ssl.SSLContext:
    """Return the context of a server whose certificate is good, and for another host."""
    return _signed(folder, tls, "subjectAltName=DNS:example.org,IP:127.0.0.2")


def name_in_the_subject(folder: Path, tls: TLSFiles) -> ssl.SSLContext:
    """Return the context of one whose host is in the subject only, which counts no more."""
    return _signed(folder, tls, "subjectAltName=DNS:example.org", subject="/CN=127.0.0.1")


def expired(folder: Path, tls: TLSFiles) -> ssl.SSLContext:
    """Return the context of a server whose certificate was good until a year ago."""
    return _signed(folder, tls, "subjectAltName=IP:127.0.0.1", until="200201000000Z")


def a_clients(folder: Path, tls: TLSFiles) -> ssl.SSLContext:
    """Return the context of one that shows a client's certificate of the same authority."""
    return _context(tls.client_certificate, tls.client_key)


def old_protocol(folder: Path, tls: TLSFiles) -> ssl.SSLContext:
    """Return the context of a server that speaks TLS 1.1 at most."""
    context = _context(tls.server_certificate, tls.server_key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def good(folder: Path, tls: TLSFiles) -> ssl.SSLContext:
    """Return the context of a good server, for the control."""
    return _context(tls.server_certificate, tls.server_key)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _signed(
    folder: Path,
    tls: TLSFiles,
    names: str,
    *,
    subject: str = "/CN=server",
    until: str = "20991231000000Z",
) -> ssl.SSLContext:
    """Return a context with a certificate of the authority."""
    return _context(*sign_server(folder, tls.ca, names, subject=subject, until=until))


Make = Callable[[Path, TLSFiles], ssl.SSLContext]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*TLSv1.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "words", "cure"),
    [
        (self_signed, "self-signed certificate", "stargate_tls_ca"),
        (wrong_name, "IP address mismatch", "stargate_tls_server_name"),
        (name_in_the_subject, "IP address mismatch", "stargate_tls_server_name"),
        (expired, "certificate has expired", "renew"),
        (a_clients, "unsuitable certificate purpose|unsupported certificate purpose", ""),
        (old_protocol, ".", ""),
        (good, None, None),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_a_certificate_that_is_not_good(
    make: Make, words: str | None, cure: str | None, tls: TLSFiles, tmp_path: Path
) -> None:
    """Producers, both clients of the admin API and ``doctor`` refuse it before they say a word."""
    context = make(tmp_path, tls)
    said: list[bytes] = []

    def talk(connection: socket.socket, _: bytes) -> None:
        raise AssertionError

    def greet(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            said.append(secure.recv(65_536))

    with listening(talk, greet) as server:
        endpoint = Endpoint(
            f"wss://127.0.0.1:{server.port}", token=TOKEN, tls_ca=str(tls.ca), open_timeout=5.0
        )
        with pytest.raises(LinkBroken, match=words or ".") as caught:
            asyncio.run(Producer(endpoint, TOPIC, ProducerOptions()).open())
        assert AdminApi(endpoint).get("clusters").status == 0
        assert asyncio.run(_ask(endpoint, "clusters"))[0] == 0
        problem = gather_service(endpoint).tls_problem
    assert TOKEN not in repr(caught.value)
    if words is None:
        # The control: a server that is good hears it from all but doctor, which sends nothing.
        assert problem is None
        assert sum(TOKEN.encode() in each for each in said) == 3
    else:
        assert problem
        assert b"".join(said) == b""


def test_the_name_is_checked_where_the_settings_give_one(tls: TLSFiles, tmp_path: Path) -> None:
    """``stargate_tls_server_name`` replaces the URL's host, and is checked as that is."""
    context = wrong_name(tmp_path, tls)

    def greet(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65_536)

    with listening(lambda *_: None, greet) as server:
        endpoint = Endpoint(f"wss://127.0.0.1:{server.port}", tls_ca=str(tls.ca))
        assert gather_service(replace(endpoint, tls_server_name="example.org")).tls_problem is None
        assert gather_service(replace(endpoint, tls_server_name="other.org")).tls_problem


def test_nothing_switches_the_checks_off() -> None:
    """Neither a setting nor a line of ours."""
    assert [name for name in TABLE if "verify" in name or "insecure" in name] == []
    # The options of Redis are redis-py's own.
    package = Path(celery_stargate.__file__).parent / "pulsar"
    texts = [path.read_text("utf-8") for path in package.rglob("*.py")]
    for words in ("CERT_NONE", "check_hostname", "_create_unverified", "verify_mode"):
        assert not any(words in each for each in texts)
