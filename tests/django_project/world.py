"""What the tests of the outbox are made with, where no server takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from celery_stargate import Stargate, StoreUnavailable
from celery_stargate.contrib.django import lanes
from celery_stargate.model.outcome import Failure, Receipt

__all__ = ["TOPIC", "FakeLanes", "make_stargate"]

TOPIC = "persistent://public/default/orders"


def make_stargate(**conf: Any) -> Stargate:
    """A Stargate whose servers nobody asks."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(
        broker_url="memory://",
        stargate_url="ws://localhost:1",
        stargate_redis_url="redis://localhost:1/0",
        stargate_topic=TOPIC,
        **conf,
    )
    return Stargate(app)


@dataclass
class FakeLanes:
    """Stands for the lanes in Redis: idempotent by context, in the order of the puts."""

    sent: list[lanes.Entry] = field(default_factory=list)
    #: Contexts that are known, and where: `pending` or `ended`.
    known: dict[str, lanes.Found] = field(default_factory=dict)
    away: bool = False
    full: set[str] = field(default_factory=set)
    #: Published callbacks: signature, outcome, task id.
    called: list[tuple[Any, dict[str, Any], str]] = field(default_factory=list)
    puts: int = 0
    #: Contexts whose dead letters were deleted, by topic.
    forgotten: list[Mapping[str, list[str]]] = field(default_factory=list)

    def record(
        self,
        stargate: Stargate,
        entries: Sequence[lanes.Entry],
        on_outcome: Any,
        *,
        remember: float,
    ) -> lanes.Recorded:
        if self.away:
            raise StoreUnavailable("Redis is away")
        self.puts += 1
        recorded = lanes.Recorded()
        for entry in entries:
            if entry.topic in self.full:
                recorded.full_topics.add(entry.topic)
                continue
            if entry.context not in self.known:
                self.known[entry.context] = lanes.Found("pending")
                self.sent.append(entry)
            recorded.lanes.setdefault(entry.lane, []).append(entry.context)
        return recorded

    def forget(self, stargate: Stargate, contexts: Mapping[str, list[str]]) -> int:
        if self.away:
            raise StoreUnavailable("Redis is away")
        self.forgotten.append(contexts)
        return 1

    def find_contexts(
        self, stargate: Stargate, places: Sequence[tuple[str, str]], *, remember: float
    ) -> list[lanes.Found]:
        if self.away:
            raise StoreUnavailable("Redis is away")
        return [self.known.get(context, lanes.Found("absent")) for _, context in places]

    def trigger(
        self, stargate: Stargate, packed: str, outcome: dict[str, Any], task_id: str
    ) -> None:
        self.called.append((packed, outcome, task_id))

    def payloads(self) -> list[str]:
        return [
            str(entry.message.payload, "utf-8")
            if isinstance(entry.message.payload, bytes)
            else entry.message.payload
            for entry in self.sent
        ]

    def receipt(self, context: str, message_id: str = "CAE=") -> dict[str, Any]:
        """The receipt of a context, which ends it."""
        self.known[context] = lanes.Found("ended")
        return Receipt(context=context, topic=TOPIC, message_id=message_id).to_dict()

    def failure(self, context: str, status: Any = "refused") -> dict[str, Any]:
        """A failure of a context, which ends it."""
        self.known[context] = lanes.Found("ended")
        return Failure(
            context=context, topic=TOPIC, status=status, reason="no such topic"
        ).to_dict()
