"""Draw the state tables into docs/states.md: `python -m tools.state_diagrams`.

The page carries a hash of the modules that it is drawn from. With ``--check`` nothing is written,
and the command fails where the page is not what would be written.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from celery_stargate.delivery import lease
from celery_stargate.delivery import states as lane_states
from celery_stargate.lanes import states as context_states

__all__ = ["Chart", "draw", "main", "render"]

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "states.md"

_HASH = re.compile(r"<!-- sources: sha256 (\w+) -->")


@dataclass(frozen=True, slots=True)
class Chart:
    """One state machine of the page."""

    title: str
    text: str
    module: ModuleType
    states: type[Enum]
    events: type[Enum]
    table: Mapping[Any, Mapping[Any, Any]]
    #: The first state, and those in which it ends.
    first: Enum
    last: tuple[Enum, ...]


CHARTS = (
    Chart(
        "A lane, as its owner sees it",
        "An owner takes a lane in state IDLE. The sender, its source and the owner report events; "
        "an event that the table does not have in the present state raises `IllegalEvent`.",
        lane_states,
        lane_states.State,
        lane_states.Event,
        lane_states.TRANSITIONS,
        lane_states.State.IDLE,
        (lane_states.State.STOPPED,),
    ),
    Chart(
        "A lane's lease",
        "It stands beside the lane's state: messages are sent only while the lease is HELD.",
        lease,
        lease.LeaseState,
        lease.LeaseEvent,
        lease.LEASE_TRANSITIONS,
        lease.LeaseState.HELD,
        (lease.LeaseState.LOST,),
    ),
    Chart(
        "A context",
        "Each event is one Lua script. A script that finds a context in a state without such an "
        "event changes nothing, and answers so.",
        context_states,
        context_states.State,
        context_states.Event,
        context_states.TRANSITIONS,
        context_states.State.ABSENT,
        (context_states.State.ABSENT,),
    ),
)


def sources() -> list[Path]:
    """Return the files that the page is drawn from, this one too."""
    return [*(Path(chart.module.__file__ or "") for chart in CHARTS), Path(__file__)]


def source_hash() -> str:
    """Return the hash of the sources, line by line."""
    found = sha256()
    for path in sources():
        found.update("\n".join(path.read_text("utf-8").splitlines()).encode())
    return found.hexdigest()[:16]


def meanings(kind: type[Enum], module: ModuleType) -> dict[str, str]:
    """Return what the comments beside an enum's members say.

    Raises:
        ValueError: a member has no such comment.
    """
    text = Path(module.__file__ or "").read_text("utf-8")
    body = text.partition(f"class {kind.__name__}(Enum):")[2].partition("\nclass ")[0]
    found = dict(re.findall(r"^    (\w+) = .*?  #: (.*)$", body, re.MULTILINE))
    if missing := [each.name for each in kind if each.name not in found]:
        raise ValueError(f"{kind.__name__}: no comment beside {', '.join(missing)}")
    return {each.name: found[each.name].replace("``", "`") for each in kind}


def draw(chart: Chart) -> Iterator[str]:
    """Yield the lines of a machine's Mermaid diagram; events that change nothing are left out."""
    yield "stateDiagram-v2"
    yield f"    [*] --> {chart.first.name}"
    anywhere = everywhere(chart)
    for state in chart.states:
        targets: dict[Enum, list[str]] = {}
        for event, target in chart.table[state].items():
            if target is not state and event not in anywhere:
                targets.setdefault(target, []).append(event.value)
        for target, names in targets.items():
            yield f"    {state.name} --> {target.name}: {', '.join(names)}"
    for state in chart.last:
        if state is not chart.first:
            yield f"    {state.name} --> [*]"


def everywhere(chart: Chart) -> dict[Enum, Enum]:
    """Return the events that lead to the same state from all states, with that state."""
    found: dict[Enum, Enum] = {}
    for event in chart.events:
        first, *others = [chart.table[state].get(event) for state in chart.states]
        if first is not None and all(each is first for each in others):
            found[event] = first
    return found


def _rows(cells: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for number, row in enumerate(cells):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield f"|{'|'.join('---' for _ in row)}|"


def _section(chart: Chart) -> Iterator[str]:
    yield from ("", f"## {chart.title}", "", chart.text, "")
    yield from ("```mermaid", *draw(chart), "```", "")
    for event, target in everywhere(chart).items():
        yield from (f"From every state, *{event.value}* leads to {target.name}.", "")
    states = meanings(chart.states, chart.module)
    next_states = (
        "; ".join(
            f"{event.value} → {'stays' if target is state else target.name}"
            for event, target in chart.table[state].items()
        )
        for state in chart.states
    )
    table = zip((f"**{name}**" for name in states), states.values(), next_states, strict=True)
    yield from _rows([("state", "meaning", "event → next state"), *table])
    yield ""
    events = [
        (each.value, meanings(chart.events, chart.module)[each.name]) for each in chart.events
    ]
    yield from _rows([("event", "meaning"), *events])


def render() -> str:
    """Return the page."""
    lines = [
        f"<!-- sources: sha256 {source_hash()} -->",
        "# States",
        "",
        "Drawn by `python -m tools.state_diagrams` from the tables that the code executes; do not",
        "edit it. The diagrams leave out events that change nothing; the tables have all.",
    ]
    for chart in CHARTS:
        lines += _section(chart)
    return "\n".join(lines) + "\n"


def problem(page: Path) -> str | None:
    """Return what is wrong with the page; None where it is what would be written."""
    command = "run python -m tools.state_diagrams and commit the page"
    if not page.is_file():
        return f"{page.name} is missing: {command}"
    text = page.read_text("utf-8")
    hash_found = _HASH.match(text)
    if hash_found is None or hash_found[1] != source_hash():
        return f"{page.name} is older than the state tables: {command}"
    if text != render():
        return f"{page.name} was edited by hand: {command}"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it; return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the state tables into docs/states.md.")
    parser.add_argument("--check", action="store_true", help="fail if the page is old")
    if not parser.parse_args(arguments).check:
        PAGE.write_text(render(), "utf-8")
        return 0
    found = problem(PAGE)
    if found is not None:
        print(found, file=sys.stderr)
    return int(found is not None)


if __name__ == "__main__":
    sys.exit(main())
