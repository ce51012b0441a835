"""What ``benchmarks.shards`` found, and what follows from it for a model. No I/O."""

from __future__ import annotations

import msgspec

from .figures import Spread

__all__ = ["Drain", "ShardFigures"]


class Drain(msgspec.Struct, frozen=True):
    """Drains with results from the lanes on so many shards, by so many workers."""

    shards: int
    workers: int
    #: Messages a second.
    rate: Spread
    #: Microseconds of CPU for each message: of the busiest shard, of all workers, and of all that
    #: ran on the machine.
    busiest: Spread
    worker: Spread
    machine: Spread


class ShardFigures(msgspec.Struct, frozen=True):
    """A whole run."""

    date: str
    #: That all servers and workers shared.
    cores: int
    #: Of the one topic that is drained.
    lanes: int
    drains: tuple[Drain, ...]

    @property
    def first(self) -> Drain:
        """The drain by one worker from one shard.

        Raises:
            ValueError: it was not measured.
        """
        for drain in self.drains:
            if (drain.shards, drain.workers) == (1, 1):
                return drain
        raise ValueError("the drain by one worker from one shard was not measured")

    @property
    def busy(self) -> float:
        """The part of the time in which the cores were busy in the first drain.

        Raises:
            ValueError: it was not measured.
        """
        return self.first.rate.median * self.first.machine.median / 1e6 / self.cores

    def busiest(self, shards: int) -> float:
        """Return the CPU of the busiest of so many shards, in µs for each message of all.

        Raises:
            ValueError: so many shards were not measured.
        """
        found = [drain.busiest.median for drain in self.drains if drain.shards == shards]
        if not found:
            raise ValueError(f"{shards} shards were not measured")
        return sum(found) / len(found)
