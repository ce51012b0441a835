"""The rivals, in the order of the tables. A group's first one is its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.runner import Rival

from .as_run import AS_RUN
from .bare import (
    ASYNC_OF_SIZE,
    WEBSOCKET_OF_SIZE,
    BareSendAsync,
    BareSendAsyncBatched,
    BareWebSocket,
)
from .bulk import BULK, LANES_RIVALS, OF_SIZE, SIZES, WAITS_OF_SIZE
from .celery_task import NativeSendPrefork, NativeSendThreads, NoopTask
from .delay import CeleryDelay, LaneDelay, LaneDelayLists, ProduceMany
from .floors import (
    FLOOR_OF_SIZE,
    FLOOR_WAITS_OF_SIZE,
    FLOORS_AS_RUN,
    FLOORS_BULK,
    FLOORS_ONE,
    FLOORS_TOGETHER,
)
from .lane import LaneChain, LaneLists, LaneOnAck, LaneResults, LaneSilent
from .one_at_a_time import (
    AproduceWaits,
    LaneGet,
    LaneGetHalfLoad,
    NoopGet,
    ProduceWaits,
    WebSocketRoundTrip,
)
from .together import TOGETHER

__all__ = ["GROUPS", "RIVALS", "find_rivals"]

#: Of each group: title, how it is measured, and unit.
GROUPS = {
    "as-run": (
        "As people run it",
        (
            "The worker logs at INFO, has a pool of two processes, and stores results. All calls "
            "are made while it is paused; the time runs from its resume until the last result is "
            "stored and what goes on from it is published."
        ),
        "per_second",
    ),
    "as-run-events": (
        "The same, and the worker sends task events (`-E`)",
        "As before.",
        "per_second",
    ),
    "as-run-chord": (
        "Chords of 100",
        "Until the bodies are published; nobody runs them. The tasks of the headers are counted.",
        "per_second",
    ),
    "drain": (
        "From Celery to Pulsar",
        (
            "All calls are made while the one worker is paused. The time runs from its resume "
            "until the last result is stored (with `ignore_result`: until the last context is "
            "finished; with `on_ack` or a chain: until the next task is published too). For lists, "
            "messages are counted."
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
        (
            "Each call waits for its result, or for Pulsar's receipt, before the next one. The "
            "ratios compare medians."
        ),
        "milliseconds",
    ),
    "together": (
        "At the same time",
        "From one process, with one lane and one worker; each call waits for its receipt.",
        "per_second",
    ),
    "bulk": (
        "In bulk",
        (
            "From the first put until every message is settled and finished, with one lane and one "
            "running worker; 1000 messages in flight, without batching unless a title says so. The "
            "bare loops use no Celery and no Redis, and lose what they hold when they end."
        ),
        "per_second",
    ),
    "lanes": (
        "Lanes and workers",
        (
            "`produce_many` makes a backlog while the workers are paused. The time runs from their "
            "resume until the last context is finished."
        ),
        "per_second",
    ),
    **{
        f"size-{size}": (
            f"Messages of {words}",
            "As in bulk, one lane, unbatched.",
            "per_second",
        )
        for size, words, _ in SIZES
    },
}

RIVALS: Sequence[type[Rival]] = (
    *AS_RUN,
    *FLOORS_AS_RUN,
    NoopTask,
    NativeSendPrefork,
    NativeSendThreads,
    LaneResults,
    LaneSilent,
    LaneOnAck,
    LaneChain,
    LaneLists,
    CeleryDelay,
    LaneDelay,
    LaneDelayLists,
    ProduceMany,
    NoopGet,
    LaneGet,
    LaneGetHalfLoad,
    ProduceWaits,
    AproduceWaits,
    WebSocketRoundTrip,
    *FLOORS_ONE,
    *TOGETHER,
    *FLOORS_TOGETHER,
    BareSendAsync,
    BareWebSocket,
    *BULK[:3],
    BareSendAsyncBatched,
    *BULK[3:],
    *FLOORS_BULK,
    *LANES_RIVALS,
    *(
        of_size[size]
        for size, _, _ in SIZES
        for of_size in (
            *(WEBSOCKET_OF_SIZE, ASYNC_OF_SIZE, OF_SIZE, WAITS_OF_SIZE),
            *(FLOOR_OF_SIZE, FLOOR_WAITS_OF_SIZE),
        )
    ),
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
