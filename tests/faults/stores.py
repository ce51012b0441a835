"""Faults of the lanes' Redis: killed, frozen, read-only, full, without clients or scripts."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.faults.registry import Setup, fault
from tests.faults.trial import Trial

#: Longer than the lease, and than redis-py waits for an answer.
_LONG = 7.0


@fault(
    "redis-killed",
    "the lanes' Redis (`appendfsync always`) is killed with -9, and starts again on its file",
    setup=Setup(redis={"appendfsync": "always"}),
)
def _killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.redis.kill()
    yield
    trial.redis.start()


@fault("redis-killed-everysec", "the same with `appendfsync everysec`; the machine goes on")
def _killed_everysec(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.redis.kill()
    yield
    trial.redis.start()


@fault(
    "redis-killed-without-file",
    "the same without an append-only file, while Pulsar is away: Redis comes back empty",
    setup=Setup(appendonly=False, at=(0.3, 0.5)),
    strikes=1,
    repeats=False,
    control=("lost",),
)
def _control_no_file(trial: Trial, draw: random.Random) -> Iterator[None]:
    # What Pulsar has cannot be lost.
    trial.link.refuse()
    trial.allow(trial.calls() + trial.plan.messages // 10)
    trial.redis.kill()
    yield
    trial.redis.start()
    trial.link.accept()


@fault("redis-restarted", "the lanes' Redis is ended cleanly, and starts again")
def _restarted(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.redis.stop()
    yield
    trial.redis.start()


@fault(
    "redis-frozen",
    "the lanes' Redis is stopped (SIGSTOP) for longer than a lease and a client's patience",
    strikes=2,
    lasts=_LONG,
)
def _frozen(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.redis.pause()
    yield
    trial.redis.resume()


@fault("redis-paused", "`CLIENT PAUSE` for longer than a lease", strikes=2, lasts=_LONG)
def _paused(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store.client_pause(round(1000 * _LONG))
    yield


@fault(
    "redis-read-only",
    "the lanes' Redis is made a replica of a server that is not there, and a master again",
    strikes=2,
    lasts=4.0,
)
def _read_only(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store.replicaof("127.0.0.1", "1")
    yield
    trial.store.replicaof("NO", "ONE")


@fault("redis-full", "the lanes' Redis has no memory left (`maxmemory`)", strikes=2, lasts=4.0)
def _full(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store.config_set("maxmemory", 1)
    yield
    trial.store.config_set("maxmemory", 0)


@fault(
    "redis-clients-killed",
    "all connections to the lanes' Redis are ended (`CLIENT KILL`)",
    strikes=5,
    lasts=0.5,
)
def _clients_killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    _kill_clients(trial.store)
    yield


def _kill_clients(client: Any) -> None:
    for kind in ("normal", "pubsub"):
        client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@fault("redis-scripts-flushed", "`SCRIPT FLUSH`", strikes=5, lasts=0.5)
def _scripts_flushed(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store.script_flush()
    yield


@fault(
    "redis-password-changed",
    "the password changes and all connections end: nobody can log in for a while",
    strikes=2,
    lasts=4.0,
)
def _password(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.store.config_set("requirepass", "other")
    _kill_clients(trial.store)
    yield
    with redis.Redis(port=trial.redis.port, password="other") as client:
        client.config_set("requirepass", "")


def _no_tmpfs() -> str | None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "it mounts a tmpfs, which needs root"
    return None


@fault(
    "redis-disk-full",
    "the disk under the append-only file is full for a while",
    strikes=2,
    lasts=4.0,
    setup=Setup(disk="128m"),
    missing=_no_tmpfs,
)
def _disk_full(trial: Trial, draw: random.Random) -> Iterator[None]:
    filler = Path(trial.redis.data_dir) / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    yield
    filler.unlink()
