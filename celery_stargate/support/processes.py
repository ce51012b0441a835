"""Names of processes, from which others on the same machine can tell that one has ended."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from contextlib import suppress
from pathlib import Path

__all__ = ["has_ended", "name_prefix", "process_name"]

_NAME = re.compile(r".*-(\d+)-([0-9a-f]+)\.(\d+)\.[0-9a-f]+")


def name_prefix() -> str:
    """Return what all names of this process begin with: its host and its process id."""
    return f"{socket.gethostname()}-{os.getpid()}-"


def process_name() -> str:
    """Return a new name of this process.

    It holds what tells this process from another one that gets its process id later: which kernel
    and namespace of process ids it runs in, and when it began. Where the system does not tell, the
    name holds a random number in that place.
    """
    machine, begin = _machine(), _begin(os.getpid())
    if machine is None or begin is None:
        machine, begin = uuid.uuid4().hex[:16], 0
    return f"{name_prefix()}{machine}.{begin}.{uuid.uuid4().hex}"


def has_ended(name: str) -> bool:
    """Return whether the process of a name has surely ended; False where nobody can tell here."""
    found = _NAME.fullmatch(name)
    if found is None or found[2] != _machine():
        return False
    pid = int(found[1])
    begin = _begin(pid)
    return _is_gone(pid) if begin is None else begin != int(found[3])


def _machine() -> str | None:
    """Return a digest of this boot of the kernel and this namespace of process ids."""
    with suppress(OSError):
        # Bytes: to read text imports a codec, here in the thread that owns lanes. A process that
        # is forked meanwhile, as by a worker's pool or beat, would wait for that import for ever.
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip().decode()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]
    return None


def _begin(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks; None where nothing tells.

    One that has ended, and was not waited for yet, began at -1.
    """
    with suppress(OSError, ValueError, IndexError):
        # The name of its program, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return -1 if fields[0] in b"ZX" else int(fields[19])
    return None


def _is_gone(pid: int) -> bool:
    """Whether there is no process with an id. ``/proc`` may hide those of other users."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False
