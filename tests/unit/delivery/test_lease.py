"""``delivery/lease.py``: messages are sent only while the lease is held."""

from __future__ import annotations

from itertools import product

import pytest

from celery_stargate.delivery.lease import LEASE_TRANSITIONS, Lease, LeaseEvent, LeaseState
from celery_stargate.support.machine import IllegalEvent, Machine
from tests.unit.helpers import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def lease(clock: Clock) -> Lease:
    """A lease of ten seconds, just taken."""
    return Lease("x", 10.0, clock)


@pytest.mark.parametrize(("state", "event"), list(product(LeaseState, LeaseEvent)))
def test_every_pair(state: LeaseState, event: LeaseEvent) -> None:
    """Leads where the table says; others are refused."""
    machine = Machine("the lease", LEASE_TRANSITIONS, state)
    if event in LEASE_TRANSITIONS[state]:
        assert machine.apply(event) is LEASE_TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalEvent):
            machine.apply(event)


def test_it_expires_without_a_renewal(lease: Lease, clock: Clock) -> None:
    """At the moment from which another may have it."""
    clock.now = 109.999
    assert lease.may_send()
    clock.now = 110.0
    assert not lease.may_send()
    assert lease.state is LeaseState.EXPIRED


def test_a_renewal_counts_from_when_redis_was_asked(lease: Lease, clock: Clock) -> None:
    """The answer may have been long on its way."""
    clock.now = 108.0
    lease.renewed(105.0)
    clock.now = 114.9
    assert lease.may_send()
    clock.now = 115.0
    assert not lease.may_send()


def test_a_renewal_after_it_expired(lease: Lease, clock: Clock) -> None:
    """Nobody else took it meanwhile, says Redis: it is held again."""
    clock.now = 120.0
    assert not lease.may_send()
    lease.renewed(119.0)
    assert lease.may_send()


def test_a_renewal_that_came_too_late_does_not_help(lease: Lease, clock: Clock) -> None:
    """It was asked for longer ago than a lease lasts, as after a pause of the process."""
    clock.now = 120.0
    lease.renewed(105.0)
    assert not lease.may_send()


def test_a_lost_lease_stays_lost(lease: Lease, clock: Clock) -> None:
    """Another owner has the lane."""
    lease.taken()
    assert lease.state is LeaseState.LOST
    assert not lease.may_send()
    with pytest.raises(IllegalEvent, match="the lease of lane x: event RENEWED is not possible"):
        lease.renewed(clock.now)
