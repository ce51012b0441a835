"""Durable publishing to Apache Pulsar for Celery and Django: `produce_task.delay(msg, on_ack=sig)`.

Everything here is public; what is not here is not.
"""

from celery_stargate.acknowledger import Acknowledger
from celery_stargate.app import Stargate
from celery_stargate.calls.direct import produce
from celery_stargate.errors import (
    ConfigurationError,
    ContextInUse,
    InvalidMessage,
    LaneFull,
    ProduceError,
    ProduceTimeout,
    StargateError,
    StoreUnavailable,
)
from celery_stargate.model.message import Message
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.task import ProduceTask, produce_task

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
