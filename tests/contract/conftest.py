"""The two brokers of the contract, with and without tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_stargate.testing import LocalPulsar
from tests.contract.wire import TOKEN_SECRET, Broker
from tests.servers import credentials
from tests.servers import pulsar as pulsar_module
from tests.servers.fixtures import PulsarAddress, require


class _LocalServer:
    """`LocalPulsar`, killed and started like a real server."""

    def __init__(self, local: LocalPulsar) -> None:
        self.start = local.start
        self.kill = local.stop


@pytest.fixture(scope="session", params=["local", "real"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """`LocalPulsar`, then the real broker."""
    if request.param == "local":
        with LocalPulsar() as local:
            yield Broker(local.url, local.http_url)
        return
    real: PulsarAddress = request.getfixturevalue("pulsar")
    yield Broker(real.url, real.http_url)


@pytest.fixture(scope="session", params=["local", "real"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """The same two, demanding tokens and, over TLS, a client's certificate. They are this
    process's own: a test may kill them, and must start them again."""
    require(credentials.tls_missing_reason())
    folder = tmp_path_factory.mktemp("guarded")
    token = credentials.make_token(TOKEN_SECRET, "admin")
    tls = credentials.make_tls(folder / "tls", require_client=True)
    if request.param == "local":
        with (
            LocalPulsar(token_secret=TOKEN_SECRET) as local,
            LocalPulsar(token_secret=TOKEN_SECRET, ssl_context=tls.server_context()) as secure,
        ):
            yield Broker(
                local.url, local.http_url, token, secure.url, tls, server=_LocalServer(local)
            )
        return
    require(pulsar_module.missing_reason())
    server = pulsar_module.PulsarServer(folder / "data", token_secret=TOKEN_SECRET, tls=tls)
    server.start()
    try:
        plain = server.http_url.replace("http", "ws", 1)
        yield Broker(plain, server.http_url, token, server.url, tls, server=server)
    finally:
        server.kill()
