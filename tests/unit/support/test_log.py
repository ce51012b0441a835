"""The loggers: what `websockets` says at DEBUG holds the token and the payloads."""

from __future__ import annotations

import logging

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from celery_stargate.support.log import logger, websocket_logger


def converse(log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
    """Send a handshake with a token, and let the connection log a frame as it does."""
    protocol = ClientProtocol(parse_uri("ws://host/"), logger=log)
    request = protocol.connect()
    request.headers["Authorization"] = "Bearer s3cr3t"
    protocol.send_request(request)
    if protocol.debug:
        protocol.logger.debug("> %s", Frame(Opcode.TEXT, b"s3cr3t"))


def test_websockets_would_tell(caplog: pytest.LogCaptureFixture) -> None:
    """So the next test can fail."""
    caplog.set_level(logging.DEBUG)
    converse(logging.getLogger("another"))
    assert "s3cr3t" in caplog.text


def test_ours_does_not(caplog: pytest.LogCaptureFixture) -> None:
    """Even where all of logging is at DEBUG."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="celery_stargate.websocket")
    converse(websocket_logger)
    websocket_logger.debug("s3cr3t")
    websocket_logger.log(logging.DEBUG, "s3cr3t")
    assert not websocket_logger.isEnabledFor(logging.DEBUG)
    assert caplog.text == ""


def test_the_rest_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Under the package's own name."""
    caplog.set_level(logging.INFO)
    websocket_logger.info("connected")
    websocket_logger.warning("odd")
    logger.info("mine")
    assert caplog.record_tuples == [
        ("celery_stargate.websocket", logging.INFO, "connected"),
        ("celery_stargate.websocket", logging.WARNING, "odd"),
        ("celery_stargate", logging.INFO, "mine"),
    ]
