"""The app's own task class: produce tasks have what it adds, Django's calls on commit for one."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import pytest
from celery import Task, signature
from msgspec import json

from celery_stargate import InvalidMessage, ProduceTask, Stargate, produce_task
from celery_stargate.effects.signatures import unpack
from celery_stargate.effects.tracer import acting_as
from celery_stargate.model.frame import text_frame
from celery_stargate.support import tracing
from tests.unit.helpers import NotedLanes, Put, make_app


class Transaction:
    """Stand where Django's transaction does."""

    def __init__(self) -> None:
        self.hooks: list[Callable[[], object]] = []

    def commit(self) -> None:
        """Run the hooks."""
        for hook in self.hooks:
            hook()


@pytest.fixture
def transaction(monkeypatch: pytest.MonkeyPatch) -> Iterator[Transaction]:
    """The transaction that Django's task class uses."""
    module = pytest.importorskip("celery.contrib.django.task")
    found = Transaction()
    monkeypatch.setattr(module.transaction, "on_commit", found.hooks.append)
    yield found


class Audited(Task):  # type: ignore[type-arg]
    """A task class of one's own."""

    abstract = True
    team = "shop"
    calls: list[str] = []  # noqa: RUF012  # noted by all of its tasks

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Note the call."""
        self.calls.append(self.name)
        return super().apply_async(*args, **options)

    def whose(self) -> str:
        """Tell whose it is."""
        return self.team


def make(task_cls: Any, *, finalized: bool = False) -> tuple[Stargate, NotedLanes]:
    """Return a Stargate of an app with a task class, and its lanes."""
    app = make_app()
    app.task_cls = task_cls
    if finalized:
        app.finalize()
    stargate, lanes = Stargate(app), NotedLanes()
    stargate.runtime.__dict__["outbox"] = lanes
    return stargate, lanes


def both(stargate: Stargate) -> list[Any]:
    """Return the produce task of every app, and one of the app's own."""
    return [stargate.app.tasks[ProduceTask.default_name], stargate.task("shop.orders")]


@pytest.mark.parametrize("finalized", [False, True])
def test_its_methods_and_its_layers(finalized: bool) -> None:
    """Are there; and what it does around a call is done."""
    stargate, lanes = make(Audited, finalized=finalized)
    Audited.calls.clear()
    for task in both(stargate):
        assert task.whose() == "shop"
        assert isinstance(task, ProduceTask)
        task.delay("a")
    assert Audited.calls == ["celery_stargate.produce", "shop.orders"]
    assert len(lanes.puts) == 2


def test_another_app_has_it_not() -> None:
    """The class belongs to the app."""
    make(Audited)
    plain, _ = make("celery.app.task:Task")
    for task in both(plain):
        assert not hasattr(task, "whose")
        assert not hasattr(task, "delay_on_commit")


def test_the_shared_task_is_the_apps() -> None:
    """`produce_task` finds the class by the current app."""
    stargate, _ = make(Audited)
    with acting_as(stargate.app):
        whose: Callable[[], str] = getattr(produce_task, "whose")  # noqa: B009  # mypy knows none
        assert whose() == "shop"


def test_a_task_class_that_takes_what_celery_gives_it() -> None:
    """``delay`` and signatures give ``args`` and ``kwargs`` by place, and no others."""
    seen: list[Any] = []

    class Tenant(Task):  # type: ignore[type-arg]
        abstract = True

        def delay(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return super().delay(*args, **kwargs)

        def apply_async(  # type: ignore[override]
            self, args: Any = None, kwargs: Any = None, **options: Any
        ) -> Any:
            options["headers"] = {**(options.get("headers") or {}), "tenant": "t1"}
            return super().apply_async(args, kwargs, **options)

    stargate, lanes = make(Tenant)
    for task in both(stargate):
        task.delay("a")
        task.s("a").delay()
        task.delay("a", via="broker")
    assert seen == [("a",)] * 4
    assert len(lanes.puts) == 4
    for put in lanes.puts:
        assert json.decode(put.record.request or "")["tenant"] == "t1"


def test_a_produce_task_class() -> None:
    """Of one's own is used as it is."""

    class Mine(ProduceTask):
        abstract = True
        mine = True

    stargate, _ = make(Mine)
    for task in both(stargate):
        assert task.mine


def test_on_commit(transaction: Transaction) -> None:
    """Nothing is recorded before it; the result is known at once."""
    stargate, lanes = make("celery.contrib.django.task:DjangoTask")
    results = []
    for task in both(stargate):
        results.append(task.delay_on_commit("a", topic="other"))
        results.append(task.apply_async_on_commit(("b",), headers={"h": "1"}))
        results.append(task.apply_async_on_commit(("c",), task_id=f"mine-{task.name}"))
    assert lanes.puts == []
    transaction.commit()
    assert [put.record.context for put in lanes.puts] == [result.id for result in results]
    assert results[2].id == "mine-celery_stargate.produce"
    assert lanes.puts[0].lane.topic == "persistent://public/default/other"


def test_what_is_published_is_what_was_checked(transaction: Transaction) -> None:
    """Whatever the caller does with its objects before the commit."""
    stargate, lanes = make("celery.contrib.django.task:DjangoTask")
    event: dict[str, Any] = {"payload": "first"}
    events, callback = ["one", "two"], signature("shop.mark", ([1],))
    for task in both(stargate):
        task.delay_on_commit(event, on_ack=callback)
        task.delay_on_commit(events)
    event["payload"], events[0], callback.args[0][0] = 17, "other", 2
    transaction.commit()
    for one, many in zip(lanes.puts[::2], lanes.puts[1::2], strict=True):
        assert payloads(one) == [b"first"]
        assert one.record.on_ack is not None
        assert unpack(one.record.on_ack)["args"] == [[1]]
        assert payloads(many) == [b"one", b"two"]


def payloads(put: Put) -> list[bytes]:
    """The payloads that a call recorded."""
    return [b64decode(json.decode(text_frame(frame))["payload"]) for _, frame in put.messages]


def test_the_trace_begins_at_the_commit(
    transaction: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A span of a call whose transaction rolls back would never end."""
    begun: list[Mock] = []

    def begin(*given: Any) -> Mock:
        begun.append(Mock(carrier={}, active=nullcontext))
        return begun[-1]

    monkeypatch.setattr(tracing, "_current", Mock(begin=begin))
    stargate, _ = make("celery.contrib.django.task:DjangoTask")
    stargate.task("shop.orders").delay_on_commit("a")
    assert begun == []
    transaction.commit()
    [trace] = begun
    assert trace.end.called


def test_bad_input_before_the_commit(transaction: Transaction) -> None:
    """The transaction can still roll back."""
    stargate, lanes = make("celery.contrib.django.task:DjangoTask")
    for task in both(stargate):
        with pytest.raises(InvalidMessage):
            task.delay_on_commit(5)
    assert transaction.hooks == []
    assert lanes.puts == []
