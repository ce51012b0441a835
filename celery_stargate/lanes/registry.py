"""The registry: which lanes and workers there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from celery_stargate.lanes.lane import Lane, _parse_lane
from celery_stargate.support.log import logger

__all__ = ["Registry", "parse_lanes"]


@dataclass(frozen=True)
class Registry:
    """The keys by which workers and lanes find one another."""

    prefix: str

    def key(self, part: str) -> str:
        """Return the key of one part of the registry."""
        return f"{self.prefix}:{{registry}}:{part}"

    def inbox(self, name: str) -> str:
        """The list into which outcomes are pushed for a process that waits."""
        return f"{self.prefix}:inbox:{name}"


def parse_lanes(names: Iterable[bytes]) -> list[Lane]:
    """Read lanes' names; one that cannot be read is logged and left alone."""
    lanes = []
    for name in names:
        try:
            lanes.append(_parse_lane(name))
        except ValueError as error:
            logger.error("%s; left alone", error)
    return lanes
