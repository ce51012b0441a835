"""What callers give, as types: messages, callbacks, timeouts, and the options of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from celery_stargate.model.message import Message

if TYPE_CHECKING:
    from celery.canvas import Signature

__all__ = [
    "CallGiven",
    "Callback",
    "DelayGiven",
    "ManyGiven",
    "OneMessage",
    "ProducerGiven",
    "TaskGiven",
    "Timeout",
]

Payload: TypeAlias = str | bytes | bytearray | memoryview

#: One message, in any form. Several messages are a ``list`` of these.
OneMessage: TypeAlias = Payload | tuple[str, Payload] | Mapping[str, Any] | Message

#: A signature, group, chain or chord, or the mapping of one.
Callback: TypeAlias = "Signature[Any] | Mapping[str, Any]"

#: Seconds, or a timedelta.
Timeout: TypeAlias = float | timedelta


class ManyGiven(TypedDict, total=False):
    """What a call of ``produce_many`` may be given beside messages and callbacks."""

    topic: str | None
    timeout: Timeout | None


class CallGiven(ManyGiven, total=False):
    """What a call of ``produce`` may be given beside message and callbacks."""

    context: str | None


class DelayGiven(TypedDict, total=False):
    """What a call of a produce task may be given beside its message."""

    topic: str | None
    on_ack: Callback | None
    on_error: Callback | None
    delivery_timeout: Timeout | None
    via: str | None


class ProducerGiven(TypedDict, total=False):
    """The producer options that a topic or a task may have of its own.

    They are the fields of :class:`~celery_stargate.model.options.ProducerOptions`; its durations
    may also be given as a timedelta.
    """

    delivery_timeout: Timeout
    max_in_flight: int
    max_in_flight_bytes: int
    max_backlog: int
    once_window: Timeout
    delivery: Literal["at_least_once", "effectively_once"]
    lanes: int
    partitions: int
    max_frame_size: int
    batching_with_keys: bool
    producer_name: str
    initial_sequence_id: int
    hashing_scheme: str
    send_timeout: Timeout
    batching_enabled: bool
    batching_max_messages: int
    batching_max_publish_delay: Timeout
    max_pending_messages: int
    message_routing_mode: str
    compression_type: str
    encryption_keys: Sequence[str]


class TaskGiven(ProducerGiven, total=False):
    """The options of a produce task: its producer options, and Celery's task options."""

    acks_late: bool
    acks_on_failure_or_timeout: bool
    after_return: Callable[..., Any]
    autoretry_for: Sequence[type[BaseException]]
    before_start: Callable[..., Any]
    default_retry_delay: float
    dont_autoretry_for: Sequence[type[BaseException]]
    exchange: str
    expires: float | datetime
    ignore_result: bool
    max_retries: int | None
    on_failure: Callable[..., Any]
    on_success: Callable[..., Any]
    priority: int
    queue: str
    rate_limit: str
    reject_on_worker_lost: bool
    resultrepr_maxsize: int
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    retry_kwargs: Mapping[str, Any]
    routing_key: str
    send_events: bool
    serializer: str
    shared: bool
    store_errors_even_if_ignored: bool
    track_started: bool
    trail: bool
    typing: bool
