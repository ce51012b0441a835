"""Run rivals in rounds, interleaved, within a bounded time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from .figures import Sample

if TYPE_CHECKING:
    from .site import Site

__all__ = ["Rival", "run_rounds"]


class Rival(ABC):
    """One way of doing what its group is about."""

    #: The group in whose table it stands (:data:`benchmarks.rivals.GROUPS`).
    group: ClassVar[str]
    name: ClassVar[str]
    title: ClassVar[str]
    #: Operations in one round; about two seconds of work.
    count: ClassVar[int]
    #: Modules without which it cannot run.
    needs: ClassVar[tuple[str, ...]] = ()

    def setup(self, site: Site) -> None:
        """Make ready what is not measured."""
        self.site = site

    @abstractmethod
    def run(self, count: int) -> float:
        """Do ``count`` operations, see that they were done, and return the seconds they took."""

    def teardown(self) -> None:  # noqa: B027  # most leave it to the site
        """Let go of what :meth:`setup` made."""


def run_rounds(
    rivals: Sequence[Rival],
    *,
    rounds: int,
    share: float = 1.0,
    seconds: float,
    clock: Callable[[], float],
    tell: Callable[[str], None],
) -> dict[str, list[Sample]]:
    """Run every rival once in each round, after one short round that does not count.

    Each round begins with another rival, so that none always runs after the same one. A round
    that would probably not end in time is not begun; the first always is.

    Arguments:
        rivals: set up.
        share: of the rivals' counts.
        seconds: for all of it.
        clock: monotonic, in seconds.
        tell: gets a line about each measurement.

    Returns:
        The samples by group, in the order of the rivals.
    """
    began = clock()
    counts = {rival.name: max(1, round(rival.count * share)) for rival in rivals}
    for rival in rivals:
        rival.run(max(1, counts[rival.name] // 10))
    measured: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    longest = 0.0
    for number in range(rounds):
        round_began = clock()
        if number and round_began + longest - began > seconds:
            tell(f"no time for more than {number} of {rounds} rounds")
            break
        first = number % len(rivals)
        for rival in (*rivals[first:], *rivals[:first]):
            took = rival.run(counts[rival.name])
            measured[rival.name].append(took)
            tell(f"round {number + 1}: {rival.name}: {counts[rival.name] / took:,.0f}/s")
        longest = max(longest, clock() - round_began)
    samples: dict[str, list[Sample]] = {}
    for rival in rivals:
        sample = Sample(rival.name, rival.title, counts[rival.name], tuple(measured[rival.name]))
        samples.setdefault(rival.group, []).append(sample)
    return samples
