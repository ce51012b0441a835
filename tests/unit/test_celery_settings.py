"""Celery's own settings and task options, as `docs/celery_settings.md` says they apply."""

from __future__ import annotations

import ast
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from celery import Task
from celery.app.defaults import NAMESPACES, flatten
from celery.backends.cache import CacheBackend
from kombu.utils import json
from kombu.utils.limits import TokenBucket

from celery_stargate import ProduceTask, Stargate
from celery_stargate.effects.run import Effects
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.revocations import Revocations
from celery_stargate.model.follow_up import FollowUp
from celery_stargate.model.outcome import Outcome
from celery_stargate.worker.strategy import produce
from tests.unit.helpers import failure, make_app, make_stargate, receipt
from tests.unit.worker.test_strategy import Rig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "celery_settings.md"
_ROW = re.compile(r"^\| `(\w+)` \| (applies|differently|no) \| (.+?) \| (.*?) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


def rows(heading: str) -> dict[str, tuple[str, str, str]]:
    """Return the rows of one table of the page: word, sentence and tests, by name."""
    text = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = _ROW.findall(text)
    assert len({name for name, *_ in found}) == len(found), "a name stands twice"
    return {name: (word, sentence, tests) for name, word, sentence, tests in found}


def options_of_tasks() -> Iterator[str]:
    """Return the options of a task, as the installed Celery has them."""
    for name, value in list(vars(Task).items()):
        plain = not callable(value) and not isinstance(value, property | classmethod | staticmethod)
        if not name.startswith("_") and plain and not hasattr(value, "__get__"):
            yield name
    configured: Any = dict(vars(Task)["from_config"])
    yield from configured
    yield from ["queue", "routing_key", "exchange", "delivery_mode", "compression"]


# The table.


def test_every_setting_of_the_installed_celery_is_in_the_table() -> None:
    """A new version's new setting is to be looked at."""
    installed: Any = flatten(NAMESPACES)
    assert {each[0] for each in installed} - rows("Settings").keys() == set()


def test_every_option_of_a_task_is_in_the_table() -> None:
    """As of settings."""
    own = {"from_config", "request_stack", "app", "name", "abstract", "Strategy", "Request"}
    assert set(options_of_tasks()) - own - rows("Options of a task").keys() == set()


@pytest.mark.parametrize("heading", ["Settings", "Options of a task", "Options of a call"])
def test_each_row_that_applies_names_its_test(heading: str) -> None:
    """And that test is there."""
    for name, (word, sentence, tests) in rows(heading).items():
        named = _TEST.findall(tests)
        assert sentence.endswith("."), name
        assert named or word == "no", f"{name} names no test"
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text("utf-8"))
            defined = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
            assert set(test.split("::")[-1:]) <= defined, f"{name}: {file} has no test {test}"


# What the rows name.


_Backend: Any = CacheBackend  # Celery's types leave out most of it


class NotingBackend(_Backend):  # type: ignore[misc]
    """A result backend of one's own, which notes what it is asked to store."""

    noted: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "backend": "memory", "url": "memory://"})

    def _store_result(self, task_id: Any, result: Any, state: Any, *args: Any, **kw: Any) -> Any:
        self.noted.append((task_id, state))
        return super()._store_result(task_id, result, state, *args, **kw)


def settle(stargate: Stargate, task: str, outcome: Outcome, **request: Any) -> dict[str, Any]:
    """Do the effects of a task's outcome, and return what the backend has of it."""
    packed = json.dumps({"id": outcome.context, "task": task, **request})
    record = Record(outcome.context, task=task, request=packed)
    done = Effects(stargate.app, None).run([Settled(record, (outcome,))])
    assert done == [outcome.context]
    meta: dict[str, Any] = stargate.app.backend.get_task_meta(outcome.context)
    return meta


def test_results_go_through_the_apps_backend() -> None:
    """Whichever it is, with all its settings."""
    NotingBackend.noted.clear()
    stargate, _, task = make_stargate(result_backend=f"{__name__}:NotingBackend")
    settle(stargate, task.name, receipt("good"))
    settle(stargate, task.name, failure("bad"))
    assert NotingBackend.noted == [("good", "SUCCESS"), ("bad", "FAILURE")]


def test_messages_go_through_the_apps_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks, and calls by Celery's broker."""
    stargate, _, task = make_stargate()
    used: list[str] = []
    acquire = stargate.app.producer_pool.acquire

    def noting(*args: Any, **options: Any) -> Any:
        used.append("pool")
        return acquire(*args, **options)

    monkeypatch.setattr(stargate.app.producer_pool, "acquire", noting)
    task.apply_async(("a",), via="broker")
    assert used == ["pool"]
    record = Record("c", on_ack=json.dumps(stargate.app.signature("ship")))
    Effects(stargate.app, None).run([Settled(record, (receipt("c"),))])
    assert used == ["pool", "pool"]


def queued(stargate: Stargate, queue: str) -> Any:
    """Return the next message of a queue."""
    with stargate.app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        channel.queue_declare(queue)
        return channel.basic_get(queue, no_ack=True)


def publish_callback(stargate: Stargate) -> None:
    """Publish a callback."""
    record = Record("c", on_ack=json.dumps(stargate.app.signature("shop.ship")))
    Effects(stargate.app, None).run([Settled(record, (receipt("c"),))])


def test_routes_and_the_default_queue_of_callbacks() -> None:
    """As of any task."""
    stargate, _, _ = make_stargate(task_routes={"shop.*": {"queue": "routed"}})
    publish_callback(stargate)
    assert queued(stargate, "routed").headers["task"] == "shop.ship"
    plain, _, _ = make_stargate()
    publish_callback(plain)
    assert queued(plain, plain.app.conf.task_default_queue).headers["task"] == "shop.ship"


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_the_serializer_of_callbacks_and_of_calls_by_the_broker(serializer: str) -> None:
    """As of any task; a lane has JSON always."""
    stargate, lanes, task = make_stargate(task_serializer=serializer, task_compression="zlib")
    for send in (
        lambda: task.apply_async(("a",), via="broker"),
        lambda: publish_callback(stargate),
    ):
        send()
        message = queued(stargate, stargate.app.conf.task_default_queue)
        ends = {"json": "json", "pickle": "python-serialize"}
        assert message.content_type.endswith(ends[serializer])
        assert message.headers["compression"] == "application/x-gzip"
    task.delay("b")
    assert json.loads(lanes.puts[0].record.request or "")["task"] == task.name


@pytest.mark.parametrize("accepted", [True, False])
def test_accept_content_of_calls_by_the_broker(accepted: bool) -> None:
    """A worker reads what it accepts."""
    rig = Rig(accept_content=["json"] if accepted else ["yaml"])
    rig.receive(message="a")
    assert len(rig.lanes.puts) == int(accepted)


def test_annotations() -> None:
    """Change the attributes of produce tasks."""
    stargate, _, task = make_stargate(
        task_annotations={ProduceTask.default_name: {"rate_limit": "1/m", "ignore_result": True}}
    )
    assert task.rate_limit == "1/m"
    assert settle(stargate, task.name, receipt(uuid.uuid4().hex))["status"] == "PENDING"


def test_a_result_that_is_ignored() -> None:
    """Is not stored, by setting, option or call."""
    _, lanes, task = make_stargate(task_ignore_result=True)
    task.delay("a")
    assert lanes.puts[0].record.follow_up is FollowUp.IGNORED
    stargate, lanes, task = make_stargate()
    task.apply_async(("a",), ignore_result=True)
    stargate.task("shop.orders", ignore_result=True).delay("a")
    assert [put.record.follow_up for put in lanes.puts] == [FollowUp.IGNORED] * 2


@pytest.mark.parametrize("stored", [True, False])
def test_a_failure_that_is_stored_though_results_are_ignored(stored: bool) -> None:
    """By `task_store_errors_even_if_ignored`."""
    stargate, _, task = make_stargate(
        task_ignore_result=True, task_store_errors_even_if_ignored=stored
    )
    meta = settle(stargate, task.name, failure(uuid.uuid4().hex), ignore_result=True)
    assert meta["status"] == ("FAILURE" if stored else "PENDING")


def test_extended_results() -> None:
    """Name, worker, queue and more; of the arguments no payload."""
    stargate, _, task = make_stargate(result_extended=True)
    meta = settle(stargate, task.name, receipt(uuid.uuid4().hex), retries=0)
    assert meta["name"] == task.name
    assert not meta["args"]


def test_started_is_stored() -> None:
    """A moment before the result: the lane has the message by then."""
    NotingBackend.noted.clear()
    stargate, _, task = make_stargate(
        task_track_started=True, result_backend=f"{__name__}:NotingBackend"
    )
    settle(stargate, task.name, receipt(uuid.uuid4().hex))
    assert [state for _, state in NotingBackend.noted] == ["STARTED", "SUCCESS"]


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml"])
def test_the_serializer_of_results(serializer: str) -> None:
    """Any of Celery's."""
    stargate, _, task = make_stargate(
        result_serializer=serializer, result_accept_content=[serializer]
    )
    meta = settle(stargate, task.name, receipt(uuid.uuid4().hex))
    assert meta["result"]["status"] == "stored"


@pytest.mark.parametrize("disabled", [True, False])
def test_rate_limits(disabled: bool) -> None:
    """Of calls that come by Celery's broker."""
    rig = Rig(task_default_rate_limit="1/m")
    assert rig.task.rate_limit == "1/m"
    rig.consumer.disable_rate_limits = disabled
    rig.consumer.task_buckets[rig.task.name] = TokenBucket(1)
    rig.handle = produce(rig.task, rig.app, rig.consumer)
    rig.receive(message="a")
    assert len(rig.lanes.puts) == int(disabled)


def test_the_way_of_a_call_with_a_queue_or_a_time() -> None:
    """It goes by Celery's broker."""
    _, lanes, task = make_stargate()
    task.apply_async(("a",), queue="mine")
    task.apply_async(("a",), countdown=60)
    assert lanes.puts == []


def test_options_of_a_call_in_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Celery puts into a task's headers is kept in the lane."""
    monkeypatch.setattr(Revocations, "remembers_stamps", lambda *_: False)
    _, lanes, task = make_stargate()
    task.apply_async(
        ("a",),
        shadow="named",
        headers={"h": "1"},
        time_limit=5,
        group_id="g",
        root_id="r",
        parent_id="p",
        stamped_headers=["s"],
        s="1",
        replaced_task_nesting=1,
        link=task.app.signature("x"),
    )
    request = json.loads(lanes.puts[0].record.request or "")
    assert (request["shadow"], request["h"], request["group"]) == ("named", "1", "g")
    assert (request["root_id"], request["parent_id"]) == ("r", "p")
    assert (request["stamps"], request["replaced_task_nesting"]) == ({"s": "1"}, 1)
    assert request["callbacks"][0]["task"] == "x"


def test_the_size_of_what_logs_show() -> None:
    """Produce tasks have a short one of their own; yours may have another."""
    stargate, _, task = make_stargate()
    assert task.resultrepr_maxsize == 64
    assert stargate.task("shop.orders", resultrepr_maxsize=10).resultrepr_maxsize == 10


def test_the_task_takes_its_class_from_the_app() -> None:
    """`typing` and others are Celery's own."""
    app = make_app()
    Stargate(app)
    made = Stargate.of(app).task("shop.typed", typing=False, trail=False)
    assert (made.typing, made.trail) == (False, False)
