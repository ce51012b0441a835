"""Remote control: the operators' questions, asked of a worker through Celery's broker.

``celery inspect stargate_status``, ``stargate_lanes``, ``stargate_dead`` and ``stargate_settings``;
``celery control stargate_pause TOPIC`` and ``stargate_resume TOPIC``. Importing this module
registers them, in workers and in the command that asks.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec
from celery.worker.control import control_command, inspect_command
from redis.exceptions import RedisError

from celery_stargate.calls.runtime import Runtime
from celery_stargate.errors import StargateError
from celery_stargate.operations.dead_letters import dead_letters_of
from celery_stargate.operations.doctor.peers import settings_here
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.pausing import Pauses
from celery_stargate.operations.reading import reader_of

__all__: list[str] = []

#: A reply of remote control is one message; there may be very many lanes.
_LANES = 200
#: How long a pause lasts if nothing else is said, in seconds.
_PAUSE = 3600.0


def _problem(error: Exception) -> dict[str, str]:
    """Return what ``inspect`` shows as an error."""
    return {"error": str(error)}


@inspect_command()
def stargate_status(state: Any) -> dict[str, Any]:
    """Totals of all lanes, as ``celery stargate status --json`` prints them."""
    try:
        return _fields(LaneInspector(reader_of(Runtime.of(state.app))).status())
    except (StargateError, RedisError, OSError) as error:
        return _problem(error)


@inspect_command()
def stargate_lanes(state: Any) -> list[dict[str, Any]] | dict[str, Any]:
    """The first 200 lanes, as ``celery stargate lanes --json`` prints them."""
    try:
        found = LaneInspector(reader_of(Runtime.of(state.app))).lanes()
        return [_fields(lane) for lane in islice(found, _LANES)]
    except (StargateError, RedisError, OSError) as error:
        return _problem(error)


@inspect_command()
def stargate_settings(state: Any) -> dict[str, Any]:
    """What all processes of a system must agree about; ``doctor`` compares it."""
    try:
        runtime = Runtime.of(state.app)
        return _fields(settings_here(runtime.settings, runtime.connections.sync()))
    except (StargateError, RedisError, OSError) as error:
        return _problem(error)


@inspect_command()
def stargate_dead(state: Any) -> dict[str, Any]:
    """How many dead letters there are, by topic and error."""
    try:
        return _fields(dead_letters_of(Runtime.of(state.app)).totals())
    except (StargateError, RedisError, OSError) as error:
        return _problem(error)


@control_command(args=[("topic", str), ("seconds", float)], signature="TOPIC [SECONDS=3600]")
def stargate_pause(state: Any, topic: str, seconds: float = _PAUSE) -> dict[str, Any]:
    """Stop the sending of a topic for a while; what is recorded waits."""
    try:
        runtime = Runtime.of(state.app)
        parsed, options = runtime.settings.resolve(topic)
        pauses = Pauses(reader_of(runtime), runtime.settings.keyspace)
        return {"ok": {"paused": pauses.pause(str(parsed), options.lane_count, float(seconds))}}
    except (StargateError, RedisError, OSError) as error:
        return _problem(error)


@control_command(args=[("topic", str)], signature="TOPIC")
def stargate_resume(state: Any, topic: str) -> dict[str, Any]:
    """End the pause of a topic."""
    try:
        runtime = Runtime.of(state.app)
        parsed, options = runtime.settings.resolve(topic)
        pauses = Pauses(reader_of(runtime), runtime.settings.keyspace)
        return {"ok": {"resumed": pauses.resume(str(parsed), options.lane_count)}}
    except (StargateError, RedisError, OSError) as error:
        return _problem(error)


def _fields(view: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(view)
    return found
