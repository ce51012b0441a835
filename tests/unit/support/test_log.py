"""The loggers: what `websockets` says at DEBUG holds the token and the payloads."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from celery_stargate.support import log as log_module
from celery_stargate.support.log import Log, logger_of, websocket_logger

#: As users have it: the tests have another, which raises.
_REPORT = log_module._report  # noqa: SLF001


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
    assert caplog.record_tuples == [
        ("celery_stargate.websocket", logging.INFO, "connected"),
        ("celery_stargate.websocket", logging.WARNING, "odd"),
    ]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """The logger of a concern, with all its lines."""
    caplog.set_level(logging.DEBUG, "celery_stargate")
    return logger_of("celery_stargate.delivery.owner")


def test_a_concern_is_a_folder(log: Log) -> None:
    assert log.name == "celery_stargate.delivery"
    assert logger_of("celery_stargate.delivery.sender").logger is log.logger
    assert logger_of("celery_stargate.observers").name == "celery_stargate.observers"


def test_fields_stand_in_the_line_and_in_the_record(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """As ``key=value`` for people, and as attributes for formatters of JSON and for structlog."""
    log.warning(
        "Pulsar refuses it: %s", "no", lane="persistent://a/b/c#0", context="x y", task=None
    )
    [record] = caplog.records
    assert record.getMessage() == ('Pulsar refuses it: no lane=persistent://a/b/c#0 context="x y"')
    fields = {"lane": "persistent://a/b/c#0", "topic": "persistent://a/b/c", "context": "x y"}
    assert {name: vars(record).get(name) for name in (*fields, "task")} == {**fields, "task": None}
    assert "task" not in vars(record)
    # The line of the caller, and not of the adapter.
    assert record.filename == "test_log.py"


def test_a_percent_sign_stays_one(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.info("100 % done", context="c%s")
    log.info("100 % done")
    log.info("%d %% done", 100, context="c")
    assert caplog.messages == ["100 % done context=c%s", "100 % done", "100 % done context=c"]


def test_what_is_not_logged_costs_no_text(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    class Shown:
        def __str__(self) -> str:
            raise AssertionError("nobody reads it")

    caplog.set_level(logging.WARNING, "celery_stargate")
    log.info("%s", Shown(), context=Shown())
    log.debug("x", context=Shown())
    assert not caplog.records


def test_an_errors_traceback_is_kept(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("of a test")
    except ValueError:
        log.exception("failed", context="c")
    assert "ValueError: of a test" in caplog.text


class Broken:
    """A filter of a project, with a mistake."""

    error: Exception = AttributeError("no user")

    def filter(self, record: logging.LogRecord) -> bool:
        raise self.error


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Broken:
    """A filter that raises, on the handler of the root logger."""
    monkeypatch.setattr(log_module, "_report", _REPORT)
    found = Broken()
    monkeypatch.setattr(caplog.handler, "filter", found.filter)
    return found


@pytest.mark.usefixtures("broken")
def test_what_a_filter_raises_is_said_on_stderr(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    """As logging says what a handler raises: with the line, and where it was logged."""
    log.warning("no answer of %s", "Redis", lane="l#0")
    said = capsys.readouterr().err
    assert said.startswith("--- Logging error ---")
    assert "AttributeError: no user" in said
    assert "test_log.py" in said
    assert "Message: 'no answer of %s %s'\nArguments: ('Redis', 'lane=l#0')" in said
    websocket_logger.warning("of %s", "websockets")
    assert "Message: 'of %s'\nArguments: ('websockets',)" in capsys.readouterr().err


@pytest.mark.usefixtures("broken")
def test_what_a_filter_raises_where_logging_is_told_to_be_silent(
    log: Log, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said, as for handlers."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.warning("no answer")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("broken")
def test_what_a_filter_raises_where_stderr_is_a_log(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's is, and what is written there meets the same filter: the real one is used."""

    class Redirected(io.StringIO):
        def write(self, text: str) -> int:
            logging.getLogger("celery.redirected").warning(text)
            return len(text)

    real = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Redirected())
    monkeypatch.setattr(sys, "__stderr__", real)
    log.warning("no answer")
    assert "AttributeError: no user" in real.getvalue()
    real.close()
    log.warning("no answer, and no stderr")


def test_a_tasks_soft_time_limit_is_no_error_of_a_filter(log: Log, broken: Broken) -> None:
    """A signal's handler raises it wherever the task is."""
    broken.error = SoftTimeLimitExceeded()
    for each in (log, websocket_logger):
        with pytest.raises(SoftTimeLimitExceeded):
            each.warning("no answer")


def test_a_line_of_websockets_names_its_place(caplog: pytest.LogCaptureFixture) -> None:
    """The caller's, and not the adapter's."""
    websocket_logger.warning("odd")
    assert [each.filename for each in caplog.records] == ["test_log.py"]
