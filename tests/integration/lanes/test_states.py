"""The table of a context's states, run: every script on a context in every state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from celery_stargate.lanes.states import TRANSITIONS, Event, State
from tests.integration.lanes.pair import UNIT, Pair
from tests.servers.fixtures import ServerAddress

#: How to bring a context into each state: events from ABSENT on.
WAYS: dict[State, list[list[Event]]] = {
    State.ABSENT: [
        [],
        [Event.PUT, Event.COMPLETION],
        [Event.PUT, Event.DEADLINE, Event.EFFECTS],
        [Event.PUT, Event.DEADLINE, Event.FAILED_EFFECTS],
    ],
    State.PENDING: [[Event.PUT], [Event.PUT_MANY], [Event.REPLAY]],
    State.DUE: [
        [Event.PUT, Event.RECEIPT],
        [Event.PUT, Event.DEADLINE],
        [Event.PUT, Event.REVOCATION],
        [Event.PUT_MANY, Event.RECEIPT],
        [Event.REDO],
    ],
}
#: Bounds of dead letters.
DEAD = f"100 100000 {100 * UNIT}"
CASES = [(way, event) for ways in WAYS.values() for way in ways for event in Event]


@pytest.fixture
def pair(redis_server: ServerAddress, prefix: str) -> Iterator[Pair]:
    """A lane whose lease is held."""
    with redis.Redis.from_url(redis_server.url) as client:
        made = Pair(client, prefix)
        made.call("lease", "one", 100 * UNIT, "generation")
        yield made


def run(pair: Pair, event: Event, token: str) -> None:
    """Run the script of an event on the context."""

    def expire() -> None:
        # Past the deadline of a put, and before the lease ends.
        pair.leap(2 * UNIT)
        pair.call("expire", UNIT, 100, "")

    calls: dict[Event, Callable[[], Any]] = {
        Event.PUT: lambda: pair.call("put", token, "c", "{}", UNIT, 0, 0, UNIT, "q", "", "frame"),
        Event.PUT_MANY: lambda: pair.call("put_many", token, UNIT, 0, 0, UNIT, "c", "{}", "q", "f"),
        Event.RECEIPT: lambda: pair.call("settle", "one:1", token, UNIT, "c", "", -1, "{}", "ok"),
        Event.COMPLETION: lambda: pair.call("complete", "one:1", token, 1, 0, 0, "c", ""),
        Event.DEADLINE: expire,
        Event.REVOCATION: lambda: pair.call("revoke", token, UNIT, "c", "", "{}"),
        Event.REPLAY: lambda: replay(pair, token),
        Event.REDO: lambda: redo(pair, token),
        Event.FAILED_EFFECTS: lambda: pair.call("give_up", "c", "", "Error x", dead=DEAD),
        Event.EFFECTS: lambda: pair.call("finish", "c", ""),
    }
    calls[event]()


def letter(pair: Pair, kind: str, token: str, body: str) -> tuple[str, int]:
    """Put a dead letter of the context in; return its id and its last failure."""
    name = f"letter of {token}"
    given = (name, kind, 1, 1, UNIT, 7, "Error x", "1", body)
    assert pair.call("restore", *given, dead=DEAD) == 1
    return name, UNIT


def replay(pair: Pair, token: str) -> None:
    """Send a dead letter of the context again."""
    pair.call("replay", UNIT, 0, 0, *letter(pair, "m", token, "{}\nf"), "c", "{}", "f", dead=DEAD)


def redo(pair: Pair, token: str) -> None:
    """Let failed effects of the context be done again."""
    pair.call("redo", *letter(pair, "e", token, "1 7 1 0\n{}\n[{}]"), "c", dead=DEAD)


def stand(pair: Pair) -> State:
    """Return where the context stands."""
    if b"c" not in pair.state.contexts:
        return State.ABSENT
    return State.DUE if b"c" in pair.state.due else State.PENDING


@pytest.mark.parametrize(
    ("way", "event"), CASES, ids=["-".join(each.value for each in (*way, e)) for way, e in CASES]
)
def test_each_script_in_each_state(pair: Pair, way: list[Event], event: Event) -> None:
    """It changes the state as the table says, and otherwise not at all."""
    state = State.ABSENT
    for number, each in enumerate(way):
        run(pair, each, f"way:{number}")
        state = TRANSITIONS[state][each]
        assert stand(pair) is state
    run(pair, event, "last:1")
    assert stand(pair) is TRANSITIONS[state].get(event, state)


def test_every_state_is_reached() -> None:
    """By a way that the table knows."""
    for end, ways in WAYS.items():
        for way in ways:
            state = State.ABSENT
            for event in way:
                state = TRANSITIONS[state][event]
            assert state is end
    assert set(WAYS) == set(State)
