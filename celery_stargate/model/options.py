"""The producer options: settings that each topic or task may have for itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from celery_stargate.errors import ConfigurationError, nearest, shown
from celery_stargate.model.fields import PREFIX, TABLE, TOPIC_OPTIONS, read_value

__all__ = ["ProducerOptions", "split_task_options"]


#: Pulsar reads these only with ``batchingEnabled=true``.
_NEED_BATCHING = ("batching_max_messages", "batching_max_publish_delay", "max_pending_messages")


#: These choose a partition in Pulsar. With ``partitions`` the lanes choose it instead.
_ROUTING = ("hashing_scheme", "message_routing_mode")


#: With effectively once delivery the lane sets these itself.
_NUMBERED = ("producer_name", "initial_sequence_id", "send_timeout")


#: Pulsar reads these in milliseconds.
_MILLISECONDS = ("send_timeout", "batching_max_publish_delay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """Settings that a topic or task may have for itself. Durations are seconds, sizes bytes."""

    delivery_timeout: float = 86_400.0
    max_in_flight: int = 1000
    max_in_flight_bytes: int = 32 * 1024 * 1024
    max_backlog: int = 0
    #: How long a call is known after its end, where each is to be recorded once.
    once_window: float = 900.0
    delivery: Literal["at_least_once", "effectively_once"] = "at_least_once"
    lanes: int = 1
    #: How many partitions the topic has, if each gets its own lane.
    partitions: int | None = None
    max_frame_size: int = 1_048_576
    batching_with_keys: bool = False
    producer_name: str | None = None
    initial_sequence_id: int | None = None
    hashing_scheme: str | None = None
    send_timeout: float | None = None
    batching_enabled: bool | None = None
    batching_max_messages: int | None = None
    batching_max_publish_delay: float | None = None
    max_pending_messages: int | None = None
    message_routing_mode: str | None = None
    compression_type: str | None = None
    encryption_keys: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in _NEED_BATCHING:
            if getattr(self, name) is not None and not self.batching_enabled:
                raise ConfigurationError(f"{PREFIX}{name} needs {PREFIX}batching_enabled=True")
        if self.delivery == "effectively_once" and self.batching_enabled:
            raise ConfigurationError(
                f"{PREFIX}delivery='effectively_once' does not work with {PREFIX}batching_enabled: "
                "if a batch is sent again and part of it was stored, Pulsar drops the whole batch"
            )
        if self.delivery == "effectively_once":
            for name in _NUMBERED:
                if getattr(self, name) is not None:
                    raise ConfigurationError(
                        f"{PREFIX}{name} does not work with {PREFIX}delivery='effectively_once', "
                        "which sets it itself; leave it out"
                    )
        elif self.partitions is not None:
            raise ConfigurationError(
                f"{PREFIX}partitions needs {PREFIX}delivery='effectively_once'; "
                "otherwise Pulsar chooses the partitions"
            )
        if self.partitions is not None and self.lanes not in (1, self.partitions):
            raise ConfigurationError(
                f"{PREFIX}partitions={self.partitions} makes one lane for each partition; leave "
                f"{PREFIX}lanes={self.lanes} out"
            )
        if self.hashing_scheme == "BoostHash" and self.partitions is None:
            raise ConfigurationError(
                f"{PREFIX}hashing_scheme='BoostHash' is unknown to Pulsar's WebSocket service; it "
                f"needs {PREFIX}partitions, so that the lanes choose the partition"
            )
        if self.producer_name is not None and self.lanes > 1:
            raise ConfigurationError(
                f"{PREFIX}producer_name is one name, and {PREFIX}lanes={self.lanes} producers "
                "cannot share it; leave one of them out"
            )

    @property
    def lane_count(self) -> int:
        """How many lanes the topic has."""
        return self.partitions or self.lanes

    def query(self) -> dict[str, str]:
        """Return Pulsar's query parameters for the producer's URL: only those that are set."""
        query = {}
        for name, setting in TABLE.items():
            if setting.parameter is None:
                continue
            if self.partitions is not None and name in _ROUTING:
                continue
            value = getattr(self, name)
            match value:
                case None:
                    continue
                case bool():
                    text = "true" if value else "false"
                case tuple():
                    text = ",".join(value)
                case _ if name in _MILLISECONDS:
                    text = str(round(value * 1000))
                case _:
                    text = str(value)
            query[setting.parameter] = text
        return query

    @property
    def window_size(self) -> int:
        """How many messages may be in flight. Beyond its own queue Pulsar answers with errors."""
        return min(self.max_in_flight, self.max_pending_messages or self.max_in_flight)

    @staticmethod
    def names() -> frozenset[str]:
        """Return the names of all options."""
        return _OPTION_NAMES

    def differing(self, other: ProducerOptions) -> dict[str, Any]:
        """Return the options whose values differ from another's."""
        return {
            name: getattr(self, name)
            for name in sorted(_OPTION_NAMES)
            if getattr(self, name) != getattr(other, name)
        }

    def changed(self, options: Mapping[Any, object], where: str) -> ProducerOptions:
        """Return a copy with some options replaced, each checked.

        Arguments:
            options: by name.
            where: the beginning of the error text.

        Raises:
            ConfigurationError: an option does not exist, may not differ by topic, or has a wrong
                type.
        """
        read: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in options.items():
            if not isinstance(name, str) or name not in TOPIC_OPTIONS:
                raise ConfigurationError(
                    f"{where}: there is no option {shown(name)}{nearest(str(name), TOPIC_OPTIONS)}"
                )
            read[name] = read_value(name, value, f"{where}: {name}")
        return ProducerOptions(**read)


_OPTION_NAMES = frozenset(each.name for each in fields(ProducerOptions))


#: Options that Celery takes, and that are not attributes of ``celery.Task``: those of ``app.task``
#: and those of a call (``celery.app.task.extract_exec_options``).
_CELERYS = frozenset(
    {
        "autoretry_for",
        "compression",
        "delivery_mode",
        "dont_autoretry_for",
        "exchange",
        "immediate",
        "lazy",
        "mandatory",
        "queue",
        "retry_backoff",
        "retry_backoff_max",
        "retry_jitter",
        "retry_kwargs",
        "routing_key",
        "shared",
    }
)
#: Attributes of the task class that its maker sets itself.
_OURS = frozenset({"bind", "producer_options"})


def split_task_options(
    options: Mapping[str, object], attributes: Collection[str], where: str
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the producer options and Celery's options of a produce task.

    Arguments:
        options: of both kinds, as the task's maker gave them.
        attributes: the names of the task class's attributes, which Celery takes as options.
        where: the beginning of the error text.

    Raises:
        ConfigurationError: an option does not exist, or a producer option has a wrong type. The
            text names the closest option.
    """
    known = {each for each in attributes if not each.startswith("_")} - _OURS
    known |= _CELERYS | _OPTION_NAMES
    for name in options:
        if name not in known:
            raise ConfigurationError(
                f"{where}: there is no option {shown(name)}{nearest(name, sorted(known))}"
            )
    producers = {name: value for name, value in options.items() if name in _OPTION_NAMES}
    for name, value in producers.items():
        read_value(name, value, f"{where}: {name}")
    return producers, {name: value for name, value in options.items() if name not in producers}
