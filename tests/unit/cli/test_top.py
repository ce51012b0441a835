"""One screen of ``top``."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from celery_stargate.cli.output import Output
from celery_stargate.cli.top import Frame, _pressed_q, render
from celery_stargate.operations.inspect import totals
from celery_stargate.operations.views import LaneView


def lane(name: str, **fields: Any) -> LaneView:
    topic = f"persistent://public/default/{name}"
    usual: dict[str, Any] = {
        "lane": f"{topic}#0",
        "topic": topic,
        "index": 0,
        "owner": f"host-17-{'f' * 32}",
        "lease_seconds": 9.0,
        "backlog": 0,
        "unsent": 0,
        "sent": 0,
        "contexts": 0,
        "settled": 0,
        "recorded_total": 0,
        "sent_total": 0,
        "oldest_age_seconds": None,
        "oldest_age_exact": False,
        "next_deadline_seconds": None,
        "announced_seconds": 1.0,
    }
    return LaneView(**{**usual, **fields})


def frame(at: float, *lanes: LaneView) -> Frame:
    return Frame(at, lanes, totals(lanes, workers=2))


@pytest.fixture
def output() -> Output:
    """Without colours."""
    return Output(no_color=True)


@pytest.mark.parametrize("width", [40, 80, 110, 200])
@pytest.mark.parametrize("height", [8, 24])
def test_fits_the_terminal(width: int, height: int, output: Output) -> None:
    lanes = [lane("x" * n, backlog=10**8, oldest_age_seconds=1e6) for n in range(1, 60)]
    lines = render(frame(1.0, *lanes), None, width, height, output)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith("… and ")


def test_the_fullest_lane_is_first_and_names_keep_their_ends(output: Output) -> None:
    lines = render(
        frame(1.0, lane("small", backlog=1), lane("large", backlog=2)), None, 80, 24, output
    )
    assert [line.split()[0][-7:] for line in lines[4:]] == ["large#0", "small#0"]


def test_rates_are_of_the_time_between_two_looks(output: Output) -> None:
    before = frame(10.0, lane("a", recorded_total=100, backlog=50))
    after = frame(12.0, lane("a", recorded_total=300, backlog=50), lane("new", recorded_total=8))
    lines = render(after, before, 200, 24, output)
    assert "in 104/s   out 104/s" in lines[1]
    assert lines[4].split()[-2:] == ["100", "100"]
    assert lines[5].split()[-2:] == ["4", "4"]


def test_a_wide_terminal_shows_owners(output: Output) -> None:
    found = frame(1.0, lane("a"), lane("b", owner=None, backlog=1))
    assert "host-17" in "".join(render(found, None, 200, 24, output))
    assert "nobody" in "".join(render(found, None, 200, 24, output))
    assert "host-17" not in "".join(render(found, None, 80, 24, output))


def test_colours_what_needs_a_hand() -> None:
    output = Output()
    output.colour = True
    found = frame(
        1.0,
        lane("lost", owner=None, backlog=3),
        lane("paused", owner="paused by ann@host", backlog=2),
        lane("well", backlog=1),
    )
    lost, paused, well = render(found, None, 80, 24, output)[4:]
    assert lost.startswith("\x1b[31m")
    assert paused.startswith("\x1b[33m")
    assert not well.startswith("\x1b")


def test_no_lane_is_a_screen_as_well(output: Output) -> None:
    assert len(render(frame(1.0), None, 80, 24, output)) == 4


@pytest.mark.parametrize(
    ("typed", "ends"), [(b"q", True), (b"xQ", True), (b"", True), (b"xyz", False)]
)
def test_the_key_that_ends_it(typed: bytes, ends: bool) -> None:
    """Any other key changes nothing, until the next screen is due; a closed input ends it."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "r", buffering=1) as keys, os.fdopen(writes, "wb", buffering=0) as typing:
        typing.write(typed)
        if not typed:
            typing.close()
        assert _pressed_q(cast("Any", _Unbuffered(keys)), 20.0 if ends else 0.05) is ends


class _Unbuffered:
    """A terminal's keys, one at a time."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def fileno(self) -> int:
        return int(self._keys.fileno())

    def read(self, count: int) -> str:
        return os.read(self.fileno(), count).decode()
