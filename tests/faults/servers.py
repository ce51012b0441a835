"""Faults of Pulsar and of its topics: killed, frozen, restarted; unloaded, ended, deleted, full."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress

from tests.faults.checker import Promise
from tests.faults.registry import Setup, fault
from tests.faults.trial import IDLE_SESSION, Trial
from tests.servers.admin import AdminError

_NAMESPACE = "public/default"


#: While a broker starts, connections break again and again.
_AGAIN = Promise(any_copies=True)


@fault(
    "pulsar-killed",
    "Pulsar is killed with -9, and starts again on its data",
    strikes=1,
    promise=_AGAIN,
)
def _killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.own_pulsar.kill()
    yield
    trial.own_pulsar.start()


@fault("pulsar-restarted", "Pulsar is ended cleanly, and starts again", strikes=1, promise=_AGAIN)
def _restarted(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.own_pulsar.stop()
    yield
    trial.own_pulsar.start()


@fault(
    "pulsar-frozen",
    "Pulsar is stopped (SIGSTOP) for longer than pings and sessions last, then goes on",
    strikes=2,
    lasts=IDLE_SESSION + 2.0,
    promise=_AGAIN,
    setup=Setup(conf={"stargate_ping_timeout": 2.0}),
)
def _frozen(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.own_pulsar.pause()
    yield
    trial.own_pulsar.resume()


@fault("topic-unloaded", "the broker closes the topic and loads it again", strikes=4, lasts=0.5)
def _unloaded(trial: Trial, draw: random.Random) -> Iterator[None]:
    # Among messages that Pulsar stores at that moment: their own receipts are lost.
    trial.link.release()
    time.sleep(draw.uniform(0.0, 0.2))
    trial.rig.admin.unload(trial.topic)
    yield


@fault(
    "topic-terminated",
    "the topic is ended for good: what is not stored is told, at its deadline at the latest",
    strikes=1,
    repeats=False,
    promise=Promise(failures=True),
)
def _terminated(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.release()
    trial.rig.admin.terminate(trial.topic)
    yield


@fault(
    "topic-deleted",
    "the topic is deleted with all it holds, and made again: what was stored before is gone",
    strikes=1,
    repeats=False,
    promise=Promise(forgotten=True, failures=True, order=False),
)
def _deleted(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.rig.admin.delete(trial.topic)
    # A producer may have made it again.
    with suppress(AdminError):
        trial.rig.admin.create_topic(trial.topic)
    trial.rig.admin.create_subscription(trial.topic, "keep-again")
    yield


@fault(
    "backlog-quota",
    "the topic's backlog is over its quota for a while: the broker drops and refuses producers",
    strikes=2,
    lasts=4.0,
)
def _quota(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.rig.admin.set_backlog_quota(_NAMESPACE, limit_bytes=1)
    yield
    trial.rig.admin.set_backlog_quota(_NAMESPACE, limit_bytes=1 << 40)
