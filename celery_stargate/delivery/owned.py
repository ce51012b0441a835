"""One owned lane, as all parts of its owner see it."""

from __future__ import annotations

from dataclasses import dataclass, field

from celery_stargate.delivery.retry import Retry
from celery_stargate.delivery.shared import Shared
from celery_stargate.delivery.states import LaneMachine
from celery_stargate.delivery.telling import Telling
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.model.options import ProducerOptions
from celery_stargate.pulsar.session import Counters
from celery_stargate.support.changes import Changes

__all__ = ["OwnedLane"]


@dataclass(frozen=True, slots=True)
class OwnedLane:
    """A lane whose lease this process took."""

    store: LeasedLane
    #: Of the lane's topic.
    options: ProducerOptions
    shared: Shared
    machine: LaneMachine
    retry: Retry
    telling: Telling
    counters: Counters = field(default_factory=Counters)
    #: Announces that less is in flight, being settled, or waiting for its effects.
    changes: Changes = field(default_factory=Changes)

    @property
    def name(self) -> str:
        """The lane's name."""
        return self.store.lane.name
