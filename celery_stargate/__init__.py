"""Durable publishing to Apache Pulsar for Celery and Django: `produce_task.delay(msg, on_ack=sig)`.

Everything here is public; what is not here is not.
"""

from .acknowledger import Acknowledger
from .client import Stargate
from .direct import produce
from .errors import (
    ConfigurationError,
    ContextInUse,
    InvalidMessage,
    LaneFull,
    ProduceError,
    ProduceTimeout,
    StargateError,
    StoreUnavailable,
)
from .message import Message
from .outcome import Failure, Receipt
from .task import ProduceTask, produce_task

__all__ = [
    # client
    "Stargate",
    # task
    "ProduceTask",
    "produce_task",
    # direct
    "produce",
    # message
    "Message",
    # outcome
    "Failure",
    "Receipt",
    # acknowledger
    "Acknowledger",
    # errors
    "ConfigurationError",
    "ContextInUse",
    "InvalidMessage",
    "LaneFull",
    "ProduceError",
    "ProduceTimeout",
    "StargateError",
    "StoreUnavailable",
]
