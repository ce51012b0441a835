"""A session over a producer that is no socket: a scripted peer answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from celery_stargate.model.dead_letters import Policy
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar import session as session_module
from celery_stargate.pulsar.judge import FalseOk, judge
from celery_stargate.pulsar.link import LinkBroken
from celery_stargate.pulsar.replies import Reply
from celery_stargate.pulsar.sequence import DeduplicationUnavailable, Numbered, SequenceMismatch
from celery_stargate.pulsar.session import Counters, Session, SessionRules
from celery_stargate.pulsar.window import Window
from celery_stargate.testing import MessageId

TOPIC = Topic.parse("orders")
TRANSIENT = Topic.parse("non-persistent://public/default/orders")
STORED = "CAwQADAA"
NOWHERE = "CP///////////wEQ////////////ATAA"


def entry(number: int, place: int = -1) -> Entry:
    """Return a message of that number."""
    label = f"c{number}" if place < 0 else f"list\t{place}"
    return Entry(number, label, json.dumps({"context": label}).encode(), place)


def ok(label: str, message_id: str | None = STORED) -> bytes:
    """Return a receipt as Pulsar writes it."""
    return json.dumps({"result": "ok", "messageId": message_id, "context": label}).encode()


def error(label: str | None, code: int, text: str = "") -> bytes:
    """Return an error as Pulsar writes it."""
    found = {"result": f"send-error:{code}", "errorMsg": text, "errorCode": 0}
    return json.dumps({**found, **({"context": label} if label else {})}).encode()


class Peer:
    """Stand where a Producer does: note what is sent, and say what the test says."""

    def __init__(self, *, answers: bool = False) -> None:
        self.sent: list[str] = []
        #: How many frames each write had.
        self.writes: list[int] = []
        #: For how long nothing was to be read, each time.
        self.rests: list[float] = []
        self._answers = answers
        self._replies: asyncio.Queue[list[bytes] | Exception] = asyncio.Queue()
        self._change = asyncio.Event()
        self.broken: Exception | None = None

    async def send(self, *frames: bytes) -> None:
        """Take frames; answer each with a receipt where told to."""
        if self.broken is not None:
            raise self.broken
        self.writes.append(len(frames))
        for frame in frames:
            label = json.loads(frame)["context"]
            self.sent.append(label)
            self._change.set()
            if self._answers:
                self.say(ok(label))

    def say(self, *replies: bytes | Exception) -> None:
        """Give replies to whoever reads, one by one."""
        for reply in replies:
            self._replies.put_nowait(reply if isinstance(reply, Exception) else [reply])

    def say_together(self, *replies: bytes) -> None:
        """Give replies that came by one read."""
        self._replies.put_nowait(list(replies))

    async def replies(self) -> AsyncIterator[list[bytes]]:
        """Yield what was said."""
        while True:
            reply = await self._replies.get()
            if isinstance(reply, Exception):
                raise reply
            yield reply

    def rest(self, seconds: float) -> None:
        """Note that replies are to come together."""
        self.rests.append(seconds)

    async def wait_for_sent(self, count: int) -> None:
        """Wait until that many were sent."""
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                self._change.clear()
                await self._change.wait()


class Rig:
    """A session with its peer, its source and its outcomes."""

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        answers: bool = False,
        count: int = 100,
        size: int = 10_000,
        **given: Any,
    ) -> None:
        self.peer = Peer(answers=answers)
        self.waiting = list(entries)
        self.asked: list[tuple[int, int]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.window = Window(count, size)
        self.session = Session(
            self.peer,  # type: ignore[arg-type]
            given.pop("topic", TOPIC),
            self,
            self._settle,
            self.window,
            counters=given.pop("counters", None),
            rules=SessionRules(**given),
        )

    async def next(self, count: int, size: int) -> Sequence[Entry]:
        self.asked.append((count, size))
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def _settle(self, given: Entry, outcome: Outcome) -> None:
        assert given.label not in self.outcomes
        self.outcomes[given.label] = outcome

    async def run(self) -> None:
        """Run the session, in bounded time."""
        await asyncio.wait_for(self.session.run(), 5)


def test_all_is_sent_in_order_and_settled() -> None:
    """Then the session ends by itself."""

    async def main() -> Rig:
        rig = Rig([entry(number) for number in range(1, 51)], answers=True)
        await rig.run()
        return rig

    rig = asyncio.run(main())
    assert rig.peer.sent == [f"c{number}" for number in range(1, 51)]
    assert list(rig.outcomes) == rig.peer.sent
    assert all(isinstance(each, Receipt) for each in rig.outcomes.values())
    counters = rig.session.counters
    assert (counters.sent, counters.receipts, counters.unmatched) == (50, 50, 0)


def test_nothing_to_send() -> None:
    """Ends at once."""

    async def main() -> None:
        await Rig([]).run()

    asyncio.run(main())


def test_no_receipt_is_waited_for_before_the_next_send() -> None:
    """All that the window takes is in flight; then one more for each receipt."""

    async def main() -> None:
        rig = Rig([entry(number) for number in range(1, 6)], count=3)
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(3)
        assert rig.asked == [(3, 10_000)]
        rig.peer.say(ok("c2"))
        await rig.peer.wait_for_sent(4)
        assert rig.peer.sent == ["c1", "c2", "c3", "c4"]
        rig.peer.say(ok("c1"), ok("c3"), ok("c4"))
        await rig.peer.wait_for_sent(5)
        assert not running.done()
        rig.peer.say(ok("c5"))
        await running
        assert list(rig.outcomes) == ["c2", "c1", "c3", "c4", "c5"]

    asyncio.run(main())


def test_replies_that_come_together() -> None:
    """Are taken in their order; what stands behind one that ends the session is not."""

    async def main() -> None:
        rig = Rig([entry(n) for n in range(1, 5)])
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(4)
        rig.peer.say_together(ok("c2"), ok("c1"), b"garbage", ok("c3"))
        with pytest.raises(LinkBroken):
            await running
        assert list(rig.outcomes) == ["c2", "c1"]

    asyncio.run(main())


@pytest.mark.parametrize(("count", "rests"), [(500, 0), (501, 1)])
def test_replies_gather_while_many_are_in_flight(count: int, rests: int) -> None:
    """One at a time would cost as much as all the rest; of few, each is waited for."""

    async def main() -> None:
        entries = [entry(n) for n in range(1, count + 1)]
        rig = Rig(entries, count=1000, size=1 << 20)
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(count)
        for n in range(1, count + 1):
            rig.peer.say(ok(f"c{n}"))
        await running
        assert len(rig.peer.rests) == rests
        assert len(rig.outcomes) == count

    asyncio.run(main())


def test_it_asks_for_more_when_there_is_room_for_many() -> None:
    """A quarter of the window, and not for each receipt."""

    async def main() -> None:
        rig = Rig([entry(n) for n in range(1, 200)], count=100, size=1 << 20)
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(100)
        for n in range(1, 26):
            assert len(rig.asked) == 1
            rig.peer.say(ok(f"c{n}"))
            await asyncio.sleep(0)
        await rig.peer.wait_for_sent(125)
        assert rig.asked == [(100, 1 << 20), (25, rig.asked[1][1])]
        running.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sizes", "writes"),
    [([10] * 600, [256, 256, 88]), ([80_000] * 3, [1, 1, 1]), ([60_000, 60_000, 19_000], [2, 1])],
    ids=["by count", "large ones", "by size"],
)
def test_what_there_is_leaves_in_few_writes(sizes: list[int], writes: list[int]) -> None:
    """In order, whatever a write takes."""

    async def main() -> Rig:
        frames = [
            json.dumps({"context": f"c{n}", "payload": "x" * size}).encode()
            for n, size in enumerate(sizes, 1)
        ]
        entries = [Entry(n, f"c{n}", frame) for n, frame in enumerate(frames, 1)]
        rig = Rig(entries, count=1000, size=10_000_000)
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(len(sizes))
        rig.session.forget((label, n) for n, label in enumerate(rig.peer.sent, 1))
        await running
        return rig

    rig = asyncio.run(main())
    assert rig.peer.sent == [f"c{n}" for n in range(1, len(sizes) + 1)]
    assert rig.peer.writes == writes


def test_a_message_that_is_in_flight_is_not_sent_again() -> None:
    """A source may give it twice."""

    async def main() -> Rig:
        rig = Rig([entry(1), entry(1), entry(2)])
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(2)
        rig.peer.say(ok("c1"), ok("c2"))
        await running
        return rig

    assert asyncio.run(main()).peer.sent == ["c1", "c2"]


def test_a_context_that_is_used_again_waits_for_its_earlier_receipt() -> None:
    """That message got its outcome by its deadline; what is behind the second waits, too."""

    async def main() -> Rig:
        rig = Rig([entry(1), Entry(2, "c1", b'{"context":"c1"}'), entry(3)])
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(1)
        rig.session.forget([("c1", 1)])
        for _ in range(10):
            await asyncio.sleep(0)
        assert rig.peer.sent == ["c1"]
        rig.peer.say(ok("c1"))
        await rig.peer.wait_for_sent(3)
        rig.peer.say(ok("c1"), ok("c3"))
        await running
        return rig

    rig = asyncio.run(main())
    assert rig.peer.sent == ["c1", "c1", "c3"]
    assert rig.session.counters == Counters(sent=3, receipts=2, unmatched=1)


@pytest.mark.parametrize(
    ("reply", "late"),
    [
        (ok("c1"), [("c1", 1)]),
        (ok("c1", NOWHERE), []),
        (ok("c1", "?"), []),
        (error("c1", 7), []),
    ],
    ids=["stored", "nowhere", "unreadable", "refused"],
)
def test_what_is_stored_after_its_outcome_is_told(
    reply: bytes, late: list[tuple[str, int]]
) -> None:
    """Its deadline passed, so it is a dead letter; a second receipt is told to nobody."""

    async def main() -> list[tuple[str, int]]:
        told: list[tuple[str, int]] = []
        rig = Rig([entry(1), entry(2)], on_late=lambda *given: told.append(given))
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(2)
        rig.session.forget([("c1", 1)])
        rig.peer.say(reply, ok("c1"), ok("c2"))
        await running
        return told

    assert asyncio.run(main()) == late


def test_second_late_and_foreign_receipts_are_counted() -> None:
    """And harm nothing; neither do the control bytes in them."""

    async def main() -> Rig:
        rig = Rig([entry(1), entry(2)])
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(2)
        rig.peer.say(ok("c1"), ok("c1"), ok("nobody\x1b[31m"), error("c1", 7), ok("c2"))
        await running
        return rig

    rig = asyncio.run(main())
    assert rig.session.counters == Counters(sent=2, receipts=2, unmatched=3)
    assert {label: type(each) for label, each in rig.outcomes.items()} == {
        "c1": Receipt,
        "c2": Receipt,
    }


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"garbage", "^Pulsar's reply cannot be read: not a receipt: "),
        (b"[" * 100_000, "^Pulsar's reply cannot be read: not a receipt: "),
        (error(None, 3, "Invalid\x00 json"), r"^send-error:3 without a context: Invalid\? json$"),
        (ok("c1", "@"), "^Pulsar's ok cannot be read: the message id is not base64$"),
        (ok("c1", None), "^Pulsar's ok cannot be read: the message id has no ledger and entry$"),
        (ok("c1", NOWHERE), "^Pulsar answered ok and stored nothing$"),
        (error("c1", 8, "ProducerQueueIsFull\r\n"), "^send-error:8: ProducerQueueIsFull$"),
        (error("c1", 8, "&#" + "9" * 10_000), "^send-error:8: "),
        (LinkBroken("cut"), "^cut$"),
    ],
)
def test_what_breaks_the_link(said: bytes | Exception, words: str) -> None:
    """The session ends, nothing is settled, and another one sends what has no outcome."""

    async def main() -> Rig:
        rig = Rig([entry(1), entry(2)])
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(2)
        rig.peer.say(said)
        with pytest.raises(LinkBroken, match=words) as caught:
            await running
        assert str(caught.value).isprintable()
        return rig

    rig = asyncio.run(main())
    assert rig.outcomes == {}
    assert rig.session.counters.malformed == (1 if "cannot be read: not a receipt" in words else 0)


def test_a_send_that_fails_breaks_the_link() -> None:
    """Though the reader has not noticed."""

    async def main() -> None:
        rig = Rig([entry(1)])
        rig.peer.broken = LinkBroken("the connection broke while sending")
        with pytest.raises(LinkBroken, match="while sending"):
            await rig.run()

    asyncio.run(main())


def test_what_the_source_raises_comes_through() -> None:
    """The owner's lease is lost, say."""

    class FencedError(Exception):
        pass

    async def main() -> None:
        class Fenced:
            async def next(self, count: int, size: int) -> Sequence[Entry]:
                raise FencedError

        rig = Rig([])
        session = Session(
            rig.peer,  # type: ignore[arg-type]
            TOPIC,
            Fenced(),
            lambda *_: None,
            rig.window,
        )
        with pytest.raises(FencedError):
            await asyncio.wait_for(session.run(), 5)

    asyncio.run(main())


def test_a_receipt_that_never_comes() -> None:
    """The connection looks alive, and is given up: the messages are sent again on another."""

    async def main() -> Rig:
        rig = Rig([entry(1)], receipt_timeout=0.05)
        with pytest.raises(LinkBroken, match=r"^no receipt for a message in 0\.05 s$"):
            await rig.run()
        return rig

    assert asyncio.run(main()).outcomes == {}


def test_a_quiet_session_is_no_broken_one() -> None:
    """What had its receipt meanwhile is not missing, however long nothing comes."""

    async def main() -> bool:
        entered = asyncio.Event()
        rounds = 0

        class Ticking(Window):
            @property
            def oldest(self) -> int | None:
                nonlocal rounds
                rounds += 1
                if rounds == 4:
                    entered.set()
                return rounds

        class Nothing:
            async def next(self, count: int, size: int) -> Sequence[Entry]:
                await entered.wait()
                return ()

        session = Session(
            Peer(),  # type: ignore[arg-type]
            TOPIC,
            Nothing(),
            lambda *_: None,
            Ticking(5, 5),
            SessionRules(receipt_timeout=0.01),
        )
        await asyncio.wait_for(session.run(), 5)
        return entered.is_set()

    assert asyncio.run(main())


def test_what_got_its_outcome_elsewhere_is_waited_for_no_more() -> None:
    """Its deadline passed: the session ends without its receipt."""

    async def main() -> Rig:
        rig = Rig([entry(1), entry(2)])
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(2)
        rig.session.forget([("c1", 1), ("c2", 1), ("nobody", 3)])
        rig.peer.say(ok("c2"))
        await running
        return rig

    assert list(asyncio.run(main()).outcomes) == ["c2"]


def test_counters_may_be_shared() -> None:
    """A lane counts over all its sessions."""
    counters = Counters(sent=5)

    async def main() -> None:
        await Rig([entry(1)], answers=True, counters=counters).run()

    asyncio.run(main())
    assert counters == Counters(sent=6, receipts=1)


# What a reply means.


def test_a_stored_message() -> None:
    """With its place in Pulsar."""
    found = judge(Reply("ok", "c1", "CBgQABgCIAU="), entry(1), TOPIC, 0)
    assert found == Receipt(
        context="c1",
        topic=str(TOPIC),
        status="stored",
        message_id="CBgQABgCIAU=",
        ledger_id=24,
        entry_id=0,
        partition=2,
        batch_index=5,
    )


def test_a_message_of_a_list_has_the_lists_context() -> None:
    """Whether it was stored or refused."""
    for reply in (Reply("ok", "list.3", STORED), Reply("send-error:7", "list.3")):
        assert judge(reply, entry(1, place=3), TOPIC, 0).context == "list"


def test_a_non_persistent_topic() -> None:
    """Took it, durably stored it is not; or dropped it, and says ok."""
    taken = judge(Reply("ok", "c1", "CAAQADAA"), entry(1), TRANSIENT, 0)
    assert isinstance(taken, Receipt)
    assert (taken.status, taken.ledger_id) == ("transient", 0)
    dropped = judge(Reply("ok", "c1", NOWHERE), entry(1), TRANSIENT, 0)
    assert isinstance(dropped, Failure)
    assert (dropped.status, dropped.code) == ("refused", "dropped")


@pytest.mark.parametrize(
    ("number", "outcome"), [(5, "unknown"), (6, "unknown"), (7, "refused"), (8, "refused")]
)
def test_a_refusal(number: int, outcome: str) -> None:
    """Up to what an earlier session may have sent, nobody can know."""
    reply = Reply("send-error:7", f"c{number}", None, "not\x00 this &amp; that")
    found = judge(reply, entry(number), TOPIC, 6)
    assert found == Failure(
        context=f"c{number}",
        topic=str(TOPIC),
        status=outcome,  # type: ignore[arg-type]
        reason="not? this & that",
        code="send-error:7",
    )


def test_a_refusal_without_words() -> None:
    """Its code is its reason."""
    found = judge(Reply("send-error:7", "c1"), entry(1), TOPIC, 0)
    assert isinstance(found, Failure)
    assert found.reason == "send-error:7"


@pytest.mark.parametrize("again", [False, True], ids=["the same", "another with its context"])
def test_a_read_that_has_nothing_to_send(again: bool) -> None:
    """Nothing is written, and nobody is told of a send, until a receipt lets the message go."""
    told: list[list[str]] = []
    reads = [[entry(1)], [Entry(2, "c1", b'{"context":"c1"}')] if again else [entry(1)]]

    async def main() -> Rig:
        rig = Rig([], on_send=lambda entries: told.append([each.label for each in entries]))

        async def next_read(count: int, size: int) -> Sequence[Entry]:
            return reads.pop(0) if reads else []

        rig.next = next_read  # type: ignore[method-assign]
        running = asyncio.ensure_future(rig.run())
        await rig.peer.wait_for_sent(1)
        await turn_until(lambda: not reads)
        if again:
            rig.session.forget([("c1", 1)])
        for _ in range(10):
            await asyncio.sleep(0)
        assert rig.peer.writes == [1]
        rig.peer.say(ok("c1"))
        if again:
            await rig.peer.wait_for_sent(2)
            rig.peer.say(ok("c1"))
        await running
        return rig

    rig = asyncio.run(main())
    assert rig.peer.writes == [1] * (1 + again)
    assert told == [["c1"]] * (1 + again)
    assert list(rig.outcomes) == ["c1"]


def test_who_asks_is_told_before_each_write() -> None:
    """So that no receipt comes before it."""
    told: list[tuple[list[str], int]] = []

    async def main() -> None:
        def tell(entries: Sequence[Entry]) -> None:
            told.append(([each.label for each in entries], len(rig.peer.sent)))

        rig = Rig([entry(1), entry(2)], answers=True, on_send=tell)
        await rig.run()

    asyncio.run(main())
    assert told == [(["c1", "c2"], 0)]


class TestPolicies:
    """What the settings make of a refusal."""

    @staticmethod
    def run(policy: Policy, *said: bytes, **given: Any) -> tuple[Rig, Exception | None]:
        """Send two messages, say replies, and return what ended the session."""

        async def main() -> tuple[Rig, Exception | None]:
            rig = Rig([entry(1), entry(2)], policy=lambda failure: policy, **given)
            running = asyncio.ensure_future(rig.run())
            await rig.peer.wait_for_sent(2)
            rig.peer.say(*said)
            try:
                await running
            except (LinkBroken, SequenceMismatch) as error:
                return rig, error
            return rig, None

        return asyncio.run(main())

    @pytest.mark.parametrize("policy", [Policy.DEAD, Policy.DROP])
    def test_it_fails(self, policy: Policy) -> None:
        """The message alone: the session goes on."""
        rig, ended = self.run(policy, error("c1", 7, "bad"), ok("c2"))
        assert ended is None
        assert [each.status for each in rig.outcomes.values()] == ["refused", "stored"]
        assert rig.session.pause is None

    @pytest.mark.parametrize("policy", [Policy.RETRY, Policy.PAUSE])
    def test_it_is_sent_again(self, policy: Policy) -> None:
        """With all that is behind it; a pause keeps the failure that asks for it."""
        rig, ended = self.run(policy, error("c1", 7, "bad"), ok("c2"))
        assert str(ended) == "send-error:7: bad"
        assert rig.outcomes == {}
        paused = rig.session.pause
        assert (paused is not None) is (policy is Policy.PAUSE)
        assert paused is None or (paused.context, paused.code) == ("c1", "send-error:7")

    def test_the_first_of_several_pauses(self) -> None:
        """Where what is in flight is waited for, another one may be refused."""
        said = error("c1", 7, "the first"), error("c2", 8, "not now")
        rig, ended = self.run(Policy.PAUSE, *said, numbered=Numbered(0))
        assert isinstance(ended, SequenceMismatch)
        assert rig.session.pause is not None
        assert rig.session.pause.reason == "the first"
        said = error("c1", 7, "the first"), error("c2", 7, "the second")
        rig, _ = self.run(Policy.PAUSE, *said, numbered=Numbered(0))
        assert rig.session.pause is not None
        assert rig.session.pause.reason == "the first"
        assert rig.outcomes == {}


def test_what_may_not_be_sent_waits() -> None:
    """A process that was paused sends nothing of what it had read, until its lease is sure."""
    ours = False

    async def main() -> Rig:
        nonlocal ours
        rig = Rig([entry(1), entry(2)], answers=True, may_send=lambda: ours)
        running = asyncio.ensure_future(rig.run())
        await turn_until(lambda: bool(rig.asked))
        for _ in range(10):
            await asyncio.sleep(0)
        assert rig.peer.sent == []
        ours = True
        rig.session.recheck()
        await running
        return rig

    assert asyncio.run(main()).peer.sent == ["c1", "c2"]


async def turn_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until what is at hand has been dealt with."""
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("nothing came of it")


class TestNumbered:
    """Where Pulsar is to know the lane's numbers again."""

    @staticmethod
    def run(
        *replies: bytes | Exception, tried: int = 0, **given: Any
    ) -> tuple[Rig, SequenceMismatch]:
        """Send four messages, say the replies, and return what ended the session."""
        given.setdefault("entries", [entry(number) for number in range(1, 5)])

        async def main() -> tuple[Rig, SequenceMismatch]:
            rig = Rig(given.pop("entries"), numbered=Numbered(tried), **given)
            running = asyncio.ensure_future(rig.run())
            await rig.peer.wait_for_sent(4)
            rig.peer.say(*replies)
            with pytest.raises(SequenceMismatch) as caught:
                await running
            return rig, caught.value

        return asyncio.run(main())

    def test_what_was_stored_before(self) -> None:
        """Is deduplicated; where in the topic it is, nobody says."""
        numbered = Numbered(tried=7, partition=2)
        outcome = judge(Reply("ok", "c", NOWHERE), entry(7), TOPIC, 0, numbered)
        assert outcome == Receipt(
            context="c7", topic=str(TOPIC), status="deduplicated", partition=2
        )
        with pytest.raises(FalseOk):
            judge(Reply("ok", "c", NOWHERE), entry(8), TOPIC, 0, numbered)
        stored = judge(Reply("ok", "c", STORED), entry(8), TOPIC, 0, numbered)
        assert isinstance(stored, Receipt)
        assert (stored.status, stored.partition) == ("stored", 2)

    def test_a_false_ok_leaves_its_message_open(self) -> None:
        """It goes again, in another generation."""
        rig, ended = self.run(*(ok(f"c{number}", NOWHERE) for number in range(1, 5)))
        assert not rig.outcomes
        assert ended.regenerate

    def test_what_pulsar_itself_sends_again(self) -> None:
        """Its client in the WebSocket service does so when the topic is unloaded. The numbers were
        free, because a lower one was stored on this connection; so the messages are there."""
        bad = error("c4", 7, "bad")
        rig, ended = self.run(ok("c1"), ok("c2", NOWHERE), ok("c3", NOWHERE), bad)
        found = {context: rig.outcomes[context].status for context in ("c1", "c2", "c3")}
        assert found == {"c1": "stored", "c2": "deduplicated", "c3": "deduplicated"}
        assert not ended.regenerate

    def test_after_an_error_nothing_more_is_sent(self) -> None:
        """What is in flight is waited for; then the connection is made anew."""
        rig, ended = self.run(
            error("c2", 7, "bad"),
            ok("c1"),
            ok("c3"),
            ok("c4"),
            entries=[entry(number) for number in range(1, 9)],
            count=4,
        )
        assert rig.peer.sent == ["c1", "c2", "c3", "c4"]
        assert set(rig.outcomes) == {"c1", "c2", "c3", "c4"}
        assert not ended.regenerate

    def test_what_came_with_an_error_is_not_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The source was asked before."""
        monkeypatch.setattr(session_module, "_WRITE_COUNT", 2)

        async def main() -> list[str]:
            rig = Rig([entry(number) for number in range(1, 9)], numbered=Numbered(0), count=100)
            gate = asyncio.Event()
            send = rig.peer.send

            async def slowly(*frames: bytes) -> None:
                await send(*frames)
                await gate.wait()

            rig.peer.send = slowly  # type: ignore[method-assign]
            running = asyncio.ensure_future(rig.run())
            await rig.peer.wait_for_sent(2)
            rig.peer.say(error("c1", 7, "bad"))
            await turn_until(lambda: "c1" in rig.outcomes)
            gate.set()
            rig.peer.say(ok("c2"))
            with pytest.raises(SequenceMismatch):
                await running
            return rig.peer.sent

        assert asyncio.run(main()) == ["c1", "c2"]

    def test_a_transient_error_with_something_stored_behind_it(self) -> None:
        """Its number may be used."""
        rig, ended = self.run(error("c2", 8, "not now"), ok("c1"), ok("c3"), ok("c4"))
        assert set(rig.outcomes) == {"c1", "c3", "c4"}
        assert ended.regenerate
        assert "not now" in str(ended)

    def test_a_transient_error_for_all(self) -> None:
        """No number is used: the name is kept."""
        rig, ended = self.run(ok("c1"), *(error(f"c{number}", 8, "no") for number in (2, 3, 4)))
        assert set(rig.outcomes) == {"c1"}
        assert not ended.regenerate

    def test_a_link_that_breaks_after_an_error(self) -> None:
        """Nobody knows what is behind it; with a producer that is over, nothing is."""
        _, ended = self.run(error("c2", 8, "not now"), LinkBroken("cut"))
        assert ended.regenerate
        over = "PulsarClientException$AlreadyClosedException: closed"
        _, ended = self.run(error("c2", 8, over), LinkBroken("cut"))
        assert not ended.regenerate

    def test_what_is_deduplicated_after_an_error_is_not_believed(self) -> None:
        """With the failed one's number it was taken for that."""
        replies = error("c1", 8, "no"), ok("c2", NOWHERE), ok("c3", NOWHERE), ok("c4", NOWHERE)
        rig, ended = self.run(*replies, tried=4)
        assert rig.outcomes == {}
        assert not ended.regenerate

    @pytest.mark.parametrize("said", [b"{", error(None, 3, "bad json")])
    def test_a_reply_that_names_no_message(self, said: bytes) -> None:
        """It may have been an error of any."""
        _, ended = self.run(ok("c1"), said)
        assert ended.regenerate

    def test_a_session_that_is_through_tells_it_as_well(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the source has no more, and the last reply was an error."""

        async def never(session: Session) -> None:
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(Session, "_align", never)
        replies = ok("c1"), ok("c2"), ok("c4"), error("c3", 8, "not now")
        _, ended = self.run(*replies)
        assert ended.regenerate

    def test_a_receipt_that_nobody_waits_for_any_more(self) -> None:
        """Its message may have the number of one that failed."""

        async def main() -> SequenceMismatch:
            rig = Rig([entry(1), entry(2)], numbered=Numbered(0))
            running = asyncio.ensure_future(rig.run())
            await rig.peer.wait_for_sent(2)
            assert not rig.session.misaligned
            rig.peer.say(error("c1", 8, "not now"))
            await turn_until(lambda: rig.session.misaligned)
            rig.session.forget([("c2", 2)])
            with pytest.raises(SequenceMismatch) as caught:
                await running
            return caught.value

        assert asyncio.run(main()).regenerate

    def test_a_partition_without_a_lane(self) -> None:
        """The topic has more than one sequence of numbers."""
        inside = MessageId(12, 3, partition=1)

        async def main() -> Rig:
            rig = Rig([entry(1)], numbered=Numbered(0))
            running = asyncio.ensure_future(rig.run())
            await rig.peer.wait_for_sent(1)
            rig.peer.say(ok("c1", inside.encode()))
            with pytest.raises(DeduplicationUnavailable, match="has partitions"):
                await running
            return rig

        rig = asyncio.run(main())
        assert [each.partition for each in rig.outcomes.values()] == [1]  # type: ignore[union-attr]
