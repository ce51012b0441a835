"""Tools for testing code that uses celery_stargate.

`LocalPulsar` stands in for Pulsar's WebSocket API: a test and demo tool, not a broker.
`python -m celery_stargate.testing` runs one in the foreground.
"""

from __future__ import annotations

from celery_stargate.testing.local_pulsar.counters import Counters
from celery_stargate.testing.local_pulsar.faults import Faults, Frame
from celery_stargate.testing.local_pulsar.message_id import MessageId
from celery_stargate.testing.local_pulsar.server import LocalPulsar, OpenSocket
from celery_stargate.testing.local_pulsar.topics import StoredMessage, TopicError

__all__ = [
    "Counters",
    "Faults",
    "Frame",
    "LocalPulsar",
    "MessageId",
    "OpenSocket",
    "StoredMessage",
    "TopicError",
]
