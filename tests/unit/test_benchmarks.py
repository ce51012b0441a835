"""The benchmark's pure parts: medians and ratios, rounds, the tables, the README's block."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.app import Config
from benchmarks.figures import Report, Sample, Spread, make_groups, spread
from benchmarks.payload import PAYLOAD
from benchmarks.readme import BEGIN, END, replace_block
from benchmarks.rivals import GROUPS, RIVALS
from benchmarks.runner import Rival, run_rounds
from benchmarks.table import render


class Clock:
    """A clock that only rivals move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeRival(Rival):
    """Takes the same time for each operation, and notes when it runs."""

    group = "drain"
    title = "a fake"
    count = 100

    def __init__(self, name: str, clock: Clock, log: list[tuple[str, int]], each: float) -> None:
        self.name = name  # type: ignore[misc]  # real ones are classes, and have one each
        self._clock, self._log, self._each = clock, log, each

    def run(self, count: int) -> float:
        self._log.append((self.name, count))
        self._clock.now += count * self._each
        return count * self._each


def sample(name: str, *seconds: float, count: int = 100) -> Sample:
    """Return a rival's rounds."""
    return Sample(name, f"the {name}", count, seconds)


WORDS = {"drain": ("Draining", "As it is.", "per_second"), "one": ("One", "So.", "milliseconds")}


def report(
    *members: Sample, group: str = "drain", left_out: dict[str, str] | None = None
) -> Report:
    """Return a run of one group."""
    return Report(
        date="2031-02-03T04:05:06+00:00",
        rounds=len(members[0].seconds),
        payload_bytes=100,
        machine={"cpu": "A Processor", "cores": "2 cores"},
        versions={"Pulsar": "4.0.7", "celery": "5.7.0"},
        groups=make_groups({group: members}, WORDS),
        left_out=left_out or {},
    )


def test_median_between_the_lowest_and_the_highest() -> None:
    """An odd one out moves the spread, and not the median."""
    assert spread([3.0, 100.0, 1.0]) == Spread(3.0, 1.0, 100.0)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_no_rounds_have_no_median() -> None:
    """Nothing is measured: nothing may be told."""
    with pytest.raises(ValueError, match="no rounds"):
        spread([])


def test_ratio_is_taken_within_each_round() -> None:
    """A round in which the machine was ten times slower leaves the ratio as it is."""
    (group,) = make_groups(
        {"drain": [sample("slow", 2.0, 20.0, 2.0), sample("fast", 1.0, 10.0, 1.0)]}, WORDS
    )
    slow, fast = group.figures
    assert fast.ratio == Spread(2.0, 2.0, 2.0)
    assert slow.ratio == Spread(1.0, 1.0, 1.0)
    assert fast.rate == Spread(100.0, 10.0, 100.0)


def test_rates_count_each_rivals_own_operations() -> None:
    """Rivals need not do the same number of operations."""
    (group,) = make_groups(
        {"drain": [sample("a", 1.0, count=50), sample("b", 2.0, count=400)]}, WORDS
    )
    assert [each.rate.median for each in group.figures] == [50.0, 200.0]
    assert group.figures[1].ratio.median == 4.0


def test_rounds_that_do_not_pair_are_no_figures() -> None:
    """A ratio of rounds that were not side by side would be one of two runs."""
    with pytest.raises(ValueError, match="zip"):
        make_groups({"drain": [sample("a", 1.0, 1.0), sample("b", 1.0)]}, WORDS)


def test_rounds_are_interleaved() -> None:
    """Every rival once a round, each round beginning with another; the short round is not told."""
    clock, log = Clock(), list[tuple[str, int]]()
    rivals = [FakeRival(name, clock, log, each) for name, each in (("a", 0.01), ("b", 0.02))]
    told: list[str] = []
    samples = run_rounds(rivals, rounds=3, share=0.5, seconds=1000, clock=clock, tell=told.append)
    short, counted = log[:2], log[2:]
    assert short == [("a", 5), ("b", 5)]
    assert [name for name, _ in counted] == ["a", "b", "b", "a", "a", "b"]
    assert {count for _, count in counted} == {50}
    a, b = samples["drain"]
    assert (a.name, a.count, a.seconds) == ("a", 50, (0.5, 0.5, 0.5))
    assert (b.name, b.count, b.seconds) == ("b", 50, (1.0, 1.0, 1.0))
    assert len(told) == 6


def test_a_round_that_would_end_too_late_is_not_begun() -> None:
    """The time is bounded, and every rival has the same number of rounds."""
    clock, log = Clock(), list[tuple[str, int]]()
    rivals = [FakeRival(name, clock, log, 0.01) for name in ("a", "b")]
    told: list[str] = []
    # The short round takes 0.2 s, each other 2 s.
    samples = run_rounds(rivals, rounds=9, seconds=5.0, clock=clock, tell=told.append)
    assert [len(each.seconds) for each in samples["drain"]] == [2, 2]
    assert told[-1] == "no time for more than 2 of 9 rounds"


def test_the_first_round_always_runs() -> None:
    """However slow the machine is, there is a figure."""
    clock, log = Clock(), list[tuple[str, int]]()
    told: list[str] = []
    rivals = [FakeRival("a", clock, log, 1.0)]
    samples = run_rounds(rivals, rounds=2, seconds=1.0, clock=clock, tell=told.append)
    assert samples["drain"][0].seconds == (100.0,)


def test_table_shows_ratios_and_medians_with_their_spread() -> None:
    """The baseline is 1; the others have the ratio, and all the absolute figures."""
    text = render(report(sample("slow", 2.0, 4.0, 2.0), sample("fast", 0.08, 0.1, 0.1)))
    assert "**Draining.** As it is." in text
    assert "| the slow | 1 | 50 (25 to 50) |" in text
    assert "| the fast | 25.0 (20.0 to 40.0) | 1,000 (1,000 to 1,250) |" in text


def test_table_of_round_trips_is_in_milliseconds() -> None:
    """The lowest time is that of the highest rate."""
    text = render(report(sample("a", 0.4, 0.5, 2.0), group="one"))
    assert "milliseconds each" in text
    assert "| the a | 1 | 5.00 (4.00 to 20.0) |" in text


def test_tables_say_what_they_were_measured_on() -> None:
    """Date, rounds, machine, versions, and who could not take part."""
    text = render(report(sample("a", 1.0, 1.0), left_out={"the b": "no module b here"}))
    assert "Measured 2031-02-03" in text
    assert "2 rounds" in text
    assert "Machine: A Processor, 2 cores." in text
    assert "Versions: Pulsar 4.0.7, celery 5.7.0." in text
    assert "Left out: the b: no module b here." in text


def test_report_outlives_its_file() -> None:
    """The README is made from what is read back, so nothing of it may get lost."""
    before = report(sample("a", 1.0, 1.5), sample("b", 0.3, 0.7), left_out={"x": "y"})
    after = msgspec.json.decode(msgspec.json.encode(before), type=Report)
    assert after == before
    assert render(after) == render(before)


def test_block_is_replaced_between_its_markers() -> None:
    """What stands around it stays, byte for byte, and writing it twice changes nothing."""
    text = f"# A\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    once = replace_block(text, "| new |\n")
    assert once == f"# A\n\n{BEGIN}\n| new |\n{END}\n\nafter\n"
    assert replace_block(once, "| new |\n") == once


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        f"{BEGIN} only one",
        f"{END} before {BEGIN}",
        f"{BEGIN} {BEGIN} {END}",
        f"{BEGIN} {END} {END}",
    ],
)
def test_block_without_its_markers_is_an_error(text: str) -> None:
    """Nothing is written where nobody can tell what would be overwritten."""
    with pytest.raises(ValueError, match="benchmark:"):
        replace_block(text, "new")


def test_rivals_are_told_apart_and_stand_in_a_group() -> None:
    """Names are keys; a group's words stand in one place."""
    names = [each.name for each in RIVALS]
    assert len(set(names)) == len(names)
    assert {each.group for each in RIVALS} == set(GROUPS)
    assert all(unit in {"per_second", "milliseconds"} for _, _, unit in GROUPS.values())


def test_a_workers_configuration_is_its_callers() -> None:
    """It goes to the worker as text; a world of its own shares no key with others."""
    config = Config("redis://r", "ws://p", "pulsar://p", "bench-1-")
    assert Config.from_json(config.to_json()) == config
    other = config.below("delay")
    assert other.topic("t") == "persistent://public/default/bench-1-delay-t"
    assert other.redis_url == config.redis_url


def test_payload_is_as_long_as_it_is_said_to_be() -> None:
    """The tables say how many bytes a message has; they count its characters."""
    assert len(PAYLOAD.encode()) == len(PAYLOAD) == 100
