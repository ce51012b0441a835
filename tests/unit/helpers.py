"""What the fast tests share: an app without servers, and lanes that only take notes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from kombu.utils import json

from celery_stargate import Failure, LaneFull, ProduceTask, Receipt, Stargate
from celery_stargate.lanes.inbox import InboxEntry
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.waiter import Waiter
from celery_stargate.model.outcomes import CallOutcomes

TOPIC = "persistent://public/default/orders"
#: Texts that must be found nowhere.
SECRETS = ("s3cr3t-payload", "s3cr3t-key", "s3cr3t-token")


def make_app(**conf: Any) -> Celery:
    """Return an app whose broker and results are in memory, with `stargate_url` and a topic."""
    app = Celery(f"unit-{uuid.uuid4().hex}", set_as_current=False)
    app.conf.update(
        broker_url="memory://",
        result_backend="cache+memory://",
        stargate_url="ws://pulsar.invalid:8080",
        stargate_redis_url="redis://redis.invalid:6379/0",
        stargate_topic=TOPIC,
        # All memory brokers of a process are one.
        task_default_queue=uuid.uuid4().hex,
    )
    app.conf.update(**conf)
    return app


@dataclass
class Put:
    """One call of `put`."""

    lane: Lane
    record: Record
    messages: Sequence[tuple[str, bytes]]
    options: dict[str, Any]


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class NotedLoopLanes:
    """Stand where `LoopOutbox` does: the same lanes, for the calls of an event loop."""

    lanes: NotedLanes

    async def begin(self, asked: AskedPut, waiter: Waiter, seconds: float) -> None:
        """Note it."""
        names = ("timeout", "max_backlog", "tombstone", "exclusive", "options")
        given = {name: getattr(asked, name) for name in names}
        waiter.recorded(self.lanes.put(asked.lane, asked.record, asked.messages, **given))

    async def subscribe(
        self, inbox: str, handled: Sequence[str], timeout: float
    ) -> list[InboxEntry]:
        """Nothing comes by Redis."""
        await asyncio.sleep(0.01)
        return []

    async def aclose(self) -> None:
        """Do nothing."""


@dataclass
class NotedLanes:
    """Stand where `Outbox` does, and note what is asked."""

    puts: list[Put] = field(default_factory=list)
    told: list[tuple[str, CallOutcomes]] = field(default_factory=list)
    finished: list[tuple[str, int]] = field(default_factory=list)
    settled: list[tuple[Lane, Any, int]] = field(default_factory=list)
    #: What `settle` answers.
    completes: Settled | None = None
    #: What `expire` answers, once.
    overdue: list[Settled] = field(default_factory=list)
    #: What `put` raises.
    error: Exception | None = None
    #: How many messages each lane is said to hold.
    backlogs: dict[str, int] = field(default_factory=dict)

    def put(
        self, lane: Lane, record: Record, messages: Sequence[tuple[str, bytes]], **options: Any
    ) -> int:
        """Note it."""
        if self.error is not None:
            raise self.error
        self.puts.append(Put(lane, record, messages, options))
        return len(self.puts)

    def in_loop(self) -> NotedLoopLanes:
        """Stand where `Outbox.in_loop` does."""
        return NotedLoopLanes(self)

    def reserve(self, counts: Mapping[Lane, int], max_backlog: int) -> str:
        """Refuse where a lane is said to hold too much."""
        for lane, count in counts.items():
            held = self.backlogs.get(lane.name, 0)
            if held + count > max_backlog:
                raise LaneFull(lane.name, held, max_backlog)
        return "room:1"

    def settle(
        self,
        lane: Lane,
        outcome: Any,
        *,
        place: int = -1,
        anyone: bool = False,
        first: int | None = None,
    ) -> tuple[str, Settled | None]:
        """Note it; the context is complete where the test says so."""
        assert anyone
        self.settled.append((lane, outcome, place))
        return ("due", self.completes) if self.completes is not None else ("part", None)

    def finish(self, lane: Lane, done: Sequence[Settled]) -> None:
        """Note it."""
        self.finished += [each.identity for each in done]

    def expire(self, lane: Lane, context: str = "") -> list[Settled]:
        """Answer what the test prepared."""
        found, self.overdue = self.overdue, []
        return found

    @property
    def inboxes(self) -> NotedLanes:
        """Where `notify` is."""
        return self

    @property
    def registry(self) -> NotedLanes:
        """Where `survey` and `owners` are."""
        return self

    def notify(self, address: str, call: CallOutcomes) -> None:
        """Note it."""
        self.told.append((address, call))

    def backlog(self, lane: Lane) -> int:
        """Answer what the test prepared."""
        return self.backlogs.get(lane.name, 0)

    def tell_peers(self, *_: Any) -> tuple[int, dict[str, bytes]]:
        """Nobody told anything."""
        return 0, {}

    def remove_ended(self) -> bool:
        """No process has ended."""
        return False

    def survey(self) -> tuple[int, list[Lane]]:
        """One producer worker is alive."""
        return 1, []

    def owners(self) -> int:
        """As many as the survey tells."""
        return self.survey()[0]


def sent_by_broker(app: Celery) -> Any:
    """Return the body of the next message in the app's default queue; None where there is none."""
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        channel.queue_declare(app.conf.task_default_queue)
        found = channel.basic_get(app.conf.task_default_queue, no_ack=True)
    return None if found is None else json.loads(found.body)


def make_stargate(**conf: Any) -> tuple[Stargate, NotedLanes, ProduceTask]:
    """Return a Stargate over lanes that take notes, these lanes, and the app's produce task."""
    stargate = Stargate(make_app(**conf))
    lanes = NotedLanes()
    stargate.runtime.__dict__["outbox"] = lanes
    task = stargate.app.tasks[ProduceTask.default_name]
    assert isinstance(task, ProduceTask)
    return stargate, lanes, task


def receipt(context: str = "c", **fields: Any) -> Receipt:
    """Return a receipt as Pulsar's would be."""
    given: dict[str, Any] = {
        "topic": TOPIC,
        "message_id": "CAwQADAA",
        "ledger_id": 12,
        "entry_id": 0,
        "partition": -1,
        "batch_index": -1,
    }
    return Receipt(context=context, **{**given, **fields})


def failure(context: str = "c", **fields: Any) -> Failure:
    """Return a failure as Pulsar's would be."""
    return Failure(context=context, topic=TOPIC, **{"reason": "no", "code": "http-404", **fields})
