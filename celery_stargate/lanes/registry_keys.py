"""The keys of the registry, and how its list of lanes is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from celery_stargate.errors import shown
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.buckets import bucket_tag, bucket_tags
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["KINDS", "Kind", "LaneNames", "RegistryKeys"]

logger = logger_of(__name__)

#: Who owns lanes: producer workers, and callers' processes while there is no worker.
Kind = Literal["workers", "callers"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class RegistryKeys:
    """The keys of the registry; a hash tag puts all of them into one slot of a Cluster.

    Each bucket of lanes has a registry of its own: its lanes, and all workers and callers.

    Arguments:
        prefix: what all keys begin with; of buckets, if the lanes are in some.
        bucket: which bucket's; what belongs to no lane is in the first one's.
    """

    prefix: str
    bucket: int = 0

    @classmethod
    def of_all(cls, prefix: str) -> tuple[RegistryKeys, ...]:
        """Return the registries of all buckets; one where there are no buckets."""
        _, tags = bucket_tags(prefix)
        return tuple(cls(prefix, bucket) for bucket in range(len(tags) or 1))

    def key(self, part: str) -> str:
        """Return the key of one part of the registry."""
        if "{" not in self.prefix:
            return f"{self.prefix}:{{registry}}:{part}"
        plain, tag = bucket_tag(self.prefix, self.bucket)
        return f"{plain}:{{{tag}}}:registry:{part}"

    @property
    def types(self) -> dict[str, str]:
        """Each key that all processes share, and its type in Redis."""
        return {
            **dict.fromkeys(map(self.key, KINDS), "zset"),
            self.key("lanes"): "zset",
            self.key("events"): "stream",
            self.key("apps"): "hash",
        }


class LaneNames:
    """Reads the members of the list of lanes. What is no lane is ignored, and logged in sum."""

    def __init__(self) -> None:
        self._log_now = Seldom()

    def read(self, names: Sequence[bytes]) -> list[Lane]:
        """Return the lanes that have messages, in the order of their names."""
        lanes = [lane for name in names if (lane := _lane(name)) is not None]
        if len(lanes) < len(names) and self._log_now():
            unknown = [name for name in names if _lane(name) is None]
            logger.error(
                "%d members of the list of lanes in Redis are no names of lanes and are ignored, "
                "such as %s",
                len(unknown),
                shown(unknown[0]),
            )
        return lanes


# A supervisor reads the same names every few seconds.
@lru_cache(maxsize=1 << 16)
def _lane(name: bytes) -> Lane | None:
    try:
        lane = Lane.parse(name.decode())
    except ValueError:
        return None
    # The lane of contexts without messages is announced by nobody.
    return lane if lane.has_messages else None
