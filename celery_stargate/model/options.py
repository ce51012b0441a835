"""What may differ from topic to topic: the producer options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from celery_stargate.errors import ConfigurationError, nearest, shown
from celery_stargate.model.fields import _TABLE, PREFIX, _read

__all__ = ["ProducerOptions"]


#: Pulsar reads these only where ``batchingEnabled=true``.
_NEED_BATCHING = ("batching_max_messages", "batching_max_publish_delay", "max_pending_messages")


#: What chooses a partition in Pulsar; with ``partitions`` the lanes have chosen it.
_ROUTING = ("hashing_scheme", "message_routing_mode")


#: What the lane itself sets, where Pulsar is to know its numbers again.
_NUMBERED = ("producer_name", "initial_sequence_id", "send_timeout")


#: Pulsar wants these in milliseconds.
_MILLISECONDS = ("send_timeout", "batching_max_publish_delay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """What may differ from topic to topic. Durations are seconds, sizes bytes."""

    delivery_timeout: float = 86_400.0
    max_in_flight: int = 1000
    max_in_flight_bytes: int = 32 * 1024 * 1024
    max_backlog: int = 0
    #: How long a call is known after its end, where each is to be recorded once.
    once_window: float = 900.0
    delivery: Literal["at_least_once", "effectively_once"] = "at_least_once"
    lanes: int = 1
    #: How many partitions the topic has, where each is to have a lane of its own.
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
                raise ConfigurationError(
                    f"{PREFIX}{name} counts only with {PREFIX}batching_enabled=True"
                )
        if self.delivery == "effectively_once" and self.batching_enabled:
            raise ConfigurationError(
                f"{PREFIX}delivery='effectively_once' cannot go with {PREFIX}batching_enabled: "
                "a replayed batch that spans stored and new messages is dropped whole"
            )
        if self.delivery == "effectively_once":
            for name in _NUMBERED:
                if getattr(self, name) is not None:
                    raise ConfigurationError(
                        f"{PREFIX}{name} cannot go with {PREFIX}delivery='effectively_once', which "
                        "sets it by itself; leave it out"
                    )
        elif self.partitions is not None:
            raise ConfigurationError(
                f"{PREFIX}partitions counts only with {PREFIX}delivery='effectively_once'; "
                "otherwise Pulsar chooses the partitions"
            )
        if self.partitions is not None and self.lanes not in (1, self.partitions):
            raise ConfigurationError(
                f"{PREFIX}partitions={self.partitions} has one lane for each partition; leave "
                f"{PREFIX}lanes={self.lanes} out"
            )
        if self.hashing_scheme == "BoostHash" and self.partitions is None:
            raise ConfigurationError(
                f"{PREFIX}hashing_scheme='BoostHash' is unknown to Pulsar's WebSocket service; it "
                f"needs {PREFIX}partitions, with which the lanes choose the partition"
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
        """Return Pulsar's query parameters for the producer's URL, only those that are set."""
        query = {}
        for name, setting in _TABLE.items():
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
        """How many messages may be in flight; beyond its own queue Pulsar answers with errors."""
        return min(self.max_in_flight, self.max_pending_messages or self.max_in_flight)

    @staticmethod
    def names() -> frozenset[str]:
        """The names of all options."""
        return _OPTION_NAMES

    def differing(self, other: ProducerOptions) -> dict[str, Any]:
        """Return the options whose values are not those of the other."""
        return {
            name: getattr(self, name)
            for name in sorted(_OPTION_NAMES)
            if getattr(self, name) != getattr(other, name)
        }

    def changed(self, options: Mapping[str, Any], where: str) -> ProducerOptions:
        """Return these options with some replaced, each checked.

        Raises:
            ConfigurationError: an option does not exist, may not differ by topic, or has a wrong
                type; the text begins with ``where``.
        """
        known = [name for name, setting in _TABLE.items() if setting.of_topic]
        read = {}
        for name, value in options.items():
            if name not in known:
                raise ConfigurationError(
                    f"{where}: there is no option {shown(name)}"
                    f"{nearest(name, known) if isinstance(name, str) else ''}"
                )
            read[name] = _read(name, value, f"{where}: {name}")
        merged = {each.name: getattr(self, each.name) for each in fields(self)}
        return ProducerOptions(**{**merged, **read})


_OPTION_NAMES = frozenset(each.name for each in fields(ProducerOptions))
