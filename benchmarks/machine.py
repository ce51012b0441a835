"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from redis import Redis

from tests.servers.admin import PulsarAdmin

__all__ = ["count_cores", "describe_machine", "find_versions"]

_PACKAGES = ("celery", "kombu", "redis", "websockets", "msgspec", "pulsar-client")


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> dict[str, str]:
    """Return the processor, its cores, the memory, the system, and how busy it is just now."""
    cores = count_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _processor(),
        "cores": f"{cores} core{'s' if cores != 1 else ''} for all, servers included",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "load": f"load {os.getloadavg()[0]:.1f} before the run",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def find_versions(redis_url: str, pulsar_http_url: str) -> dict[str, str]:
    """Return the versions of the servers, of Python and of the packages."""
    with Redis.from_url(redis_url) as client:
        redis_version = str(client.info("server")["redis_version"])
    found = {
        "Pulsar": str(PulsarAdmin(pulsar_http_url).call("GET", "brokers/version")),
        "Redis": redis_version,
        "Python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            name = "redis-py" if package == "redis" else package
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found
