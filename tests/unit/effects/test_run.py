"""Effects, on a broker and a result backend in memory: results, callbacks, those who wait."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from celery import Celery, chain, signals
from celery.exceptions import TaskRevokedError
from kombu.exceptions import OperationalError
from kombu.utils import json
from redis.exceptions import ResponseError

from celery_stargate import ProduceError, ProduceTimeout, Stargate, StoreUnavailable
from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.run import Effects, callback_id
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.effects.tracer import OutcomeTracer
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import FollowUp, Remaining, ResultRow
from celery_stargate.model.outcome import Outcome, Receipt
from celery_stargate.model.outcomes import CallOutcomes
from tests.unit.helpers import TOPIC, NotedLanes, failure, make_app, receipt, sent_by_broker


@pytest.fixture
def app() -> Celery:
    """An app; its produce task is registered as in any app."""
    return make_app()


def one(context: str | None = None, *outcomes: Outcome, **fields: Any) -> Settled:
    """Return a settled context of the produce task."""
    context = context or uuid.uuid4().hex
    given = {"id": context, **fields.pop("request", {})}
    record = Record(
        context, request=json.dumps(given), **{"task": "celery_stargate.produce", **fields}
    )
    return Settled(record, outcomes or (receipt(context),))


def test_a_result_is_stored(app: Celery) -> None:
    """The receipt as a dict, by Celery's own tracer."""
    settled = one()
    assert Effects(app, None).run([settled]) == [settled.record.context]
    assert app.AsyncResult(settled.record.context).get(timeout=1) == settled.result


def test_a_list_of_receipts_is_stored(app: Celery) -> None:
    """In order."""
    settled = one(None, receipt("a"), receipt("b", entry_id=1), is_list=True)
    Effects(app, None).run([settled])
    found = app.AsyncResult(settled.record.context).get(timeout=1)
    assert found == [receipt("a").to_dict(), receipt("b", entry_id=1).to_dict()]


@pytest.mark.parametrize(
    ("code", "kind"), [("http-404", ProduceError), ("deadline", ProduceTimeout)]
)
def test_a_failure_is_raised(app: Celery, code: str, kind: type[Exception]) -> None:
    """With its fields."""
    settled = one(None, failure(code=code))
    Effects(app, None).run([settled])
    with pytest.raises(kind) as caught:
        app.AsyncResult(settled.record.context).get(timeout=1)
    assert type(caught.value) is kind
    assert caught.value.failure["code"] == code  # type: ignore[attr-defined]


def test_a_revoked_message_is_a_revoked_task(app: Celery) -> None:
    """As for any task that was revoked before it began."""
    settled = one(None, failure(code="revoked", reason="revoked"))
    Effects(app, None).run([settled])
    with pytest.raises(TaskRevokedError):
        app.AsyncResult(settled.record.context).get(timeout=1)


def test_celerys_signals(app: Celery) -> None:
    """Are sent as for any task."""
    seen: list[str] = []

    def note(name: str) -> Any:
        def receiver(**_: Any) -> None:
            seen.append(name)

        return receiver

    names = ("task_prerun", "task_success", "task_failure", "task_postrun")
    receivers = {name: note(name) for name in names}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, weak=False)
    try:
        Effects(app, None).run([one(), one(None, failure())])
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)
    assert seen == [names[0], names[1], names[3], names[0], names[2], names[3]]


def test_a_link_goes_on_from_the_receipt(app: Celery) -> None:
    """With the receipt as its first argument."""
    link = dict(app.signature("shop.ship", args=(1,)))
    settled = one(request={"callbacks": [link]})
    Effects(app, None).run([settled])
    assert sent_by_broker(app)[0] == [settled.result, 1]


@pytest.mark.parametrize("failed", [False, True])
def test_callbacks_are_published(app: Celery, *, failed: bool) -> None:
    """The one that the outcome calls for, with the outcome first, under an id that stays."""
    callbacks = {
        option: freeze_callback(option, app.signature("shop.ship", args=(option,)), app)
        for option in ("on_ack", "on_error")
    }
    sent: list[str] = []
    signals.before_task_publish.connect(
        lambda headers, **_: sent.append(headers["id"]), weak=False, dispatch_uid="test"
    )
    settled = one("c-1", failure("c-1") if failed else receipt("c-1"), task=None, **callbacks)
    try:
        for _ in range(2):
            Effects(app, None).run([settled])
    finally:
        signals.before_task_publish.disconnect(dispatch_uid="test")
    option = "on_error" if failed else "on_ack"
    expected = [settled.outcomes[0].to_dict(), option]
    assert [sent_by_broker(app)[0] for _ in range(2)] == [expected, expected]
    assert sent_by_broker(app) is None
    assert sent == [callback_id("c-1", "", option)] * 2


def test_callback_ids() -> None:
    """Differ by context and by option, and stay for ever: other processes count on them."""
    ids = {
        callback_id(context, "", option) for context in "ab" for option in ("on_ack", "on_error")
    }
    assert len(ids) == 4
    assert callback_id("c", "", "on_ack") == callback_id("c", "", "on_ack")
    assert uuid.UUID(callback_id("c", "", "on_ack")).version == 5


def test_a_canvas_goes_by_the_effects_own_app(app: Celery) -> None:
    """Also in a thread where another app is the current one."""

    @app.task(name="shop.ship", shared=False)
    def ship(*args: Any) -> Any:
        return args

    made = chain(app.signature("shop.ship"), app.signature("shop.ship"))
    settled = one(task=None, on_ack=freeze_callback("on_ack", made, app))
    done: list[str] = []

    def work() -> None:
        other = make_app()
        other.set_current()
        done.extend(Effects(app, None).run([settled]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert done == [settled.record.context]
    body = sent_by_broker(app)
    assert body is not None
    assert body[0] == [settled.result]


def test_one_who_waits_is_told(app: Celery) -> None:
    """In the inbox that its record names, after the result is stored."""
    lanes = NotedLanes()
    settled = one("c", receipt("c"), receipt("c"), inbox="i/1", is_list=True)
    Effects(app, lanes).run([settled])  # type: ignore[arg-type]
    assert lanes.told == [("i/1", CallOutcomes("c", is_list=True, outcomes=settled.outcomes))]


def test_a_part_of_a_list_over_lanes(app: Celery) -> None:
    """Settles its place, under the list's context; the last one does the effects of all."""
    lanes = NotedLanes()
    home = Lane(TOPIC, 3)
    part = Settled(Record("c.1", parent=(home.name, "c", 1)), (receipt("c.1"),))
    effects = Effects(app, lanes)  # type: ignore[arg-type]
    assert effects.run([part]) == ["c.1"]
    assert lanes.settled == [(home, receipt("c"), 1)]
    assert lanes.finished == []
    lanes.completes = one("c", receipt("c"), receipt("c"), is_list=True)
    failed = Settled(Record("c.0", parent=(home.name, "c", 0)), (failure("c.0"),))
    assert effects.run([failed]) == ["c.0"]
    assert lanes.settled[1] == (home, failure("c"), 0)
    assert lanes.finished == [("c", 0)]
    assert app.AsyncResult("c").get(timeout=1) == [receipt("c").to_dict()] * 2


def test_a_caller_that_cannot_be_notified(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """That is logged, and is no failure of the task."""
    settled = one(inbox="i/1")
    context = settled.record.context
    assert Effects(app, None).run([settled]) == [context]
    assert app.AsyncResult(context).get(timeout=1) == settled.result
    assert f"cannot notify waiting callers; this is not repeated context={context}" in caplog.text


class AwayLanes(NotedLanes):
    """Lanes whose Redis does not answer."""

    def notify(self, address: str, call: CallOutcomes) -> None:
        """Raise."""
        raise StoreUnavailable("Redis does not answer")


def test_one_that_is_interrupted_is_left_due(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """What is away is logged once; the others are done."""
    lost = [one(task=None, inbox="i"), one(task=None, inbox="i")]
    fine = one()
    effects = Effects(app, AwayLanes())  # type: ignore[arg-type]
    assert effects.run([*lost, fine]) == [fine.record.context]
    assert caplog.text.count("the Redis of the lanes is away") == 1


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_a_result_that_could_not_be_stored_is_left_due(
    app: Celery, monkeypatch: pytest.MonkeyPatch, *, failed: bool
) -> None:
    """The backend is away: a receipt and a failure are told later, and neither is forgotten."""

    def away(*_args: Any, **_options: Any) -> Any:
        raise OperationalError("the backend is away")

    settled = one(None, failure() if failed else receipt())
    effects = Effects(app, None)
    monkeypatch.setattr(type(app.backend), "_store_result", away)
    assert effects.run([settled]) == []
    monkeypatch.undo()
    assert effects.run([settled]) == [settled.record.context]


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_a_backend_that_fails_once(
    app: Celery, monkeypatch: pytest.MonkeyPatch, *, failed: bool
) -> None:
    """The outcome is what is told in the end, and never the backend's own trouble."""
    kind: Any = type(app.backend)
    store, calls = kind._store_result, []  # noqa: SLF001

    def flaky(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise OperationalError("the backend is away")
        return store(*args, **options)

    settled = one(None, failure() if failed else receipt())
    effects = Effects(app, None)
    monkeypatch.setattr(kind, "_store_result", flaky)
    if not effects.run([settled]):
        assert effects.run([settled]) == [settled.record.context]
    result = app.AsyncResult(settled.record.context)
    assert isinstance(result.result, ProduceError) if failed else result.result == settled.result


def test_a_task_that_is_not_registered(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """Its outcome is told all the same."""
    settled = one(task="shop.gone")
    Effects(app, None).run([settled])
    assert app.AsyncResult(settled.record.context).get(timeout=1) == settled.result
    assert "task=shop.gone" in caplog.text


def test_a_task_whose_module_is_not_imported_yet(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """A web process, which nobody told to import tasks, imports them as Celery's worker does."""
    imports: list[str] = []

    def load() -> list[Any]:
        imports.append("all")
        Stargate(app).task("shop.late")
        return []

    app.loader.import_default_modules = load  # type: ignore[method-assign]
    for name in ("shop.late", "shop.gone"):
        Effects(app, None).run([one(name, task=name)])
    effects = Effects(app, None)
    effects.run([one("a", task="shop.gone"), one("b", task="shop.away")])
    assert "shop.late is not registered" not in caplog.text
    assert len(imports) == 3


def test_the_worker_is_told(app: Celery) -> None:
    """For its events: of each context, whatever became of it."""
    told: list[Settled] = []
    given = [one("a", receipt("a")), one("b", failure("b"))]
    Effects(app, None, "host", told.append).run(given)
    assert [(each.record, each.outcomes) for each in told] == [
        (each.record, each.outcomes) for each in given
    ]
    assert [each.ended and each.ended.state for each in told] == [None, "FAILURE"]


def test_a_call_that_never_got_as_far_as_a_lane(app: Celery) -> None:
    """Fails its task, and triggers `on_error`."""
    context = uuid.uuid4().hex
    on_error = freeze_callback("on_error", app.signature("shop.cry"), app)
    failed = failure(context, code="InvalidMessage")
    Effects(app, None).fail(
        "celery_stargate.produce", json.dumps({"id": context}), failed, on_error
    )
    with pytest.raises(ProduceError):
        app.AsyncResult(context).get(timeout=1)
    assert sent_by_broker(app)[0] == [failed.to_dict()]


def entry(follow_up: FollowUp) -> Entry:
    """Return a message of the produce task."""
    return Entry(1, "c", b"", follow_up=follow_up)


REDIS = "redis://redis.invalid:6379/0"
ALL = [entry(each) for each in FollowUp]


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ({}, {FollowUp.NOTHING}),
        ({"beside_lanes": True}, {FollowUp.NOTHING, FollowUp.IGNORED, FollowUp.RESULT}),
        # Who is told needs the record, which is not there.
        ({"beside_lanes": True, "on_done": print}, {FollowUp.NOTHING}),
        (
            {"beside_lanes": True, "on_done": print, "done_matters": lambda: False},
            {FollowUp.NOTHING, FollowUp.IGNORED, FollowUp.RESULT},
        ),
    ],
)
def test_what_is_done_in_the_step_that_settles(options: Any, done: set[FollowUp]) -> None:
    """What the step can do, and of what nobody is to be told."""
    effects = Effects(make_app(result_backend=REDIS), None, **options)
    found = effects.at_once([(each, receipt("c")) for each in ALL], {})
    assert {
        each.follow_up for each, way in zip(ALL, found, strict=True) if way is not Remaining.FULL
    } == done
    assert all(
        isinstance(found[ALL.index(each)], ResultRow) == (each.follow_up is FollowUp.RESULT)
        for each in ALL
        if each.follow_up in done
    )


def test_failures_are_done_afterwards() -> None:
    """Somebody may want to hear of them."""
    effects = Effects(make_app(result_backend=REDIS), None, beside_lanes=True)
    assert effects.at_once([(each, failure("c")) for each in ALL], {}) == [Remaining.FULL] * len(
        ALL
    )


def test_a_result_that_cannot_be_made_is_left_to_the_general_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told, and hits no other."""
    effects = Effects(make_app(result_backend=REDIS), None, beside_lanes=True)
    outcomes: list[Outcome] = [Receipt(context="a", value=object()), receipt("b")]
    ways = effects.at_once([(entry(FollowUp.RESULT), each) for each in outcomes], {})
    assert [type(each) for each in ways] == [Remaining, ResultRow]
    assert "a result will be stored by itself context=a" in caplog.text


@pytest.mark.parametrize(
    ("error", "raised"), [(OperationalError("no broker"), True), (ValueError("no JSON"), False)]
)
def test_a_failure_without_a_lane_that_cannot_be_told(
    app: Celery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    raised: bool,
) -> None:
    """Is tried again by the one who called, if that can help; else it is logged."""

    def trace(*given: Any) -> Any:
        raise error

    monkeypatch.setattr(OutcomeTracer, "trace", trace)
    request = json.dumps({"id": "c"})
    callback = freeze_callback("on_error", app.signature("shop.sorry"), app)
    expired = failure("c", code="expired")
    if raised:
        with pytest.raises(OperationalError):
            Effects(app, None).fail("celery_stargate.produce", request, expired, callback)
        assert sent_by_broker(app) is None
    else:
        Effects(app, None).fail("celery_stargate.produce", request, expired, callback)
        assert "cannot be told whole" in caplog.text
        assert sent_by_broker(app)[0][0]["code"] == "expired"


@pytest.mark.parametrize("told", [True, False])
def test_successes_that_the_settling_step_finished(app: Celery, told: bool) -> None:
    """Are told to whoever wants to know, and one error hides no other; nobody need want it."""
    heard: list[str] = []

    def on_done(settled: Settled) -> None:
        heard.append(settled.record.context)
        if settled.record.context == "a":
            raise ValueError("of the user")

    effects = Effects(app, None, on_done=on_done if told else None)
    effects.tell([one("a"), one("b")])
    assert heard == (["a", "b"] if told else [])


def test_nobody_waits_any_more(app: Celery) -> None:
    """A context of which nothing is left to tell is done all the same."""
    lanes: Any = NotedLanes()
    settled = Settled(Record("c"), (receipt("c"),))
    assert Effects(app, lanes).run([settled]) == ["c"]
    assert lanes.told == []


def test_callbacks_are_kept_before_they_are_tried_one_by_one(app: Celery) -> None:
    """While the broker is away, one try at a time is made to reach it."""
    now = [100.0]
    effects = Effects(app, None, monotonic=lambda: now[0])
    kept: list[str] = []

    class Kept:
        def keep(self, jobs: Any) -> None:
            kept.extend(job.context for job in jobs)

    until_started: Any = Kept()
    effects.keep_until_started(until_started)
    callback = freeze_callback("on_ack", app.signature("shop.paid"), app)
    jobs = [Job(one(name, receipt(name), task=None, on_ack=callback)) for name in ("a", "b")]
    attempts = vars(effects)["_attempts"]
    attempts.failed(Stage.CALLBACKS, jobs[0], OperationalError("away"))
    assert attempts.is_open(Stage.CALLBACKS)
    effects.perform(Stage.CALLBACKS, jobs)
    assert kept == []
    assert sent_by_broker(app) is None
    # The time for the next try comes just after the look whether it has come.
    is_open = attempts.is_open

    def look(stage: Stage) -> bool:
        found = is_open(stage)
        now[0] += 60.0
        return bool(found)

    vars(attempts)["is_open"] = look
    for job in jobs:
        job.interrupted.clear()
    effects.perform(Stage.CALLBACKS, jobs)
    assert sorted(kept) == ["a", "b"]
    assert sent_by_broker(app) is not None
    assert sent_by_broker(app) is not None


def test_a_row_that_redis_refuses_is_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of the round trip are stored, and are done."""
    app = make_app(result_backend="redis://redis.invalid:6379/0")
    refused = ResponseError("OOM command not allowed")
    monkeypatch.setattr(ResultBatch, "flush", lambda self: {1: refused})
    monkeypatch.setattr(ResultBatch, "drop", lambda self: None)
    assert Effects(app, None).run([one("a"), one("b"), one("c")]) == ["a", "c"]
