"""The inbox: futures of those who wait, released by what a thread reads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from celery_stargate import ProduceError, ProduceTimeout, StoreUnavailable
from celery_stargate.effects import settled_to_wire
from celery_stargate.inbox import Inbox
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.outcome import Outcome
from tests.unit.helpers import failure, receipt


class Line:
    """Stand where `Lanes` does: `listen` gives what the test says."""

    def __init__(self) -> None:
        self.said: queue.Queue[tuple[str, bytes] | Exception | None] = queue.Queue()
        self.names: set[str] = set()

    def listen(self, inbox: str, timeout: float) -> tuple[str, bytes] | None:
        """Wait for the next word, bounded as the real one is."""
        self.names.add(inbox)
        try:
            found = self.said.get(timeout=min(timeout, 0.05))
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def line() -> Line:
    """A line."""
    return Line()


@pytest.fixture
def inbox(line: Line) -> Iterator[Inbox]:
    """An inbox on it, whose thread has ended when the test has."""
    made = Inbox(line)  # type: ignore[arg-type]
    yield made
    for thread in threading.enumerate():
        if thread.name == "stargate-inbox":
            thread.join(10)
            assert not thread.is_alive()


def wire(*outcomes: Outcome, is_list: bool = False) -> bytes:
    """Return what a worker pushes."""
    return settled_to_wire(Settled(Record("c", is_list=is_list), outcomes))


def test_a_receipt(line: Line, inbox: Inbox) -> None:
    """Releases the one who waits for it, and nobody else."""
    first, second = inbox.expect("a"), inbox.expect("b")
    line.said.put(("b", wire(receipt("b"))))
    assert second.result(5) == receipt("b")
    assert not first.done()
    line.said.put(("a", wire(receipt("a"))))
    assert first.result(5) == receipt("a")
    assert line.names == {inbox.name}


def test_a_list(line: Line, inbox: Inbox) -> None:
    """Of receipts is a list, of one too."""
    future = inbox.expect("c")
    line.said.put(("c", wire(receipt("c"), is_list=True)))
    assert future.result(5) == [receipt("c")]


@pytest.mark.parametrize(
    ("code", "kind"), [("http-404", ProduceError), ("deadline", ProduceTimeout)]
)
def test_a_failure(line: Line, inbox: Inbox, code: str, kind: type[Exception]) -> None:
    """Is raised."""
    future = inbox.expect("c")
    line.said.put(("c", wire(failure(code=code))))
    assert type(future.exception(5)) is kind


def test_what_nobody_waits_for_harms_nothing(line: Line, inbox: Inbox) -> None:
    """A late one, one that was given up, one that cannot be read, one while Redis is away."""
    given_up, future = inbox.expect("given up"), inbox.expect("c")
    inbox.forget("given up", given_up)
    line.said.put(("nobody", wire(receipt("nobody"))))
    line.said.put(("given up", wire(receipt("given up"))))
    line.said.put(StoreUnavailable("Redis is away"))
    line.said.put(("c", b"0garbage"))
    line.said.put(("c", wire(receipt("c"))))
    assert future.result(5) == receipt("c")
    assert not given_up.done()


def test_a_second_call_for_a_context_leaves_the_first_alone(line: Line, inbox: Inbox) -> None:
    """It is refused, and forgets its own future only."""
    first, second = inbox.expect("c"), inbox.expect("c")
    inbox.forget("c", second)
    inbox.forget("c", second)
    line.said.put(("c", wire(receipt("c"))))
    assert first.result(5) == receipt("c")


def test_settled_in_this_process(inbox: Inbox) -> None:
    """No way by Redis is needed."""
    future = inbox.expect("c")
    inbox.deliver(Settled(Record("c"), (receipt("c"),)))
    inbox.deliver(Settled(Record("c"), (failure("c"),)))
    assert future.result(0) == receipt("c")


def test_a_waiter_cannot_take_its_message_back(inbox: Inbox) -> None:
    """`cancel()` says so."""
    future = inbox.expect("c")
    assert not future.cancel()
    inbox.forget("c", future)


def test_many_waiters_at_once(line: Line, inbox: Inbox) -> None:
    """Each gets its own, though the thread ends and begins among them."""
    results: dict[str, Any] = {}

    def wait(context: str) -> None:
        future: Future[Any] = inbox.expect(context)
        line.said.put((context, wire(receipt(context))))
        results[context] = future.result(20)

    threads = [threading.Thread(target=wait, args=(f"c{number}",)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {f"c{number}": receipt(f"c{number}") for number in range(50)}
