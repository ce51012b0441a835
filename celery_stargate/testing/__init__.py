"""Tools for testing code that uses celery_stargate.

`in_memory(app)` keeps what your code produces in memory: no server, no thread. `LocalPulsar` stands
in for Pulsar's WebSocket API: a test and demo tool, not a broker; `python -m
celery_stargate.testing` runs one in the foreground. With pytest, use the fixtures `stargate_…`.
"""

from __future__ import annotations

from celery_stargate.calls.memory import MemoryMessage
from celery_stargate.testing.configuring import configured
from celery_stargate.testing.local_pulsar.counters import Counters
from celery_stargate.testing.local_pulsar.faults import Faults, Frame
from celery_stargate.testing.local_pulsar.message_id import MessageId
from celery_stargate.testing.local_pulsar.server import LocalPulsar, OpenSocket
from celery_stargate.testing.local_pulsar.topics import StoredMessage, TopicError
from celery_stargate.testing.memory import MemoryPulsar, in_memory
from celery_stargate.testing.receipts import Receipts

__all__ = [
    "Counters",
    "Faults",
    "Frame",
    "LocalPulsar",
    "MemoryMessage",
    "MemoryPulsar",
    "MessageId",
    "OpenSocket",
    "Receipts",
    "StoredMessage",
    "TopicError",
    "configured",
    "in_memory",
]
