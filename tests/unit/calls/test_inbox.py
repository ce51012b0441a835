"""The inbox: those who wait, released by what one of them, or a thread, reads."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from celery_stargate import ProduceError, ProduceTimeout, StoreUnavailable
from celery_stargate.calls.inbox import Inbox, Ticket, _Reader
from celery_stargate.calls.waiting import Patience, Waiting
from celery_stargate.lanes.inbox import InboxEntry
from celery_stargate.lanes.wire import encode_call
from celery_stargate.model.outcome import Outcome
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.waker import Waker
from tests.threads import no_new_threads, signalled
from tests.unit.helpers import failure, receipt


class Line:
    """Stand where `Outbox` does: `subscribe` gives what the test says."""

    def __init__(self) -> None:
        self.said: queue.Queue[tuple[str, bytes] | BaseException] = queue.Queue()
        self.names: set[str] = set()
        self.handled: list[list[str]] = []

    def subscribe(self, inbox: str, handled: Sequence[str], timeout: float) -> list[InboxEntry]:
        """Wait for the next word, bounded as the real one is."""
        self.names.add(inbox)
        self.handled.append(list(handled))
        try:
            found = self.said.get(timeout=min(timeout, 0.05))
        except queue.Empty:
            return []
        if isinstance(found, BaseException):
            raise found
        return [InboxEntry(f"{len(self.handled)}-0", [found])]


@pytest.fixture
def line() -> Line:
    """A line."""
    return Line()


@pytest.fixture
def inbox(line: Line) -> Iterator[Inbox]:
    """An inbox on it, whose thread has ended when the test has."""
    others = set(threading.enumerate())
    made = Inbox(line)  # type: ignore[arg-type]
    yield made
    for thread in set(threading.enumerate()) - others:
        if thread.name == "stargate-inbox":
            thread.join(10)
            assert not thread.is_alive()


def wire(*outcomes: Outcome, is_list: bool = False) -> bytes:
    """Return what a worker pushes."""
    return encode_call(CallOutcomes("c", is_list, outcomes))


def test_a_receipt(line: Line, inbox: Inbox) -> None:
    """Releases the one who waits for it, and nobody else."""
    first, second = inbox.expect(), inbox.expect()
    line.said.put((second.address, wire(receipt("b"))))
    assert second.future.result(5) == receipt("b")
    assert not first.future.done()
    line.said.put((first.address, wire(receipt("a"))))
    assert first.future.result(5) == receipt("a")
    assert line.names == {inbox.name}


def test_what_was_read_is_not_read_again(line: Line, inbox: Inbox) -> None:
    """Each look deletes what the last one brought, and keeps what it did not."""
    ticket = inbox.expect()
    line.said.put(StoreUnavailable("the answer was lost"))
    line.said.put(("nobody", wire(receipt("x"))))
    line.said.put((ticket.address, wire(receipt("c"))))
    ticket.future.result(5)
    assert line.handled[:4] == [[], [], ["2-0"], ["3-0"]][: len(line.handled[:4])]


def test_a_list(line: Line, inbox: Inbox) -> None:
    """Of receipts is a list, of one too."""
    ticket = inbox.expect()
    line.said.put((ticket.address, wire(receipt("c"), is_list=True)))
    assert ticket.future.result(5) == [receipt("c")]


@pytest.mark.parametrize(
    ("code", "kind"), [("http-404", ProduceError), ("deadline", ProduceTimeout)]
)
def test_a_failure(line: Line, inbox: Inbox, code: str, kind: type[Exception]) -> None:
    """Is raised."""
    ticket = inbox.expect()
    line.said.put((ticket.address, wire(failure(code=code))))
    assert type(ticket.future.exception(5)) is kind


def test_what_nobody_waits_for_harms_nothing(line: Line, inbox: Inbox) -> None:
    """A late one, one that was given up, one that cannot be read, one while Redis is away."""
    given_up, ticket = inbox.expect(), inbox.expect()
    inbox.forget(given_up)
    line.said.put((given_up.address, wire(receipt("given up"))))
    line.said.put(StoreUnavailable("Redis is away"))
    line.said.put((ticket.address, b"0garbage"))
    line.said.put((ticket.address, wire(receipt("c"))))
    assert ticket.future.result(5) == receipt("c")
    assert not given_up.future.done()


def test_unreadable_entries_are_skipped_and_logged_once(
    line: Line, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty list, bytes that are no UTF-8, no outcome, no address; the next one is heard."""
    ticket = inbox.expect()
    bad = (b"1[]", b'0[{"type":"receipt","context":"\xff\xfe"}]', b"", b"\xff", b"2[]")
    for each in bad:
        line.said.put((ticket.address, each))
    line.said.put(("", wire(receipt("x"))))
    line.said.put((ticket.address, wire(receipt("c"))))
    assert ticket.future.result(5) == receipt("c")
    assert len([each for each in caplog.records if "could not be read" in each.message]) == 1


def test_a_look_that_fails_does_not_end_the_thread(
    line: Line, inbox: Inbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it fails with: the thread is the only ear of its process."""
    monkeypatch.setattr("celery_stargate.calls.inbox._PAUSE", 0.001)
    ticket = inbox.expect()
    for _ in range(5):
        line.said.put(KeyError("b'to'"))
    line.said.put((ticket.address, wire(receipt("c"))))
    assert ticket.future.result(5) == receipt("c")
    assert (
        len([each for each in caplog.records if "waiting for outcomes failed" in each.message]) == 1
    )


def test_a_deadline_that_cannot_be_enforced_harms_no_other_waiter(line: Line, inbox: Inbox) -> None:
    """Each waiter is judged by itself."""

    def fail() -> None:
        raise ZeroDivisionError

    broken = inbox.expect(Waiting(0.0, Patience(), fail, monotonic=lambda: 1e9))
    ticket = inbox.expect()
    line.said.put((ticket.address, wire(receipt("c"))))
    assert ticket.future.result(5) == receipt("c")
    inbox.forget(broken)


def test_a_repeat_for_an_earlier_wait_is_not_taken_for_this_one(line: Line, inbox: Inbox) -> None:
    """Outcomes may be told twice, and a context may have a second life."""
    first = inbox.expect()
    line.said.put((first.address, wire(receipt("c", ledger_id=1))))
    first.future.result(5)
    second = inbox.expect()
    line.said.put((first.address, wire(receipt("c", ledger_id=1))))
    line.said.put((second.address, wire(receipt("c", ledger_id=2))))
    assert second.future.result(5) == receipt("c", ledger_id=2)


def test_settled_in_this_process(inbox: Inbox) -> None:
    """No way by Redis is needed, and the first outcome stays."""
    ticket = inbox.expect()
    inbox.deliver(ticket.address, CallOutcomes("c", False, (receipt("c"),)))
    inbox.deliver(ticket.address, CallOutcomes("c", False, (failure("c"),)))
    assert ticket.future.result(0) == receipt("c")


def test_a_waiter_cannot_take_its_message_back(inbox: Inbox) -> None:
    """`cancel()` says so."""
    ticket = inbox.expect()
    assert not ticket.future.cancel()
    inbox.forget(ticket)


def test_past_its_deadline_the_inbox_settles(line: Line, inbox: Inbox) -> None:
    """Not before, and again until there is an outcome."""
    now = 100.0
    seen = threading.Semaphore(0)
    patience = Patience(settle_every=1.0)
    ticket = inbox.expect(Waiting(101.0, patience, seen.release, monotonic=lambda: now))
    early = inbox.expect()
    line.said.put((early.address, wire(receipt("c"))))
    early.future.result(5)
    assert not seen.acquire(blocking=False)
    now = 101.0
    assert seen.acquire(timeout=5)
    now = 103.0
    assert seen.acquire(timeout=5)
    inbox.forget(ticket)


def inbox_threads() -> set[threading.Thread]:
    """Return the threads of inboxes, those of other tests' apps among them."""
    return {each for each in threading.enumerate() if each.name == "stargate-inbox"}


def test_a_thread_that_waits_reads_itself(line: Line, inbox: Inbox) -> None:
    """For the others too, and no thread is made for it."""
    others = inbox_threads()
    mine, other = inbox.begin(), inbox.begin()
    line.said.put((other.address, wire(receipt("other"))))
    line.said.put((mine.address, wire(receipt("mine"))))
    assert inbox.wait(mine, 10)
    assert inbox.wait(other, 0)
    assert [each.future.result(0) for each in (mine, other)] == [receipt("mine"), receipt("other")]
    assert not inbox.wait(inbox.begin(), 0.01)
    assert inbox_threads() <= others


def test_threads_take_turns(line: Line, inbox: Inbox) -> None:
    """Each gets its own, and whoever read passes the turn on; a future's thread takes part."""
    tickets = [inbox.begin() for _ in range(20)]
    future = inbox.expect()
    done: list[bool] = []
    threads = [
        threading.Thread(target=lambda each=each: done.append(inbox.wait(each, 20)))
        for each in tickets
    ]
    for thread in threads:
        thread.start()
    for ticket in (*tickets[::2], future, *tickets[1::2]):
        line.said.put((ticket.address, wire(receipt(ticket.address))))
    for thread in threads:
        thread.join(20)
    assert done == [True] * 20
    for ticket in (*tickets, future):
        assert ticket.future.result(5) == receipt(ticket.address)


def test_a_signals_handler_waits_inside_the_one_that_reads(line: Line, inbox: Inbox) -> None:
    """It reads beside it, deletes nothing, and harms nothing of what it interrupted."""
    outer, inner = inbox.begin(), inbox.begin()
    plain = line.subscribe
    nested: list[bool] = []

    def subscribe(inbox_: str, handled: Sequence[str], timeout: float) -> Any:
        if not nested:
            nested.append(True)
            line.said.put((inner.address, wire(receipt("inner"))))
            assert inbox.wait(inner, 10)
            line.said.put((outer.address, wire(receipt("outer"))))
        return plain(inbox_, handled, timeout)

    vars(line)["subscribe"] = subscribe
    assert inbox.wait(outer, 10)
    assert outer.future.result(0) == receipt("outer")
    assert line.handled == [[], []]


def test_many_waiters_at_once(line: Line, inbox: Inbox) -> None:
    """Each gets its own, though the thread ends and begins among them."""
    results: dict[str, Any] = {}

    def wait(context: str) -> None:
        ticket = inbox.expect()
        line.said.put((ticket.address, wire(receipt(context))))
        results[context] = ticket.future.result(20)

    threads = [threading.Thread(target=wait, args=(f"c{number}",)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {f"c{number}": receipt(f"c{number}") for number in range(50)}


def test_an_outcome_that_comes_just_before_the_thread_waits(line: Line, inbox: Inbox) -> None:
    """Is found at once: the thread does not wait for a second."""

    class Noted(Waker):
        """The outcome comes while the thread gets ready to wait."""

        def clear(self) -> None:
            inbox.deliver(ticket.address, CallOutcomes("c", False, (receipt("c"),)))
            super().clear()

        def wait(self, timeout: float) -> bool:
            raise AssertionError(f"it waits {timeout} s for what is there")

    ticket = inbox.begin()
    ticket.waker = Noted()
    # A thread of another call reads.
    inbox._turn[None] = _Reader(thread=0)  # noqa: SLF001
    assert inbox.wait(ticket, 5.0)
    assert ticket.future.result(0) == receipt("c")


def test_the_one_who_waits_reads_for_a_future_and_then_the_thread_does(
    line: Line, inbox: Inbox
) -> None:
    """The turn is passed on at once: the thread does not wait for its next look."""
    waits = threading.Event()

    class Noted(Waker):
        """The thread's; it waits for much longer than it does."""

        def wait(self, timeout: float) -> bool:
            waits.set()
            return super().wait(20)

    vars(inbox)["_waker"] = Noted()
    plain = line.subscribe
    futures: list[Any] = []

    def subscribe(name: str, handled: Sequence[str], timeout: float) -> Any:
        if not futures:
            futures.append(inbox.expect())
            assert waits.wait(10)
            line.said.put((mine.address, wire(receipt("mine"))))
        return plain(name, handled, timeout)

    vars(line)["subscribe"] = subscribe
    mine = inbox.begin()
    assert inbox.wait(mine, 10)
    [ticket] = futures
    line.said.put((ticket.address, wire(receipt("future"))))
    assert ticket.future.result(10) == receipt("future")


def test_a_deadline_that_can_never_be_enforced_is_logged_once(
    line: Line, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried with each look."""
    tried = threading.Semaphore(0)

    def fail() -> None:
        tried.release()
        raise ZeroDivisionError

    now = itertools.count(1000)
    broken = inbox.expect(Waiting(0.0, Patience(), fail, monotonic=lambda: float(next(now))))
    for _ in range(3):
        assert tried.acquire(timeout=10)
    inbox.forget(broken)
    assert len([each for each in caplog.records if "could not be enforced" in each.message]) == 1


def test_a_thread_that_cannot_be_started(line: Line, inbox: Inbox) -> None:
    """The call ends with an error and leaves nothing; the next one starts the thread."""
    with no_new_threads("stargate-inbox"), pytest.raises(RuntimeError, match="start new thread"):
        inbox.expect()
    assert not inbox._waiting  # noqa: SLF001
    ticket = inbox.expect()
    line.said.put((ticket.address, wire(receipt("c"))))
    assert ticket.future.result(5) == receipt("c")


@pytest.mark.parametrize("kind", [SoftTimeLimitExceeded, KeyError, SystemExit])
def test_what_a_signals_handler_raises_ends_its_call(
    kind: type[BaseException], line: Line, inbox: Inbox
) -> None:
    """In the thread that reads; another one that waits reads on, at once."""
    waits = threading.Event()

    class Noted(Waker):
        """Of the other; it waits for much longer than it does."""

        def wait(self, timeout: float) -> bool:
            waits.set()
            return super().wait(20)

    mine, other = inbox.begin(), inbox.begin()
    other.waker = Noted()
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(inbox.wait(other, 20)))
    plain = line.subscribe

    def subscribe(name: str, handled: Sequence[str], timeout: float) -> Any:
        vars(line)["subscribe"] = plain
        thread.start()
        assert waits.wait(10)
        raise kind

    vars(line)["subscribe"] = subscribe
    with pytest.raises(kind):
        inbox.wait(mine, 20)
    line.said.put((other.address, wire(receipt("other"))))
    thread.join(10)
    assert done == [True]
    assert other.future.result(0) == receipt("other")


@pytest.mark.no_cover
def test_a_signals_handler_that_raises_at_any_step_holds_up_no_other(line: Line) -> None:
    """Another thread may read after it, and gets its own."""

    class Stop(BaseException): ...

    def stop() -> None:
        raise Stop

    def work() -> None:
        last = step = 0
        while last == step:
            step += 1
            inbox = Inbox(line)  # type: ignore[arg-type]
            mine, other = inbox.begin(), inbox.begin()
            line.said.put((mine.address, wire(receipt("mine"))))
            with contextlib.suppress(Stop), signalled(step, stop) as steps:
                inbox.wait(mine, 20)
            last = steps[0]
            line.said = queue.Queue()
            kept.append((inbox, other))

    kept: list[tuple[Inbox, Ticket]] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(kept) > 30
    for inbox, other in kept:
        line.said.put((other.address, wire(receipt("other"))))
        assert inbox.wait(other, 5)
