"""The fast ways of the effects beside the general ones, on every shape of message and canvas.

In general each result goes through Celery's tracer and is written by itself, and each callback is
published by itself. What can be seen of the effects from outside must be the same without that.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis
from celery import Celery, chain, chord, group, signals
from celery.app.trace import logger as trace_logger
from kombu.exceptions import KombuError

from celery_stargate import Failure, ProduceTask, Receipt, Stargate
from celery_stargate.effects.callback_stage import CallbackStage
from celery_stargate.effects.callbacks import trigger_together
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.run import Effects
from celery_stargate.effects.tracer import OutcomeTracer, Traced, run
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import PRODUCE, Decision, FollowUp, Remaining, ResultRow
from tests.integration.conftest import MakeApp
from tests.servers.fixtures import ServerAddress
from tests.unit.helpers import TOPIC, NotedLanes

Call = Callable[[Celery, ProduceTask], object]
Outcomes = Callable[[str], Sequence[Receipt | Failure]]

EFFECTS = Effects.__module__
CALLBACKS = CallbackStage.__module__
TRACER = OutcomeTracer.__module__

SIGNALS = (
    "task_prerun",
    "task_postrun",
    "task_success",
    "task_failure",
    "task_revoked",
    "task_internal_error",
    "before_task_publish",
    "after_task_publish",
)


def stored(context: str) -> list[Receipt]:
    """Return a receipt as Pulsar's would be."""
    return [Receipt(context=context, topic=TOPIC, message_id="CAwQADAA", ledger_id=1, entry_id=2)]


def refused(context: str) -> list[Failure]:
    """Return a failure."""
    return [Failure(context=context, topic=TOPIC, reason="no", code="http-404")]


def revoked(context: str) -> list[Failure]:
    """Return the failure of a task that was revoked."""
    return [Failure(context=context, topic=TOPIC, reason="revoked", code="revoked")]


def overdue(context: str) -> list[Failure]:
    """Return the failure that the deadline brings."""
    return [Failure(context=context, status="unknown", reason="late", code="deadline")]


def half(context: str) -> list[Receipt | Failure]:
    """Return the outcomes of a list of two, of which one failed."""
    return [*stored(context), *refused(context)]


def valued(context: str) -> list[Receipt]:
    """Return a receipt with a value of somebody's own."""
    return [Receipt(context=context, value={"a": ["b" * 2000]})]


def call(*args: Any, **options: Any) -> Call:
    """Call the task with a message, or what is given, and the options of ``apply_async``.

    With a callback, twice.
    """
    own = {name: options.pop(name) for name in ("on_ack", "on_error") if name in options}

    def work(app: Celery, task: ProduceTask) -> None:
        made = {name: give(app) for name, give in own.items()}
        links = {
            name: options[name](app) if callable(options.get(name)) else options[name]
            for name in options
        }
        # One callback alone goes the general way.
        for context in ("one", "two") if own else ("one",):
            task.apply_async(args or ("message",), made, task_id=context, **links)

    return work


def ship(*args: Any, **options: Any) -> Callable[[Celery], Any]:
    """Make a signature of a task that is registered nowhere; its id is known."""
    immutable = options.pop("immutable", False)
    kwargs = options.pop("kwargs", {})
    return lambda app: app.signature(
        "shop.ship", args=args, kwargs=kwargs, options=options, immutable=immutable
    )


def linked(*args: Any) -> Callable[[Celery], Any]:
    """Make a signature with an id: Celery would make one up for a link."""
    return ship(*args, task_id="linked")


def a_group(app: Celery) -> Any:
    return group([ship("a")(app), ship("b")(app)])


def a_chain(app: Celery) -> Any:
    return chain(ship("a")(app), ship("b")(app))


def a_chord(app: Celery) -> Any:
    return chord([ship("a")(app), ship("b")(app)], ship("body")(app))


def two_in_a_group(app: Celery, task: ProduceTask) -> None:
    """Call the task in a group."""
    group([task.s("a").set(task_id="a"), task.s("b").set(task_id="b")]).apply_async(task_id="g")


def grouped_with_a_parent(app: Celery, task: ProduceTask) -> None:
    """Call the task in a group, as from within another task."""
    for name in ("a", "b"):
        task.apply_async((name,), task_id=name, group_id="g", parent_id="p", root_id="r")


def two_in_a_chord(app: Celery, task: ProduceTask) -> None:
    """Call the task in a chord."""
    header = [task.s("a").set(task_id="a"), task.s("b").set(task_id="b")]
    chord(header, ship("body", task_id="body")(app)).apply_async()


def ignored_in_a_chord(app: Celery, task: ProduceTask) -> None:
    """Call the task in a chord whose header's results are not stored."""
    ignored: dict[str, Any] = {"ignore_result": True}
    header = [task.s(name).set(task_id=name, **ignored) for name in ("a", "b")]
    chord(header, ship("body", task_id="body")(app)).apply_async()


def linked_in_a_chord(app: Celery, task: ProduceTask) -> None:
    """Call the task in a chord, with a link on each of its header."""
    header = [
        task.s(name).set(task_id=name, link=ship(task_id=f"{name}-linked")(app))
        for name in ("a", "b")
    ]
    chord(header, ship("body", task_id="body")(app)).apply_async()


def chord_in_a_chord(app: Celery, task: ProduceTask) -> None:
    """Call the task in a chord whose body is a group, in another one's header."""
    inner = chord(
        [task.s("a").set(task_id="a"), task.s("b").set(task_id="b")],
        ship("inner", task_id="inner")(app),
    )
    chord([task.s("c").set(task_id="c"), inner], ship("body", task_id="body")(app)).apply_async()


def first_of_a_chain(app: Celery, task: ProduceTask) -> None:
    """Call the task, and two more after it."""
    chain(
        task.s("a").set(task_id="a"), ship(task_id="b")(app), ship(task_id="c")(app)
    ).apply_async()


def two_chains(app: Celery, task: ProduceTask) -> None:
    """Call the task twice, each with tasks after it."""
    for name in ("a", "b"):
        steps = [ship(task_id=f"{name}{number}")(app) for number in range(2)]
        chain(task.s(name).set(task_id=name), *steps).apply_async()


def two_ways_on(app: Celery, task: ProduceTask) -> None:
    """Call it with a link and a chain at once, and with a group after it."""
    first = task.s("a").set(task_id="a", link=ship(task_id="linked")(app))
    chain(first, ship("x", task_id="after")(app)).apply_async()
    then = group([ship(task_id="in-a")(app), ship(task_id="in-b")(app)])
    chain(task.s("c").set(task_id="c"), then).apply_async()
    ignored: dict[str, Any] = {"ignore_result": True}
    chain(task.s("d").set(task_id="d", **ignored), ship(task_id="e")(app)).apply_async()


def mixture(app: Celery, task: ProduceTask) -> None:
    """Call it in several ways, for one batch."""
    task.apply_async(("plain",), task_id="plain")
    task.apply_async(("list",), task_id="ignored", ignore_result=True)
    task.apply_async(("linked",), task_id="with-link", link=linked()(app))
    for number in range(3):
        task.apply_async(("x",), {"on_ack": ship(number)(app)}, task_id=f"called-{number}")
    task.apply_async(("x",), {"on_ack": a_group(app)}, task_id="group")


class Noisy(ProduceTask):
    """A task with work of its own after a success."""

    abstract = True

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Be heard."""
        signals.task_rejected.send(sender=self, task_id=task_id)


@dataclass(frozen=True)
class Case:
    """A call, its outcome, and the app they are in."""

    call: Call = field(default_factory=call)
    outcomes: Outcomes = stored
    conf: dict[str, Any] = field(default_factory=dict)
    #: Of the task.
    options: dict[str, Any] = field(default_factory=dict)
    base: type = ProduceTask
    #: Whether somebody hears of each task, and reads the log.
    watched: bool = False
    #: How many results go past Celery's tracer.
    plain: int = 1
    #: How many callbacks go together.
    together: int = 0
    #: Of how many results what goes on from them goes together.
    onward: int = 0


TWO = ("a", "b")

CASES = {
    "plain": Case(),
    "plain, watched": Case(watched=True, plain=0),
    "a list": Case(call([*TWO]), lambda context: stored(context) * 2),
    "a value": Case(outcomes=valued),
    "ignored by the call": Case(call(ignore_result=True)),
    "ignored by the call, watched": Case(call(ignore_result=True), watched=True, plain=0),
    "ignored by the task": Case(options={"ignore_result": True}),
    "ignored by the settings": Case(conf={"task_ignore_result": True}),
    "ignored by the task, not by the call": Case(
        call(ignore_result=False), options={"ignore_result": True}, plain=0
    ),
    "a failure": Case(outcomes=refused, plain=0),
    "a failure, watched": Case(outcomes=refused, watched=True, plain=0),
    "a failure, ignored": Case(
        outcomes=refused, options={"ignore_result": True, "max_retries": 0}, plain=0
    ),
    "a failure, ignored but stored": Case(
        outcomes=refused,
        options={"ignore_result": True, "store_errors_even_if_ignored": True},
        plain=0,
    ),
    "a list with a failure": Case(call([*TWO]), half, plain=0),
    "the deadline": Case(outcomes=overdue, plain=0),
    "revoked": Case(outcomes=revoked, plain=0),
    "revoked, ignored, watched": Case(call(ignore_result=True), revoked, watched=True, plain=0),
    "extended": Case(conf={"result_extended": True}, plain=0),
    "track_started": Case(options={"track_started": True}, plain=0),
    "priority": Case(call(priority=3)),
    "shadow": Case(call(shadow="another"), watched=True, plain=0),
    "headers": Case(call(headers={"tenant": "t"})),
    "expires": Case(call(expires=100)),
    "a parent": Case(call(parent_id="p", root_id="r")),
    "a parent that JSON escapes": Case(call(parent_id='p"é', root_id="r")),
    "another name": Case(call(shadow="another")),
    "a group that a task calls": Case(grouped_with_a_parent, plain=2),
    "results as pickles": Case(
        conf={"result_serializer": "pickle", "result_accept_content": ["pickle"]}
    ),
    "results that stay": Case(conf={"result_expires": None}),
    "results for 0 s": Case(conf={"result_expires": 0}),
    "results for 60 s": Case(conf={"result_expires": 60}),
    "results for an hour": Case(conf={"result_expires": timedelta(hours=1)}),
    "compressed results": Case(conf={"result_compression": "gzip"}),
    "a task of one's own": Case(base=Noisy, plain=0),
    "a link": Case(call(link=linked("x")), plain=0),
    "a link and a priority": Case(
        call(link=linked("x"), priority=3), conf={"task_inherit_parent_priority": True}, plain=0
    ),
    "a link_error": Case(call(link_error=linked("x")), refused, plain=0),
    "a link_error, not called for": Case(call(link_error=linked("x"))),
    "a chain": Case(first_of_a_chain, plain=0),
    "a chain that fails": Case(first_of_a_chain, refused, plain=0),
    "two chains": Case(two_chains, plain=0, onward=2),
    "two chains, watched": Case(two_chains, watched=True, plain=0),
    "two chains with values": Case(two_chains, valued, plain=0, onward=2),
    "two chains, routed": Case(
        two_chains, conf={"task_routes": {"shop.ship": "elsewhere"}}, plain=0, onward=2
    ),
    "two chains that fail": Case(two_chains, refused, plain=0),
    "several ways on": Case(two_ways_on, plain=0, onward=2),
    "several ways on, watched": Case(two_ways_on, watched=True, plain=0),
    "a group": Case(two_in_a_group, plain=2),
    "a chord": Case(two_in_a_chord, plain=2),
    "a chord, watched": Case(two_in_a_chord, watched=True, plain=0),
    "a chord with values": Case(two_in_a_chord, valued, plain=2),
    "a chord of ignored results": Case(ignored_in_a_chord, plain=2),
    "a chord with links": Case(linked_in_a_chord, plain=0, onward=2),
    "a chord in a chord": Case(chord_in_a_chord, plain=3),
    "a chord that fails": Case(two_in_a_chord, refused, plain=0),
    "on_ack": Case(call(on_ack=ship()), plain=2, together=2),
    "on_ack, watched": Case(call(on_ack=ship()), watched=True, plain=0, together=2),
    "on_ack, not called for": Case(call(on_ack=ship()), refused, plain=0),
    "on_ack for a list": Case(
        call([*TWO], on_ack=ship()), lambda context: stored(context) * 2, plain=2, together=2
    ),
    "on_ack for a value": Case(call(on_ack=ship()), valued, plain=2, together=2),
    "on_ack with arguments": Case(call(on_ack=ship("x", kwargs={"y": 1})), plain=2, together=2),
    "on_ack, immutable": Case(call(on_ack=ship("x", immutable=True)), plain=2, together=2),
    "on_ack, immutable, bare": Case(call(on_ack=ship(immutable=True)), plain=2, together=2),
    "on_ack with options": Case(
        call(on_ack=ship(queue="other", priority=4, task_id="mine", argsrepr="(…)")),
        plain=2,
        together=2,
    ),
    "on_ack for later": Case(
        call(on_ack=ship(eta="2100-01-01T00:00:00+00:00")), plain=2, together=2
    ),
    "on_ack with a link": Case(call(on_ack=ship(link=[{"task": "x"}])), plain=2, together=2),
    "on_error": Case(call(on_error=ship("x")), refused, plain=0, together=2),
    "on_ack, a group": Case(call(on_ack=a_group), plain=2),
    "on_ack, a chain": Case(call(on_ack=a_chain), plain=2),
    "on_ack, a chord": Case(call(on_ack=a_chord), plain=2),
    "on_ack, a produce task": Case(
        call(on_ack=lambda app: app.tasks["celery_stargate.produce"].si("next")),
        plain=2,
        together=2,
    ),
    "several": Case(mixture, plain=6, together=3),
    "several, watched": Case(mixture, watched=True, plain=0, together=3),
}


#: Of how many of a case's contexts all is done in the step that settles; of the others of none.
AT_ONCE = {
    **dict.fromkeys(
        [
            *("plain", "a value", "a link_error, not called for", "priority", "headers", "expires"),
            *("ignored by the call", "ignored by the task", "ignored by the settings"),
            *("results that stay", "results for 0 s", "results for 60 s", "results for an hour"),
            *("a parent", "a parent that JSON escapes", "another name"),
        ],
        1,
    ),
    "several": 2,
    "a group": 2,
    "a group that a task calls": 2,
}


def entry_of(settled: Settled, number: int) -> Entry:
    """Return a context's message as its lane's log has it."""
    record = settled.record
    code = record.follow_up_code if len(settled.outcomes) == 1 else FollowUp.MORE.value
    place = -1 if len(settled.outcomes) == 1 else 0
    return Entry(number, record.context, b"", place, FollowUp(code[0]), code[1:] or PRODUCE)


class Outbox(NotedLanes):
    """Outbox that take notes, and have nothing to close."""

    def close(self) -> None:
        """Do nothing."""


class World:
    """An app on the real Redis, with what a call recorded; it can be put back to that moment."""

    def __init__(self, app: Celery, client: redis.Redis, prefix: str) -> None:
        self.app = app
        self.lanes = Outbox()
        Stargate.of(app).runtime.__dict__["outbox"] = self.lanes
        self._client = client
        self._prefix = prefix
        self._saved: dict[bytes, tuple[Any, Any]] = {}

    def _keys(self) -> list[bytes]:
        return sorted(self._client.scan_iter(f"{self._prefix}*", count=1000))

    def save(self) -> list[Record]:
        """Remember what is in Redis now; return what the calls recorded."""
        self._saved = {
            key: (self._client.dump(key), max(0, int(str(self._client.pttl(key)))))
            for key in self._keys()
        }
        return [put.record for put in self.lanes.puts]

    def restore(self) -> None:
        """Be as at that moment."""
        for key in self._keys():
            self._client.delete(key)
        for key, (value, left) in self._saved.items():
            self._client.restore(key, left, value)
        self.lanes.puts.clear()

    def contents(self) -> dict[str, Any]:
        """Return what is in Redis, readable, without what differs from run to run."""
        found: dict[str, Any] = {}
        for key in self._keys():
            if b"_kombu.binding" in key or key.endswith(b".c"):
                # A connection declares its queues once, whichever run it comes to first; a chord
                # that is complete is claimed by a number at random.
                continue
            kind = self._client.type(key)
            value: Any
            if kind == b"string":
                value = self._readable(self._client.get(key))
            elif kind == b"list":
                messages = [_message(each) for each in self._client.lrange(key, 0, -1)]
                value = sorted(messages, key=lambda message: str(message["headers"]["id"]))
            elif kind == b"zset":
                value = self._client.zrange(key, 0, -1, withscores=True)
            else:
                value = sorted(self._client.smembers(key))
            # To the minute: the two runs are seconds apart.
            found[key.decode()] = (value, round(self._client.ttl(key) / 60))
        return found

    def heard(self, pubsub: Any) -> list[Any]:
        """Return what was published on the channels of results."""
        found = []
        while (message := pubsub.get_message(timeout=0.05)) is not None:
            if message["type"] == "pmessage":
                found.append((message["channel"], self._readable(message["data"])))
        return sorted(found, key=lambda each: str(each[0]))

    def _readable(self, value: Any) -> Any:
        backend: Any = self.app.backend
        try:
            meta = backend.decode(value)
        except KombuError:
            return value
        if isinstance(meta, dict) and "date_done" in meta:
            meta["date_done"] = meta["date_done"] is not None
        return meta


def _message(raw: bytes | str) -> Any:
    message = json.loads(raw)
    message["properties"].pop("delivery_tag")
    # Celery puts errbacks into a group that it makes up.
    message["headers"]["group"] = message["headers"]["group"] is not None
    return message


@contextmanager
def watching(active: bool, level: int = logging.INFO) -> Iterator[list[Any]]:
    """Hear all signals, and have Celery log at a level; what was heard."""
    found: list[Any] = []

    def note(name: str) -> Callable[..., None]:
        def receive(sender: Any = None, **given: Any) -> None:
            context = given.get("task_id") or (given.get("headers") or {}).get("id")
            request = getattr(sender, "request", None)
            found.append((name, str(sender), context, getattr(request, "id", None)))
            found.append([str(given.get(each)) for each in ("retval", "state", "result")])

        return receive

    receivers = {name: note(name) for name in (SIGNALS if active else ("task_rejected",))}
    before = trace_logger.level
    trace_logger.setLevel(level)
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, weak=False)
    try:
        yield found
    finally:
        trace_logger.setLevel(before)
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)


def general(patch: pytest.MonkeyPatch) -> None:
    """Leave only the general ways."""
    patch.setattr(ResultRows, "decide", lambda *_, **__: Remaining.FULL)
    patch.setattr(f"{TRACER}.may_batch", lambda *_: False)
    patch.setattr(f"{CALLBACKS}.trigger_together", lambda *_, **__: set())
    patch.setattr(f"{EFFECTS}.may_publish_together", lambda *_: False)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str, Any]]:
    """Return what was logged, and what handlers find beside the text, without the time it took."""
    found = [
        (
            record.name,
            record.levelno,
            re.sub(r"in [\d.e-]+s", "in …s", record.getMessage()),
            {**getattr(record, "data", {}), "runtime": None},
        )
        for record in caplog.records
        if record.name.startswith(("celery.app.trace", "celery_stargate"))
    ]
    caplog.clear()
    return found


def undated(record: Record) -> Record:
    """Return a record without the time when it was recorded."""
    request = re.sub(r', "stargate_recorded_at": [\d.]+', "", record.request or "")
    return msgspec.structs.replace(record, request=request)


@pytest.mark.parametrize("name", CASES)
def test_the_fast_ways_do_what_the_general_ones_do(
    name: str,
    make_app: MakeApp,
    prefix: str,
    redis_server: ServerAddress,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In Redis, on its channels, in the log, for each signal's receiver, and for who waits.

    The fast ways: past Celery's tracer, callbacks together, and results in the step that settles.
    """
    case = CASES[name]
    app = make_app("ws://pulsar.invalid:8080", conf=case.conf)
    make: Any = app.task(name="shop.own", bind=True, base=case.base, shared=False, **case.options)
    task = make(run)
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as pubsub:
        world = World(app, client, prefix)
        case.call(app, task)
        records = world.save()
        assert records
        contexts = [Settled(each, tuple(case.outcomes(each.context))) for each in records]

        def settle_at_once(effects: Effects) -> list[Settled]:
            """Do as the settler with what can be done at once; return the rest."""
            given = [
                (entry_of(each, number), each.outcomes[0]) for number, each in enumerate(contexts)
            ]
            found = {
                entry.number: contexts[entry.number].record
                for entry in effects.needs_records(given)
            }
            ways = effects.at_once(given, found)
            done = []
            for (entry, _), way in zip(given, ways, strict=True):
                if isinstance(way, ResultRow):
                    client.set(way.key, way.value, ex=way.expires or None)
                    client.publish(way.key, way.value)
                if way is not Remaining.FULL and entry.number in found:
                    done.append(contexts[entry.number])
            if effects.tells:
                effects.tell(done)
            return [each for each, way in zip(contexts, ways, strict=True) if way is Remaining.FULL]

        def observe(*, at_once: bool = False, level: int = logging.INFO) -> dict[str, Any]:
            world.restore()
            caplog.clear()
            pubsub.psubscribe(f"*{prefix}*")
            pubsub.get_message(timeout=5)
            told: list[Any] = []
            effects = Effects(
                *(app, None, "host", told.append),
                done_matters=lambda: level == logging.INFO,
                beside_lanes=at_once,
            )
            with watching(case.watched, level) as heard:
                left = settle_at_once(effects)
                ways["at once"] = len(contexts) - len(left)
                effects.run(left)
            found = {
                "redis": world.contents(),
                "channels": world.heard(pubsub),
                "signals": sorted(map(str, heard)),
                "log": sorted(logged(caplog), key=str),
                "told": sorted(told, key=lambda each: str(each.record.context)),
                "put": [(put.lane, undated(put.record), put.messages) for put in world.lanes.puts],
            }
            pubsub.punsubscribe()
            return found

        ways = {"plain": 0, "together": 0, "onward": 0, "at once": 0}
        decide = ResultRows.decide

        def count_plain(self: ResultRows, *given: Any, **options: Any) -> Decision:
            found = decide(self, *given, **options)
            ways["plain"] += found is not Remaining.FULL
            return found

        def count_together(*given: Any, **options: Any) -> set[str]:
            found = trigger_together(*given, **options)
            ways["together"] += len(found)
            return found

        trace = OutcomeTracer.trace

        def count_onward(self: OutcomeTracer, *given: Any) -> Traced:
            traced = trace(self, *given)
            ways["onward"] += traced.batched and given[-1] is not None
            return traced

        with monkeypatch.context() as patch:
            patch.setattr(ResultRows, "decide", count_plain)
            patch.setattr(OutcomeTracer, "trace", count_onward)
            patch.setattr(f"{CALLBACKS}.trigger_together", count_together)
            fast = observe()
            assert ways.pop("at once") == 0
        with monkeypatch.context() as patch:
            general(patch)
            slow = observe()
        fast_ways = dict(ways)
        fastest = observe(at_once=True)
        at_once = ways["at once"]
        unheard = observe(at_once=True, level=logging.WARNING)
    assert [each.record.context for each in fast["told"]] == sorted(
        each.context for each in records
    )
    for what in slow:
        assert fast[what] == slow[what], what
        assert fastest[what] == slow[what], what
    for what in ("redis", "channels", "signals", "put"):
        assert unheard[what] == slow[what], what
    expected = {"plain": case.plain, "together": case.together, "onward": case.onward}
    assert fast_ways == {**expected, "at once": 0}
    assert ways["at once"] == at_once == AT_ONCE.get(name, 0)
