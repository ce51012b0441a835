"""The benchmark's pure parts: medians and ratios, rounds, the tables, the README's block."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest

from benchmarks.app import Config
from benchmarks.figures import Laps, Report, Sample, Spread, make_groups, spread
from benchmarks.growth_figures import (
    Growth,
    Level,
    Size,
    render_costs,
    render_idle,
    render_memory,
    render_window,
)
from benchmarks.model import (
    Model,
    here,
    on_machines_of_their_own,
    render_drains,
    render_model,
    shard_overhead,
    shard_skew,
    skew,
)
from benchmarks.pages import blocks
from benchmarks.payload import PAYLOAD
from benchmarks.profile_figures import Part, Profile, Thread, render_profile
from benchmarks.readme import BEGIN, END, NOT_MEASURED, block_of, markers, replace_block
from benchmarks.rivals import GROUPS, RIVALS
from benchmarks.runner import Measured, Rival, TooLong, run_rounds
from benchmarks.sampler import part_of
from benchmarks.shard_figures import Drain, ShardFigures
from benchmarks.shares import PARTS, ROWS, render_shares
from benchmarks.site import BenchmarkError
from benchmarks.steps_figures import CALLED, STEPS, Steps, laps, render_steps, steps_of
from benchmarks.table import render, render_summary
from benchmarks.targets import render_targets
from benchmarks.workers_figures import Workers


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
    samples = run_rounds(
        rivals, rounds=3, share=0.5, seconds=1000, clock=clock, tell=told.append, left_out={}
    )
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
    samples = run_rounds(rivals, rounds=9, seconds=5.0, clock=clock, tell=told.append, left_out={})
    assert [len(each.seconds) for each in samples["drain"]] == [2, 2]
    assert told[-1] == "no time for more than 2 of 9 rounds"


def test_the_first_round_always_runs() -> None:
    """However slow the machine is, there is a figure."""
    clock, log = Clock(), list[tuple[str, int]]()
    told: list[str] = []
    rivals = [FakeRival("a", clock, log, 1.0)]
    samples = run_rounds(rivals, rounds=2, seconds=1.0, clock=clock, tell=told.append, left_out={})
    assert samples["drain"][0].seconds == (100.0,)


class Failing(FakeRival):
    """Raises in its second round."""

    def __init__(
        self, name: str, clock: Clock, log: list[tuple[str, int]], error: BaseException
    ) -> None:
        super().__init__(name, clock, log, 0.01)
        self._error = error

    def run(self, count: int) -> float:
        if sum(name == self.name for name, _ in self._log) == 2:
            raise self._error
        return super().run(count)


def test_a_rival_that_fails_has_no_figures() -> None:
    """The reason is told, it runs no more, and the others go on."""
    clock, log, left_out = Clock(), list[tuple[str, int]](), dict[str, str]()
    bad = Failing("bad", clock, log, BenchmarkError("it was not done in 5 s:\nits long log"))
    rivals = [FakeRival("a", clock, log, 0.01), bad, FakeRival("b", clock, log, 0.01)]
    told: list[str] = []
    samples = run_rounds(
        rivals, rounds=3, seconds=1000, clock=clock, tell=told.append, left_out=left_out
    )
    assert [(each.name, len(each.seconds)) for each in samples["drain"]] == [("a", 3), ("b", 3)]
    assert left_out == {"a fake": "BenchmarkError: it was not done in 5 s"}
    assert sum("bad: FAILED" in line for line in told) == 1
    assert sum(name == "bad" for name, _ in log) == 2


def test_when_the_time_is_over_whole_rounds_stay() -> None:
    """What was measured is told, and no rival is blamed."""
    clock, log, left_out = Clock(), list[tuple[str, int]](), dict[str, str]()
    rivals = [FakeRival("a", clock, log, 0.01), Failing("b", clock, log, TooLong())]
    told: list[str] = []
    samples = run_rounds(
        rivals, rounds=3, seconds=1000, clock=clock, tell=told.append, left_out=left_out
    )
    assert [len(each.seconds) for each in samples["drain"]] == [1, 1]
    assert left_out == {}
    assert told[-1] == "the time is over after 1 whole rounds"


def test_timed_operations_are_compared_by_their_medians() -> None:
    """A few slow ones move the tail, not the ratio."""
    quick, slow = [0.001] * 98 + [0.5] * 2, [0.002] * 100
    assert Laps.of(quick) == Laps(sum(quick), 0.001, 0.5)
    assert Laps.of([3.0, 1.0, 2.0]).p50 == 2.0
    assert Laps.of([0.25]) == Laps(0.25, 0.25, 0.25)

    def timed(name: str, laps: list[float]) -> Sample:
        return Sample(name, f"the {name}", 100, (sum(laps),) * 2, (Laps.of(laps),) * 2)

    found = report(timed("slow", slow), timed("quick", quick), group="one")
    assert found.groups[0].figures[1].ratio == Spread(2.0, 2.0, 2.0)
    text = render(found, ["one"])
    assert "| the slow | 1 | 2.00 (2.00 to 2.00) | 2.00 (2.00 to 2.00) |" in text
    assert "| the quick | 2.00 (2.00 to 2.00) | 1.00 (1.00 to 1.00) | 500.0 (" in text


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


def test_summary_is_a_few_rivals_beside_the_first_of_their_group() -> None:
    """The README shows no table of its own: what stands there is of the same run."""
    given = report(sample("a", 1.0, 1.0), sample("b", 0.5, 0.5), sample("c", 0.1, 0.1))
    text = render_summary(given, ("b",))
    assert "| the b | the a | 2.00 (2.00 to 2.00) |" in text
    assert "the c" not in text
    assert "Measured 2031-02-03" in text
    assert "A Processor" in text


def test_report_outlives_its_file() -> None:
    """The README is made from what is read back, so nothing of it may get lost."""
    before = report(sample("a", 1.0, 1.5), sample("b", 0.3, 0.7), left_out={"x": "y"})
    after = msgspec.json.decode(msgspec.json.encode(before), type=Report)
    assert after == before
    assert render(after) == render(before)


def test_blocks_of_one_page_have_names() -> None:
    """Each is replaced and found by its own markers."""
    begin, end = markers("costs")
    text = f"{BEGIN}\na\n{END}\n{begin}\nb\n{end}\n"
    assert (block_of(text), block_of(text, "costs")) == ("a", "b")
    changed = replace_block(text, "new\n", "costs")
    assert (block_of(changed), block_of(changed, "costs")) == ("a", "new")
    with pytest.raises(ValueError, match="idle:begin"):
        block_of(text, "idle")


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


def test_pages_hold_a_block_for_each_part() -> None:
    """A page without its markers could not be written."""
    for page, named in blocks().items():
        text = page.read_text("utf-8")
        for name in named:
            assert block_of(text, name)


def test_without_results_nothing_is_said(tmp_path: Path) -> None:
    """No figure stands anywhere that was not measured."""
    assert {text for named in blocks(tmp_path).values() for text in named.values()} == {
        NOT_MEASURED
    }


def test_targets_are_compared_within_rounds() -> None:
    """A round that is slow for both is no miss; what was not measured is said to be so."""
    noop = sample("noop", 1.0, 10.0, 1.0)
    ours = sample("lane-results", 0.1, 1.0, 0.2)
    text = render_targets(report(noop, ours))
    assert "no-op task, prefork 2 | at least 8 | 10.00 (5.00 to 10.00) | | | reached |" in text
    assert "`on_ack` on each: a no-op task | at least 2 | not measured | | | |" in text
    slower = render_targets(report(noop, sample("lane-results", 0.5, 5.0, 0.5)))
    assert "| at least 8 | 2.00 (2.00 to 2.00) | | | **not reached** |" in slower


@pytest.mark.parametrize(
    ("floor", "shown"),
    [
        (0.125, "8.00 (8.00 to 8.00) | 4.00 (4.00 to 4.00) | **not reached** |"),
        (0.4, "2.50 (2.50 to 2.50) | 1.25 (1.25 to 1.25) | **not reached**; nor by the floor |"),
    ],
)
def test_floor_stands_beside_what_was_measured(floor: float, shown: str) -> None:
    """A target that is missed may be out of reach: then the floor misses it too."""
    members = (
        sample("noop-info", 1.0, 1.0),
        sample("lane-info-on-ack", 0.5, 0.5),
        sample("floor-on-ack", floor, floor),
    )
    text = render_targets(report(*members))
    assert f"| at least 4 | 2.00 (2.00 to 2.00) | {shown}" in text


def test_cost_in_floors_of_a_time_is_how_often_it_is_longer() -> None:
    """A round trip that is to be short costs more where its ratio is higher, not lower."""
    laps = {"websocket-round-trip": 0.001, "produce-waits": 0.002, "floor-round-trip": 0.0016}
    members = (
        Sample(name, name, 100, (1.0,), (Laps(1.0, median, 2 * median),))
        for name, median in laps.items()
    )
    text = render_targets(report(*members, group="one"))
    assert "at most 1.5 | 2.00 (2.00 to 2.00) | 1.60 (1.60 to 1.60) | 1.25 (1.25 to 1.25) |" in text


def test_memory_and_workers_have_targets_too() -> None:
    """They are measured by other commands; until then the table says so."""
    bare = report(sample("noop", 1.0))
    for words in ("Redis' memory for a message of 10 kB", "two workers: one worker"):
        (line,) = (each for each in render_targets(bare).splitlines() if words in each)
        assert "not measured" in line
    growth = msgspec.structs.replace(grown(), sizes=(Size(10_000, 10_100.0, 10_600.0, 10_400.0),))
    workers = Workers("2031-02-03T04:05:06+00:00", {}, Spread(1.0, 0.9, 1.2))
    text = render_targets(bare, growth, workers)
    assert "| at most 1.05 | 1.06 (1.06 to 1.06) | 1.04 (1.04 to 1.04) | 1.02 (" in text
    assert "| at most 1.1 | 1.00 (0.90 to 1.20) | | | reached |" in text


ONE = Spread(1.0, 1.0, 1.0)


def level(pending: int, put: float, mib: float | None = 60.0) -> Level:
    """Return a level whose put takes so many microseconds."""
    return Level(pending, Spread(put, put, put), ONE, ONE, ONE, 550.0, 250.0, mib)


def grown(*levels: Level, left_out: dict[str, str] | None = None) -> Growth:
    """Return a run of these levels and no other part."""
    return Growth("2031-02-03T04:05:06+00:00", {"cpu": "A"}, levels, None, None, left_out or {})


def test_growth_is_told_as_a_multiple_of_the_smallest_level() -> None:
    """And bytes without what any store would need for the record."""
    found = grown(level(1000, 20.0), level(1_000_000, 25.0, None))
    text = render_costs(found)
    assert "| 1,000,000 | 25.0 (25.0 to 25.0) | 1.0 (1.0 to 1.0) |" in text
    assert "| 550 | 300 |" in text
    assert "put 1.25, read 1.00, settle 1.00, finish 1.00" in text
    assert "| 1,000 | 60 |" in render_memory(found)
    assert "| 1,000,000 | not measured |" in render_memory(found)


def test_a_part_that_failed_says_why() -> None:
    """It has no figures."""
    found = grown(left_out={"idle": "it took too long"})
    for words in (render_costs, render_idle, render_window):
        assert words(found) == "Not measured: idle: it took too long.\n"


def test_the_stage_with_the_least_breaks_first() -> None:
    """More of the others changes nothing."""
    model = Model(shard=10_000, worker=5000, partition=8000, bytes_each=500)
    assert model.carries(1, 1, 1) == (5000, "workers")
    assert model.carries(1, 4, 4) == (10_000, "Redis")
    assert model.carries(4, 8, 1) == (8000, "partitions")
    shards, workers, partitions = model.needed(1_000_000)
    assert (shards, workers) == (100, 200)
    rate, _ = model.carries(shards, workers, partitions)
    assert rate >= 1_000_000
    assert model.carries(shards, workers, partitions - 10)[0] < 1_000_000
    assert "| 100 | 200 |" in render_model(model)


def test_lanes_fall_unevenly_on_shards() -> None:
    """24 lanes do not fit into 16 buckets; 64 do; a shard without a lane carries nothing."""
    assert shard_skew(1, 24) == shard_skew(8, 64) == 1.0
    assert 1.0 < shard_skew(3, 24) < 1.5
    assert shard_skew(4, 1) == 4.0
    one = Model(shard=10_000, worker=50_000, partition=80_000, bytes_each=500)
    assert one.carries(4, 4, 1)[0] == 10_000


def drained(shards: int, workers: int, *, rate: float, busiest: float) -> Drain:
    """Return a drain whose workers spend 50 µs on each message, and the machine 200."""
    flat = [Spread(each, each, each) for each in (rate, busiest, 50.0, 200.0)]
    return Drain(shards, workers, *flat)


def test_the_model_is_corrected_by_what_a_cluster_showed() -> None:
    """A shard of two costs more than its half; what remains after the uneven lanes is overhead."""
    found = ShardFigures(
        "2031-02-03T04:05:06+00:00",
        2,
        24,
        (drained(1, 1, rate=9000, busiest=40), drained(2, 2, rate=9500, busiest=22)),
    )
    assert shard_overhead(found) == pytest.approx(1.1)
    # The two cores have 200 µs of work for each message, and are busy for nine tenths of the time.
    assert found.busy == pytest.approx(0.9)
    rate, breaks = here(found, found.drains[1])
    assert rate == pytest.approx(9000)
    assert breaks == "the cores"
    assert on_machines_of_their_own(found, found.drains[0]) == (20_000, "workers")
    assert on_machines_of_their_own(found, found.drains[1])[0] == 40_000
    assert "| 2 | 2 | 9,000 | 9,500 (9,500 to 9,500) | 1.06 | 40,000 |" in render_drains(found)
    model = Model(shard=10_000, worker=50_000, partition=80_000, bytes_each=500, overhead=1.25)
    assert model.carries(1, 9, 24)[0] == 10_000
    assert model.carries(2, 9, 24)[0] == pytest.approx(16_000)
    assert model.needed(80_000)[0] == 10


def test_figures_without_the_first_drain_correct_nothing() -> None:
    """All is compared with one shard and one worker."""
    found = ShardFigures("", 2, 24, (drained(2, 1, rate=1, busiest=1),))
    with pytest.raises(ValueError, match="one worker from one shard"):
        render_drains(found)
    with pytest.raises(ValueError, match="1 shards were not measured"):
        shard_overhead(found)


def test_keys_fall_unevenly() -> None:
    """One partition gets all of them; of more, the busiest gets more than its share."""
    assert skew(1) == 1.0
    assert 1.0 < skew(8) < skew(256) < 2.0


def profiled(**micros: float) -> Profile:
    """Return a run with these threads."""
    threads = (
        Thread(name, name, Spread(each, each, each), (Part("`window`", each),))
        for name, each in micros.items()
    )
    return Profile("2031-02-03T04:05:06+00:00", {"cpu": "A"}, 10, tuple(threads))


def test_the_model_is_fed_by_what_was_measured() -> None:
    """Where a cost is missing there is no model."""
    costs = {"redis-put-many": 20.0, "redis-drain-many": 30.0}
    bare = report(sample("bare-websocket", 0.01))
    assert Model.of(bare, grown(level(1000, 1.0)), profiled(**costs)) is None
    whole = profiled(**costs, **{"loop-many": 100.0})
    assert Model.of(bare, grown(), whole) is None
    model = Model.of(bare, grown(level(1000, 1.0)), whole)
    assert model == Model(20_000.0, 10_000.0, 10_000.0, 550.0)
    assert "| loop-many | 100 (100 to 100) | `window` 100 |" in render_profile(whole)


def with_cpu(name: str, took: tuple[float, ...], *cpu: float) -> Sample:
    """Return rounds of one message, by the microseconds it took, and those of CPU."""
    seconds = tuple(each / 1e6 for each in took)
    spent = tuple(each / 1e6 for each in cpu)
    return Sample(name, f"the {name}", 1, seconds, cpu=(spent,) * len(took))


def shares(first: Sample, ours: Sample, *, cores: int = 2) -> list[str]:
    """Return the lines of the table for one target."""
    names = ("noop-info", "lane-info-on-ack", "floor-on-ack")
    floor = msgspec.structs.replace(ours, name=names[2], title="the floor")
    made = report(first, ours, floor)
    return render_shares(msgspec.structs.replace(made, core_count=cores)).splitlines()


def test_shares_stand_beside_what_they_are_compared_with() -> None:
    """Their ratios are those within a round; all processes together keep the cores busy."""
    first = with_cpu("noop-info", (10.0, 20.0), 1, 1, 6, 2)
    ours = with_cpu("lane-info-on-ack", (20.0, 30.0), 1, 1, 6, 2)
    lines = shares(first, ours)
    assert f"| {' | '.join(PARTS)} |" in lines[0]
    assert lines[2] == "| **`on_ack` on each** |  | at most 0.25 |"
    assert lines[3] == "| the noop-info | 15 | 1 |  | 33 % | 1 | 1 | 6 | 2 | 10 |"
    expected = "| 25 | 1.75 (1.50 to 2.00) | 0.40 | 20 % | 1 | 1 | 6 | 2 | 10 |"
    assert lines[4] == f"| the lane-info-on-ack {expected}"


@pytest.mark.parametrize(
    ("cpu", "cores", "least"),
    [
        # That of all processes on all cores; and that of one which uses one core at a time.
        (((1, 1, 6, 1)), 1, "0.90"),
        (((1, 1, 6, 1)), 2, "0.60"),
        # Pulsar has a thread for each core.
        (((1, 1, 1, 6)), 2, "0.45"),
        # More than there was in that time.
        (((9, 9, 9, 9)), 1, ""),
    ],
)
def test_a_message_takes_at_least_its_cpu(cpu: tuple[float, ...], cores: int, least: str) -> None:
    """It tells how little a message could take."""
    ours = with_cpu("lane-info-on-ack", (20.0,), *cpu)
    line = shares(with_cpu("noop-info", (10.0,), 1, 1, 1, 1), ours, cores=cores)[4]
    assert line.split("|")[4].strip() == least


def test_a_run_without_cpu_has_no_shares() -> None:
    """One of an older version."""
    assert render_shares(report(sample("noop-info", 1.0))) == ""


def test_cpu_is_counted_round_by_round() -> None:
    """Where clocks are looked at; a rival that fails has none."""
    clock, log = Clock(), list[tuple[str, int]]()
    rounds = iter([(0.0,), (1.0,), (3.0,)])

    def run(rival: Rival, count: int) -> Measured:
        return Measured(rival.run(count), next(rounds))

    rival = FakeRival("a", clock, log, 0.01)
    options: dict[str, Any] = {"rounds": 2, "seconds": 1000, "clock": clock, "left_out": {}}
    samples = run_rounds([rival], tell=lambda _: None, run=run, **options)
    assert samples["drain"][0].cpu == ((1.0,), (3.0,))
    (figure,) = make_groups(samples, WORDS)[0].figures
    assert figure.cpu == (Spread(2.0, 1.0, 3.0),)


def noted(begin: float, *, leave_out: str = "") -> list[tuple[float, str]]:
    """Return the notes of a call whose steps take one microsecond more each."""
    notes = [(begin, CALLED)]
    for number, (_, what) in enumerate(STEPS, 1):
        notes.append((notes[-1][0] + number / 1e6, what))
    return [each for each in notes if each[1] != leave_out]


def test_the_steps_of_a_call_lead_from_one_note_to_the_next() -> None:
    """In any order; a call without all of them does not count, and other notes are no steps."""
    others = [(10.0 + 5e-6, "the owner is woken"), (10.0, "tick is asked for")]
    notes = [*noted(30.0), *noted(20.0, leave_out="Pulsar answers"), *others, *noted(10.0)]
    found = laps(notes)
    assert len(found) == 2
    for call in found:
        assert list(call) == pytest.approx(list(range(1, len(STEPS) + 1)), abs=0.01)


def test_each_step_is_a_median_of_its_own() -> None:
    """Of a round's calls; its spread is that of the rounds."""
    count = len(STEPS)
    rounds = [[(1.0,) * count, (2.0,) * count, (9.0,) * count], [(4.0,) * count]]
    assert {each.micros for each in steps_of(rounds)} == {Spread(3.0, 2.0, 4.0)}
    made = Steps("2031-02-03T04:05:06", {"cpu": "A"}, 3, 2, steps_of(rounds), ONE, Spread(2, 2, 2))
    text = render_steps(made)
    assert f"| {STEPS[0][0]} | 3 (2 to 4) | 1.50 |" in text
    assert "the whole call | 1 (1 to 1) | 0.50 |" in text


def test_shares_are_those_of_rivals() -> None:
    """Each row names what it is compared with, ours, and the floor."""
    known = {each.name for each in RIVALS}
    for _, _, names in ROWS:
        assert set(names) <= known
        assert [each.startswith("floor-") for each in names] == [False, False, True]


def stack_in(module: str, function: str) -> FrameType:
    """Return the stack of a function of a module, whose caller is this test."""
    namespace: dict[str, Any] = {"__name__": module, "look": sys._getframe}  # noqa: SLF001
    exec(f"def {function}(): return look()", namespace)
    frame: FrameType = namespace[function]()
    return frame


def test_a_stack_counts_for_its_innermost_part() -> None:
    """The standard library for whoever called it; a thread that waits for nothing at all."""
    assert part_of(stack_in("celery_stargate.lanes.caller", "put")) == "`lanes.caller`"
    assert part_of(stack_in("kombu.messaging", "publish")) == "kombu"
    assert part_of(stack_in("json.encoder", "encode")) == "the rest"
    assert part_of(stack_in("selectors", "select")) is None
    assert part_of(stack_in("redis._parsers.hiredis", "read_from_socket")) is None
    assert part_of(None) is None


def test_rivals_are_told_apart_and_stand_in_a_group() -> None:
    """Names are keys; a group's words stand in one place."""
    names = [each.name for each in RIVALS]
    assert len(set(names)) == len(names)
    assert {each.group for each in RIVALS} == set(GROUPS)
    assert all(unit in {"per_second", "milliseconds"} for _, _, unit in GROUPS.values())


def test_a_workers_configuration_is_its_callers() -> None:
    """It goes to the worker as text; a world of its own shares no key with others."""
    config = Config("redis://r", "ws://p", "pulsar://p", "bench-1-", lease=5.0)
    assert Config.from_json(config.to_json()) == config
    other = config.below("delay")
    assert other.topic("t") == "persistent://public/default/bench-1-delay-t"
    assert other.redis_url == config.redis_url


def test_payload_is_as_long_as_it_is_said_to_be() -> None:
    """The tables say how many bytes a message has; they count its characters."""
    assert len(PAYLOAD.encode()) == len(PAYLOAD) == 100
