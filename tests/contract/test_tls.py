"""`wss`, with certificates on both sides."""

from __future__ import annotations

import ssl

import pytest
from websockets.exceptions import WebSocketException

from tests.contract.wire import Broker, Socket, frame, ids, new_topic, producer_path


def open_secure(broker: Broker, context: ssl.SSLContext) -> Socket:
    """A producer over TLS."""
    return Socket(
        broker.secure_url + producer_path(new_topic()),
        {"Authorization": f"Bearer {broker.token}"},
        context,
    )


def test_wss(guarded: Broker) -> None:
    """With the authority and a certificate of one's own."""
    assert guarded.tls is not None
    assert guarded.secure_url.startswith("wss://")
    with open_secure(guarded, guarded.tls.client_context()) as producer:
        ids(producer.ask(frame()))


def test_without_the_authority(guarded: Broker) -> None:
    """The client refuses."""
    with pytest.raises(ssl.SSLCertVerificationError):
        open_secure(guarded, ssl.create_default_context())


def test_without_a_certificate(guarded: Broker) -> None:
    """The server refuses, which the client sees only when it reads."""
    assert guarded.tls is not None
    with pytest.raises((WebSocketException, OSError, EOFError)):
        open_secure(guarded, guarded.tls.client_context(certificate=False))
