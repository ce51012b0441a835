"""The story: what the demo publishes, kills and measures."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from celery import chain, chord
from celery.exceptions import TimeoutError  # noqa: A004  # what get() raises
from celery_stargate import ProduceError, produce_task

from . import app as demo
from . import lanes
from .ledger import Ledger, compare, read_topic
from .processes import Child, DemoError
from .report import Screen
from .servers import wait_until

#: Seconds that any step may take.
PATIENCE = 60.0
#: How many calls are timed, one after the other.
TIMED = 100
#: How many messages each list of the burst has.
LIST = 20
#: One message in so many of the stream triggers a callback.
EVERY = 10


@dataclass
class Figures:
    """What the summary shows; all of it is counted or measured."""

    messages: int = 0
    stored: int = 0
    released: int = 0
    callbacks_expected: int = 0
    callbacks: int = 0
    callbacks_repeated: int = 0
    errors_told: int = 0
    refused: str = ""
    pending_at_kill: int = 0
    without_receipt_at_kill: int = 0
    recovered: int = 0
    lost: int = 0
    duplicates: int = 0
    strange: int = 0
    false_receipts: int = 0
    disordered_keys: int = 0
    put_per_second: float = 0.0
    drain_per_second: float = 0.0
    get_median_ms: float = 0.0
    get_p99_ms: float = 0.0
    takeover_seconds: float = 0.0
    lease_seconds: float = demo.LEASE
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


class Story:
    """Runs the whole demo once.

    Args:
        screen: where progress is printed.
        messages: how many messages the stream has.
        victim: the worker that is killed; it runs no tasks, as Celery over Redis can lose them.
        survivor: the worker that takes over.
    """

    def __init__(self, screen: Screen, messages: int, victim: Child, survivor: Child) -> None:
        self.figures = Figures()
        self._screen = screen
        self._count = messages
        self._victim = victim
        self._survivor = survivor
        self._ledger = Ledger()
        self._results: list[tuple[list[str], Any]] = []
        self._expected: set[str] = set()
        self._numbers = iter(range(1, 10**9))

    def tell(self, pulsar: str) -> Figures:
        """Run all chapters; return the figures."""
        began = time.monotonic()
        self._one_by_one()
        self._canvas()
        self._refused()
        pending = self._stream()
        self._settle(pending)
        self._compare(pulsar, pending)
        self.figures.seconds = time.monotonic() - began
        self.figures.problems = self._problems()
        return self.figures

    # The chapters.

    def _one_by_one(self) -> None:
        times = []
        for _ in range(TIMED):
            payload = self._new()
            start = time.perf_counter()
            result = produce_task.delay(payload)
            self._accept(payload)
            self._ledger.receipts[payload] = result.get(timeout=PATIENCE)
            times.append((time.perf_counter() - start) * 1000)
        self.figures.get_median_ms = statistics.median(times)
        self.figures.get_p99_ms = statistics.quantiles(times, n=100)[98]
        self._screen.step(
            "produce_task.delay(msg).get()",
            f"waits for Pulsar's receipt: {self.figures.get_median_ms:.1f} ms",
        )

    def _canvas(self) -> None:
        payload = self._new()
        whole = chain(demo.build_message.s(payload), produce_task.s(), demo.invoice.s())
        result: Any = whole.delay()
        done = result.get(timeout=PATIENCE)
        self._accept(payload, payload)
        self._ledger.receipts[payload] = result.parent.get(timeout=PATIENCE)
        self._screen.step("chain(build, produce, next)", f"goes on after the receipt: {done}")

        payloads = [self._new() for _ in range(5)]
        receipts = produce_task.delay(payloads).get(timeout=PATIENCE)
        self._accept_all(payloads, receipts)
        self._screen.step("a list", f"one call, {len(receipts)} receipts, in order")

        payloads = [self._new() for _ in range(5)]
        result = chord([produce_task.s(each) for each in payloads], demo.count.s()).delay()
        counted = result.get(timeout=PATIENCE)
        self._accept_all(payloads, [each.get(timeout=PATIENCE) for each in result.parent])
        self._screen.step("chord([produce …], body)", f"its body got {counted} receipts")

    def _refused(self) -> None:
        topic = f"persistent://public/{demo.PREFIX}/orders"
        result = produce_task.delay("never", topic=topic, on_error=demo.failed.s())
        try:
            result.get(timeout=PATIENCE)
        except ProduceError as error:
            self.figures.refused = error.reason
        told = self._told(demo.FAILED, {result.id})
        self.figures.errors_told = len(told)
        self._screen.step("a refused message", f"on_error got: {self.figures.refused}")

    def _stream(self) -> set[str]:
        """Publish the stream and kill a worker half-way; return its unfinished messages."""
        wait_until(
            lambda: {self._victim.pid, self._survivor.pid} == set(lanes.look().owners),
            PATIENCE,
            "the workers did not share the lanes",
            self._victim,
            self._survivor,
        )
        burst = max(5 * LIST, self._count // 4)
        before = max(1, (self._count - burst) // 2)
        with self._screen.progress("publish", self._count) as advance:
            start = time.perf_counter()
            for _ in range(before):
                self._publish(advance)
            self.figures.put_per_second = before / (time.perf_counter() - start)
            published, contexts, watch = self._burst_and_kill(burst, advance)
            with watch:
                for _ in range(self._count - before - published):
                    self._publish(advance)
                watch.wait_for_takeover(PATIENCE)
                self._screen.note(
                    f"the other worker took over {watch.takeover:.1f} s after the kill "
                    f"(it waits for the lease, {demo.LEASE:g} s)"
                )
                watch.wait_for_rest(PATIENCE)
        self.figures.takeover_seconds = watch.takeover
        self.figures.drain_per_second = watch.drained_per_second
        known = {result.id: payloads for payloads, result in self._results}
        return {payload for context in contexts for payload in known.get(context, ())}

    def _settle(self, pending: set[str]) -> None:
        """Get every result, and wait for the callbacks."""
        with self._screen.progress("results", len(self._results)) as advance:
            end = time.monotonic() + PATIENCE
            for payloads, result in self._results:
                try:
                    got = result.get(timeout=max(0.1, end - time.monotonic()))
                except (ProduceError, TimeoutError):
                    # The summary shows that it is missing.
                    continue
                receipts = got if isinstance(got, list) else [got]
                self._ledger.receipts.update(zip(payloads, receipts, strict=True))
                advance(1)
        told = self._told(demo.PAID, self._expected)
        figures = self.figures
        figures.released = len(self._ledger.receipts)
        figures.callbacks_expected = len(self._expected)
        figures.callbacks = len(told.keys() & self._expected)
        figures.callbacks_repeated = sum(int(times) - 1 for times in told.values())
        figures.pending_at_kill = len(pending)

    def _compare(self, pulsar: str, pending: set[str]) -> None:
        """Read the topic and compare it with the ledger."""
        topic = read_topic(pulsar, demo.app.conf.stargate_topic)
        found = compare(self._ledger, topic)
        figures = self.figures
        figures.messages = len(self._ledger.accepted)
        figures.stored = found.stored
        figures.lost = found.lost
        figures.duplicates = found.duplicates
        figures.strange = found.strange
        figures.false_receipts = found.false_receipts
        figures.disordered_keys = found.disordered
        held = {message.payload for message in topic}
        figures.recovered = len(pending & held & self._ledger.receipts.keys())

    def _problems(self) -> list[str]:
        """Return every promise that was broken."""
        figures = self.figures
        promises = {
            f"{figures.lost} messages are lost": figures.lost == 0,
            "results are missing": figures.released == figures.messages,
            "callbacks are missing": figures.callbacks == figures.callbacks_expected,
            "on_error was not called": figures.errors_told == 1 and bool(figures.refused),
            "not all that was pending at the kill was recovered": (
                figures.recovered == figures.pending_at_kill
            ),
            "the worker was killed with nothing in flight": figures.pending_at_kill > 0,
            "the topic holds messages that nobody sent": figures.strange == 0,
            "receipts name messages that the topic does not hold": figures.false_receipts == 0,
            "messages with a key are out of order": figures.disordered_keys == 0,
        }
        return [problem for problem, kept in promises.items() if not kept]

    # Parts of the chapters.

    def _new(self) -> str:
        return f"order-{next(self._numbers):06d}"

    def _accept(self, payload: str, key: str = "") -> None:
        self._ledger.accepted[payload] = key

    def _accept_all(self, payloads: list[str], receipts: list[Any]) -> None:
        for payload, receipt in zip(payloads, receipts, strict=True):
            self._accept(payload)
            self._ledger.receipts[payload] = receipt

    def _publish(self, advance: Callable[[int], None]) -> None:
        payload = self._new()
        number = int(payload[-6:])
        key = f"customer-{number % 97}"
        calls_back = number % EVERY == 0
        result = produce_task.delay((key, payload), on_ack=demo.paid.s() if calls_back else None)
        self._accept(payload, key)
        if calls_back:
            self._expected.add(result.id)
        self._results.append(([payload], result))
        advance(1)

    def _told(self, name: str, expected: set[str]) -> dict[str, str]:
        """Wait until each context triggered its callback; return the notes."""

        def noted() -> dict[str, str]:
            found: Any = demo.notes().hgetall(name)
            return {context.decode(): value.decode() for context, value in found.items()}

        end = time.monotonic() + PATIENCE
        # A missing callback is a figure of the summary, and does not stop the demo.
        while not expected <= noted().keys() and time.monotonic() < end:
            self._survivor.require_alive()
            time.sleep(0.05)
        return noted()

    def _burst_and_kill(
        self, burst: int, advance: Callable[[int], None]
    ) -> tuple[int, set[str], lanes.Watch]:
        """Publish lists faster than they drain, and kill the victim while some are pending.

        Returns:
            How many messages were published, the contexts pending in the victim's lanes at the
            kill, and a watch over those lanes.
        """
        published = tries = 0
        while True:
            for _ in range(burst // LIST):
                payloads = [self._new() for _ in range(LIST)]
                result = produce_task.delay(payloads, on_ack=demo.all_paid.s())
                for payload in payloads:
                    self._accept(payload)
                self._expected.add(result.id)
                self._results.append((payloads, result))
                published += LIST
                advance(LIST)
            # Stopped first, so that the count is what it holds when it is killed.
            self._victim.signal(signal.SIGSTOP)
            owners = lanes.look().owners
            mine = {index for index, pid in enumerate(owners) if pid == self._victim.pid}
            contexts, unsettled = lanes.unfinished(mine)
            tries += 1
            if unsettled >= (burst // 10 if tries < 4 else 1):
                break
            self._victim.signal(signal.SIGCONT)
            if tries > 20:
                raise DemoError("the worker was never caught with a message in flight")
        self._victim.signal(signal.SIGKILL)
        self.figures.without_receipt_at_kill = unsettled
        self._screen.note(
            f"kill -9 of the worker that sends for {len(mine)} of {demo.LANES} lanes, with "
            f"{unsettled} messages without a receipt"
        )
        return published, contexts, lanes.Watch(mine, self._victim.pid, self._survivor)
