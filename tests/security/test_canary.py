"""Secrets that everything is searched for: a worker, a caller and an operator at DEBUG."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_stargate import ProduceError, Stargate
from celery_stargate.testing import LocalPulsar
from tests.acceptance.rig import WAIT, Rig, eventually
from tests.acceptance.test_broker import Events
from tests.integration.cli.conftest import Run
from tests.servers import redis as redis_module
from tests.servers.admin import PulsarAdmin
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer

TOKEN = "c4n4ry.t0k3n.s1gn4tur3"
PASSWORD = "c4n4ryp4ssw0rd"
PAYLOAD = "c4n4ryp4yl04d"
KEY = "c4n4ryk3y"
PROPERTY = "c4n4rypr0p3rty"
#: Of the message: it is in Redis while it waits, and in nothing that is shown.
CONTENT = (PAYLOAD, KEY, PROPERTY)
ALL = (TOKEN, PASSWORD, *CONTENT)


def everything(client: redis.Redis) -> bytes:
    """Return all that a Redis holds: keys, fields, members and values."""
    found: list[Any] = []
    for key in client.scan_iter(count=1000):
        found.append(key)
        match client.type(key):
            case b"string":
                found.append(client.get(key))
            case b"hash":
                found.append(client.hgetall(key))
            case b"list":
                found.append(client.lrange(key, 0, -1))
            case b"set":
                found.append(client.smembers(key))
            case b"zset":
                found.append(client.zrange(key, 0, -1))
            case b"stream":
                found.append(client.xrange(key))
    return repr(found).encode()


def assert_none(secrets: tuple[str, ...], where: str, text: str) -> None:
    """Assert that a text has none of them; where it has one, show the line and not all of it."""
    for secret in secrets:
        lines = [line[:500] for line in text.splitlines() if secret in line]
        assert not lines, f"{secret} is in {where}: {lines[:3]}"


def test_no_canary_is_seen(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Logs, reprs, errors with their tracebacks, Celery's events, Redis, and each command."""
    require(redis_module.missing_reason())
    caplog.set_level("DEBUG")
    for name in ("websockets", "websockets.client", "celery_stargate", "asyncio", "kombu"):
        caplog.set_level("DEBUG", logger=name)
    server = RedisServer(tmp_path / "redis", config={"requirepass": PASSWORD})
    url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
    message = {"payload": PAYLOAD, "key": KEY, "properties": {"p": PROPERTY}}
    with LocalPulsar(tokens={TOKEN: "admin"}) as local, server:
        admin = PulsarAdmin(local.http_url, token=TOKEN)
        conf = {"stargate_token": TOKEN, "worker_send_task_events": True}
        with Rig(local.url, admin, url, tmp_path, conf) as rig:
            shown = _live(rig, local, message)
            errors = _errors(rig, local, message)
            commands = "".join(
                (ran := run(*words, app=rig.app)).out + ran.err
                for words in (
                    *(["describe"], ["describe", "--json"], ["doctor"], ["doctor", "--json"]),
                    *(["status"], ["lanes"], ["workers"], ["pending"], ["dead", "list"]),
                )
            )
            reprs = " ".join(
                repr(each)
                for each in (
                    *(rig.stargate, rig.stargate.settings, rig.stargate.runtime, rig.produce),
                    *(rig.stargate.lanes, rig.stargate.runtime.connections, local),
                )
            )
            with redis.Redis.from_url(url) as client:
                stored = everything(client).decode()
                wait = eventually(lambda: PAYLOAD not in _lanes_of(client, rig), 5)
    said = [each for each in caplog.records if each.name != "websockets.server"]
    assert any(each.levelname == "DEBUG" for each in said)
    assert_none(ALL, "the caller's log", "\n".join(each.getMessage() for each in said))
    for where, text in shown.items():
        assert_none(ALL, where, text)
    assert_none(ALL, "an error", errors)
    assert_none(ALL, "a command", commands)
    assert_none(ALL, "a repr", reprs)
    assert_none((TOKEN, PASSWORD), "Redis", stored)
    assert wait, "what is finished is still in a lane"
    # The controls: what is searched holds what it should, so the search finds things.
    assert "received" in shown["the worker's log"]
    assert "task-succeeded" in shown["Celery's events"]
    assert "HTTP 404" in errors
    assert "pulsar-token" in commands
    assert rig.name in stored


def _live(rig: Rig, local: LocalPulsar, message: dict[str, Any]) -> dict[str, str]:
    """Publish in each way beside a worker at DEBUG, with faults; return what was shown."""
    with (
        rig.worker(pool="solo", args=("-E", "--loglevel", "DEBUG")) as worker,
        Events(rig) as events,
    ):
        key = rig.key()
        local.faults.refuse_handshakes(503, count=1)
        first = rig.produce.delay(message, on_ack=rig.record(key))
        assert first.get(timeout=WAIT)["status"] == "stored"
        local.faults.garbage_receipts(1)
        many = rig.produce.delay([message, message])
        assert len(many.get(timeout=WAIT)) == 2
        by_broker = rig.produce.apply_async((message,), via="broker")
        assert by_broker.get(timeout=WAIT)["status"] == "stored"
        local.faults.refuse_handshakes(404, count=1)
        local.drop_connections()
        failed = rig.produce.delay(message, on_error=rig.record(key))
        with pytest.raises(ProduceError):
            failed.get(timeout=WAIT)
        assert rig.stargate.produce(message, timeout=WAIT)
        rig.recorded(key, 2)
        ids = {first.id, many.id, by_broker.id, failed.id}
        for each in ids - {failed.id}:
            assert "task-succeeded" in events.wait_for(each, "task-succeeded")
        assert "task-failed" in events.wait_for(failed.id, "task-failed")
        inspected = [
            getattr(rig.app.control.inspect(timeout=0.7), what)() for what in ("stats", "conf")
        ]
    return {
        "the worker's log": worker.log(),
        "Celery's events": json.dumps(events.seen, default=repr),
        "inspect": json.dumps(inspected, default=repr),
    }


def _errors(rig: Rig, local: LocalPulsar, message: dict[str, Any]) -> str:
    """Return errors of all kinds, with their causes and tracebacks."""
    found: list[str] = []
    stargate: Stargate = rig.stargate

    def catch(call: Any) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # whatever it is
            found.extend(traceback.format_exception(error))
            found.append(repr(error))
        else:
            raise AssertionError("no error")

    local.faults.refuse_handshakes(404, count=2)
    catch(lambda: stargate.produce(message, topic=rig.topic("e"), timeout=WAIT))
    catch(lambda: rig.produce.delay({**message, "oops": PAYLOAD}))
    catch(lambda: rig.produce.delay({**message, "properties": {"p": [PROPERTY]}}))
    catch(lambda: rig.produce.delay((KEY, PAYLOAD, PROPERTY)))  # type: ignore[arg-type]
    catch(lambda: rig.produce.delay({"payload": PAYLOAD * 200_000}))
    catch(lambda: rig.produce.delay(message, on_ack=PAYLOAD))  # type: ignore[call-overload]
    return "\n".join(found)


def _lanes_of(client: redis.Redis, rig: Rig) -> str:
    """Return what the lanes of the first topic hold, their dead letters left out."""
    keys = [
        key
        for key in client.scan_iter(count=1000)
        if rig.topic_name.encode() in key and key.endswith((b":log", b":contexts"))
    ]
    return repr(
        [client.hgetall(k) if client.type(k) == b"hash" else client.xrange(k) for k in keys]
    )
