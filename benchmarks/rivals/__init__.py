"""The rivals, in the order of the tables. A group's first one is its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ..runner import Rival
from .bare import BareSendAsync, BareWebSocket
from .celery_task import NativeSendPrefork, NativeSendThreads, NoopTask
from .delay import CeleryDelay, LaneDelay
from .lane import LaneOnAck, LaneResults, LaneSilent
from .one_at_a_time import LaneGet, NoopGet, WebSocketRoundTrip

__all__ = ["GROUPS", "RIVALS", "find_rivals"]

#: Of each group: title, how it is measured, and unit.
GROUPS = {
    "drain": (
        "From Celery to Pulsar",
        (
            "Calls wait while the one worker is paused; the time is from its resume until the last "
            "result is stored (with `ignore_result`: the last context is finished; with `on_ack`: "
            "the last callback is published too)."
        ),
        "per_second",
    ),
    "delay": (
        "Calling `delay()`",
        "One caller, no worker.",
        "per_second",
    ),
    "one": (
        "One at a time",
        "Each call waits for its result, or for Pulsar's receipt, before the next.",
        "milliseconds",
    ),
    "bare": (
        "Without Celery",
        "One process, 1000 messages in flight, unbatched.",
        "per_second",
    ),
}

RIVALS: Sequence[type[Rival]] = (
    NoopTask,
    NativeSendPrefork,
    NativeSendThreads,
    LaneResults,
    LaneSilent,
    LaneOnAck,
    CeleryDelay,
    LaneDelay,
    NoopGet,
    LaneGet,
    WebSocketRoundTrip,
    BareSendAsync,
    BareWebSocket,
)


def find_rivals() -> tuple[list[Rival], dict[str, str]]:
    """Return those that can run here, and the others' titles with the reason."""
    found, left_out = [], {}
    for rival in RIVALS:
        missing = [each for each in rival.needs if find_spec(each) is None]
        if missing:
            left_out[rival.title] = f"no module {missing[0]} here"
        else:
            found.append(rival())
    return found, left_out
