"""A lane's name and its keys in Redis."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

from celery_stargate.errors import shown
from celery_stargate.model.buckets import bucket_tag, bucket_tags
from celery_stargate.model.topic import Topic

__all__ = ["CONTEXTS", "CONTEXTS_LANE", "PAUSED_BY", "Lane", "lane_for", "spread"]

#: The topic part of the lane for contexts without a message, which user code acknowledges.
CONTEXTS = "contexts"

#: What the owner of a paused lane begins with; who paused it comes after it.
PAUSED_BY = "paused by "

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Lane:
    """One lane of a topic; each has its own log, lease and Pulsar producer."""

    #: A topic's full name, or :data:`CONTEXTS`.
    topic: str
    index: int = 0

    @classmethod
    def parse(cls, name: str) -> Lane:
        """Read the name of a lane, as :attr:`name` writes it.

        Raises:
            ValueError: it is not the name of a lane.
        """
        topic, _, index = name.rpartition("#")
        known = topic == CONTEXTS or str(Topic.parse(topic)) == topic
        if not known or not _INDEX.fullmatch(index):
            raise ValueError(f"{shown(name)} is not the name of a lane")
        return cls(topic, int(index))

    @cached_property
    def name(self) -> str:
        """The full name of the topic, ``#`` and the index."""
        return f"{self.topic}#{self.index}"

    @property
    def has_messages(self) -> bool:
        """Whether its contexts have messages; false for :data:`CONTEXTS` only."""
        return self.topic != CONTEXTS

    def key(self, prefix: str, part: str) -> str:
        """Return the key of one part; a hash tag puts all parts into one slot of a Cluster.

        Arguments:
            prefix: what all keys begin with; of buckets, if the lanes are in some.
        """
        if "{" not in prefix:
            return f"{prefix}:{{{self.name}}}:{part}"
        plain, tag = bucket_tag(prefix, self._number)
        return f"{plain}:{{{tag}}}:{self.name}:{part}"

    def bucket(self, prefix: str) -> int:
        """Return the number of the lane's bucket; 0 where there are no buckets."""
        if "{" not in prefix:
            return 0
        return self._number % len(bucket_tags(prefix)[1])

    @cached_property
    def _number(self) -> int:
        """A number by which the lanes of a topic fill the buckets evenly."""
        return crc32(self.topic.encode()) + self.index


def spread(text: str, lanes: int) -> int:
    """Return an index below ``lanes``, which is always the same for the same text."""
    return crc32(text.encode("utf-8", "surrogatepass")) % lanes


def lane_for(
    topic: Topic,
    lanes: int,
    key: str | None,
    context: str,
    choose: Callable[[str, int], int] = spread,
) -> Lane:
    """Return the lane of a message; messages with the same key always get the same lane.

    Arguments:
        topic: the message's topic.
        lanes: how many lanes the topic has.
        key: the message's key, if it has one.
        context: the id of the call.
        choose: returns the index for a key, or for the context of a message without one.
    """
    if lanes == 1:
        return Lane(str(topic))
    return Lane(str(topic), choose(context if key is None else key, lanes))


#: The lane for contexts without a message. It is not announced, because it always exists.
CONTEXTS_LANE = Lane(CONTEXTS)
