"""The lease of an owned lane: whether its messages may be sent now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from celery_stargate.support.machine import Machine

__all__ = ["LEASE_TRANSITIONS", "Lease", "LeaseEvent", "LeaseState"]


class LeaseState(Enum):
    """Who may have the lane."""

    HELD = "held"  #: this owner and nobody else
    EXPIRED = "expired"  #: it was not renewed in time: another may have it, so nothing is sent
    LOST = "lost"  #: another owner has it


class LeaseEvent(Enum):
    """What happens to a lease."""

    RENEWED = "renewed"  #: Redis renewed it
    TIME_OVER = "time over"  #: it was not renewed for as long as it lasts
    TAKEN = "taken"  #: Redis says that another owner has the lane


LEASE_TRANSITIONS: Mapping[LeaseState, Mapping[LeaseEvent, LeaseState]] = {
    LeaseState.HELD: {
        LeaseEvent.RENEWED: LeaseState.HELD,
        LeaseEvent.TIME_OVER: LeaseState.EXPIRED,
        LeaseEvent.TAKEN: LeaseState.LOST,
    },
    LeaseState.EXPIRED: {
        LeaseEvent.RENEWED: LeaseState.HELD,
        LeaseEvent.TAKEN: LeaseState.LOST,
    },
    LeaseState.LOST: {},
}


class Lease:
    """A lease that was just taken, as this process's clock sees it.

    Arguments:
        lane: its name, for errors.
        seconds: how long it lasts without a renewal.
        monotonic: the clock, in seconds.
    """

    def __init__(self, lane: str, seconds: float, monotonic: Callable[[], float]) -> None:
        self._machine = Machine(f"the lease of lane {lane}", LEASE_TRANSITIONS, LeaseState.HELD)
        self._seconds = seconds
        self._monotonic = monotonic
        #: Until then nobody else can have it.
        self._ours_until = monotonic() + seconds

    @property
    def state(self) -> LeaseState:
        """Who may have the lane now."""
        if self._machine.state is LeaseState.HELD and self._monotonic() >= self._ours_until:
            self._machine.apply(LeaseEvent.TIME_OVER)
        return self._machine.state

    def may_send(self) -> bool:
        """Whether messages may be sent now: a process that was paused finds that it may not."""
        return self.state is LeaseState.HELD

    def renewed(self, asked_at: float) -> None:
        """Note a renewal.

        Arguments:
            asked_at: the clock's time before Redis was asked.

        Raises:
            IllegalEvent: the lease is lost.
        """
        self._machine.apply(LeaseEvent.RENEWED)
        self._ours_until = asked_at + self._seconds

    def taken(self) -> None:
        """Note that another owner has the lane.

        Raises:
            IllegalEvent: that was noted before.
        """
        self._machine.apply(LeaseEvent.TAKEN)
