"""The real logic over the simulated world: every seed keeps every promise."""

from __future__ import annotations

import pytest

from tests.simulation import controls as controls_module
from tests.simulation.cases import CASES
from tests.simulation.command import Tally, run_seeds
from tests.simulation.controls import CONTROLS, replaced
from tests.simulation.plan import Plan
from tests.simulation.world import run

# All are work of the processor: on a busy machine some take minutes.
pytestmark = pytest.mark.timeout(1200)

#: Of every commit; `make simulate` runs a million.
_SEEDS = 2_000
_JOBS = 2


def tally_of(seeds: range, *, jobs: int = 1, **options: object) -> Tally:
    """Run seeds, and count."""
    total = Tally()
    for tally in run_seeds(seeds, jobs, **options):  # type: ignore[arg-type]
        total.add(tally)
    return total


def test_every_seed_keeps_every_promise() -> None:
    """P1 to P6 hold, and all is settled once the faults are healed."""
    tally = tally_of(range(_SEEDS), jobs=_JOBS)
    assert tally.failed == []
    assert tally.seeds == _SEEDS


def test_seeds_that_failed_once() -> None:
    """Their faults were mended.

    26962: Pulsar could not read a message that was past its deadline; another was blamed.
    33970: Redis forgot that a message was told; the run ended before it was sent again.
    """
    for seed in (26962, 33970):
        assert tally_of(range(seed, seed + 1)).failed == []


@pytest.mark.parametrize("name", CASES)
def test_what_was_found_stays_away(name: str) -> None:
    """Each case is a mistake that the simulator found."""
    case = CASES[name]
    tally = tally_of(range(case.seeds), focus=case.focus)
    assert tally.failed == [], case.why
    assert set(case.focus.rates) <= set(tally.struck), "its faults do not strike"


@pytest.mark.parametrize("name", CONTROLS)
def test_without_a_protection_the_checker_finds_something(name: str) -> None:
    """With the protection, the same seeds keep every promise."""
    control = CONTROLS[name]
    with control.off():
        bad = tally_of(range(control.seeds), focus=control.focus, enough=2)
    found = [text for _, violations in bad.failed for text in violations]
    assert any(text.startswith(control.promise) for text in found), found[:5]
    good = tally_of(range(bad.seeds), focus=control.focus)
    assert good.failed == []


def test_a_control_that_controls_nothing_fails() -> None:
    """A name that is not there, other arguments, or a replacement that nothing calls."""
    with pytest.raises(KeyError), replaced(controls_module, "no such name", print):
        pass
    with pytest.raises(AssertionError, match="never called"), replaced(Plan, "_follow", print):
        pass
    with pytest.raises(TypeError), replaced(Plan, "_follow", print):
        Plan._follow()  # type: ignore[call-arg]  # noqa: SLF001


@pytest.mark.parametrize("seed", [3, 17, 42])
def test_one_seed_is_one_run(seed: int) -> None:
    """Twice the same, to the last line of the trace."""
    first, second = (run(Plan.draw(seed), traced=True) for _ in range(2))
    assert len(first.trace) > 20
    assert first.trace == second.trace
    assert first.handled == second.handled
    assert run(Plan.draw(seed)).handled == first.handled
