"""Questions to the admin API: an answer, or why there is none; never an error, never a redirect."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from celery_stargate.pulsar import admin
from celery_stargate.pulsar.admin import AdminAnswer, AdminApi
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.testing import LocalPulsar
from tests.servers.admin import PulsarAdmin
from tests.servers.credentials import make_token
from tests.servers.ports import free_ports

_SECRET = b"the secret of the admin tests, long enough"


def test_returns_the_json_of_an_answer(local: LocalPulsar, topic: str) -> None:
    PulsarAdmin(local.http_url).create_topic(topic)
    api = AdminApi(Endpoint(local.url))
    found = api.get(f"{topic.replace('://', '/')}/partitions")
    assert (found.status, found.fields) == (200, {"partitions": 0})
    assert api.get("persistent/public/default/nothere/stats") == AdminAnswer(404, None)
    assert api.get("nothing").fields == {}


def test_sends_the_token() -> None:
    with LocalPulsar(token_secret=_SECRET) as local:
        with_token = AdminApi(Endpoint(local.url, token=make_token(_SECRET, "admin")))
        assert with_token.get("brokers/health").status != 401
        assert AdminApi(Endpoint(local.url)).get("brokers/health").status == 401


def test_no_server_is_status_0() -> None:
    [port] = free_ports(1)
    assert AdminApi(Endpoint(f"ws://127.0.0.1:{port}")).get("x") == AdminAnswer(0, None)


def test_a_name_of_its_own_for_the_certificate_is_not_asked(local: LocalPulsar) -> None:
    """http.client would check the certificate against the host's name."""
    endpoint = Endpoint(local.url, tls_server_name="pulsar.example")
    assert AdminApi(endpoint).get("brokers/health") == AdminAnswer(0, None)


class _Answers(BaseHTTPRequestHandler):
    """What no broker should answer."""

    def do_GET(self) -> None:
        if self.path.endswith("/redirect"):
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            return
        if self.path.endswith("/slow"):
            self._answer_byte_by_byte()
            return
        body = {"/admin/v2/garbage": b"no JSON", "/admin/v2/list": b"[1]"}.get(self.path, b"")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer_byte_by_byte(self) -> None:
        """Until the client is gone."""
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b" ")
                time.sleep(0.02)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def odd() -> Iterator[AdminApi]:
    """The API of a server that is no broker."""
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield AdminApi(Endpoint(f"ws://127.0.0.1:{server.server_port}"))
        server.shutdown()
        thread.join()


def test_follows_no_redirect(odd: AdminApi) -> None:
    assert odd.get("redirect") == AdminAnswer(307, None)


def test_an_answer_that_comes_byte_by_byte(odd: AdminApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time, and no end: the question ends, and no other is asked."""
    monkeypatch.setattr(admin, "_TIMEOUT", 0.3)
    monkeypatch.setattr(admin, "_MAX_ANSWER", 60)
    began = time.monotonic()
    assert odd.get("slow") == AdminAnswer(0, None)
    assert odd.get("list") == AdminAnswer(0, None)
    assert time.monotonic() - began < 20


def test_what_is_no_json_is_no_answer(odd: AdminApi) -> None:
    assert odd.get("garbage") == AdminAnswer(0, None)
    assert odd.get("empty") == AdminAnswer(200, None)
    assert odd.get("list") == AdminAnswer(200, [1])
    assert odd.get("list").fields == {}
