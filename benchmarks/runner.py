"""Run rivals in rounds, interleaved, within a bounded time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from .figures import Laps, Sample

if TYPE_CHECKING:
    from .site import Site

__all__ = ["Measured", "Rival", "TooLong", "reason_of", "run_rounds"]


class TooLong(BaseException):
    """The run's time is over. No rival may take it for its own failure."""


class Rival(ABC):
    """One way of doing what its group is about."""

    #: The group in whose table it stands (:data:`benchmarks.rivals.GROUPS`).
    group: ClassVar[str]
    name: ClassVar[str]
    title: ClassVar[str]
    #: Operations in one round; one or two seconds of work.
    count: ClassVar[int]
    #: Modules without which it cannot run.
    needs: ClassVar[tuple[str, ...]] = ()

    def setup(self, site: Site) -> None:
        """Make ready what is not measured."""
        self.site = site

    @abstractmethod
    def run(self, count: int) -> float | Laps:
        """Do ``count`` operations, see that they were done, and return the seconds they took."""

    def teardown(self) -> None:  # noqa: B027  # most leave it to the site
        """Let go of what :meth:`setup` made."""


class Measured(NamedTuple):
    """What a round took."""

    took: float | Laps
    #: Seconds of CPU, of each of :data:`benchmarks.shares.PARTS`; none where nobody looked.
    cpu: tuple[float, ...] = ()


def without_cpu(rival: Rival, count: int) -> Measured:
    """Run a rival, and look at no clock but its own."""
    return Measured(rival.run(count))


class _Runner:
    """A rival and its rounds, until it fails."""

    def __init__(self, rival: Rival, share: float) -> None:
        self.rival = rival
        self.count = max(1, round(rival.count * share))
        self.rounds: list[Measured] = []

    def sample(self, rounds: int) -> Sample:
        rival, kept = self.rival, self.rounds[:rounds]
        laps = tuple(each.took for each in kept if isinstance(each.took, Laps))
        cpu = tuple(each.cpu for each in kept if each.cpu)
        seconds = tuple(_seconds(each.took) for each in kept)
        return Sample(rival.name, rival.title, self.count, seconds, laps, cpu)


def run_rounds(
    rivals: Sequence[Rival],
    *,
    rounds: int,
    share: float = 1.0,
    seconds: float,
    clock: Callable[[], float],
    tell: Callable[[str], None],
    left_out: dict[str, str],
    run: Callable[[Rival, int], Measured] = without_cpu,
) -> dict[str, list[Sample]]:
    """Run every rival once in each round, after one short round that does not count.

    Each round begins with another rival, so that none always runs after the same one. A round
    that would probably not end in time is not begun; the first always is. A rival that fails has
    no figures and runs no more. Where :class:`TooLong` comes, whole rounds stay.

    Arguments:
        rivals: set up.
        share: of the rivals' counts.
        seconds: for all of it.
        clock: monotonic, in seconds.
        tell: gets a line about each measurement.
        left_out: gets the titles of those that failed, with the reason.
        run: runs a rival, and looks at clocks.

    Returns:
        The samples by group, in the order of the rivals.
    """
    began = clock()
    runners = [_Runner(rival, share) for rival in rivals]

    def attempt(runner: _Runner, count: int) -> Measured | None:
        try:
            return run(runner.rival, count)
        except Exception as error:  # noqa: BLE001  # told, and the others go on
            runners.remove(runner)
            left_out[runner.rival.title] = reason_of(error)
            tell(f"{runner.rival.name}: FAILED, no figures: {error}")
            return None

    done = 0
    try:
        for runner in list(runners):
            attempt(runner, max(1, runner.count // 10))
        longest = 0.0
        for number in range(rounds):
            round_began = clock()
            if number and round_began + longest - began > seconds:
                tell(f"no time for more than {number} of {rounds} rounds")
                break
            order = list(runners)
            first = number % max(1, len(order))
            for runner in (*order[first:], *order[:first]):
                measured = attempt(runner, runner.count)
                if measured is not None:
                    runner.rounds.append(measured)
                    rate = runner.count / _seconds(measured.took)
                    tell(f"round {number + 1}: {runner.rival.name}: {rate:,.0f}/s")
            longest = max(longest, clock() - round_began)
            done = number + 1
    except TooLong:
        tell(f"the time is over after {done} whole rounds")
    samples: dict[str, list[Sample]] = {}
    for runner in runners:
        if done:
            samples.setdefault(runner.rival.group, []).append(runner.sample(done))
    return samples


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says, fit for a table."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0].rstrip(':')}" if words else type(error).__name__


def _seconds(took: float | Laps) -> float:
    return took.seconds if isinstance(took, Laps) else took
