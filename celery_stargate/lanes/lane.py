"""A lane's name and its keys in Redis."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from zlib import crc32

from celery_stargate.errors import shown
from celery_stargate.model.topic import Topic

__all__ = ["CONTEXTS", "CONTEXTS_LANE", "Lane", "lane_for", "spread"]

#: The topic part of the lane whose contexts have no message: somebody else acknowledges them.
CONTEXTS = "contexts"

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Lane:
    """One topic's lane: a stream, a lease and a Pulsar producer of its own."""

    #: A topic's full name, or :data:`CONTEXTS`.
    topic: str
    index: int = 0

    @classmethod
    def parse(cls, name: str) -> Lane:
        """Read a lane's name, as :attr:`name` writes it.

        Raises:
            ValueError: it is none.
        """
        topic, _, index = name.rpartition("#")
        known = topic == CONTEXTS or str(Topic.parse(topic)) == topic
        if not known or not _INDEX.fullmatch(index):
            raise ValueError(f"{shown(name)} is no lane's name")
        return cls(topic, int(index))

    @cached_property
    def name(self) -> str:
        """What :meth:`parse` reads."""
        return f"{self.topic}#{self.index}"

    @property
    def has_messages(self) -> bool:
        """Whether it has a topic to publish to."""
        return self.topic != CONTEXTS

    def key(self, prefix: str, part: str) -> str:
        """Return the key of one part; all parts share a hash tag, so one slot of a cluster."""
        return f"{prefix}:{{{self.name}}}:{part}"


# A crew reads the same names every few seconds.
@lru_cache(maxsize=1 << 16)
def _parse_lane(name: bytes) -> Lane:
    return Lane.parse(name.decode())


def spread(text: str, lanes: int) -> int:
    """Return a number below ``lanes``, always the same for the same text."""
    return crc32(text.encode("utf-8", "surrogatepass")) % lanes


def lane_for(
    topic: Topic,
    lanes: int,
    key: str | None,
    context: str,
    choose: Callable[[str, int], int] = spread,
) -> Lane:
    """Return the lane of a message: messages with the same key always take the same one.

    Arguments:
        choose: gives the index for a key, or for a context where there is no key.
    """
    if lanes == 1:
        return Lane(str(topic))
    return Lane(str(topic), choose(context if key is None else key, lanes))


#: The lane of the contexts without a message. It is there without having been announced.
CONTEXTS_LANE = Lane(CONTEXTS)
