"""Which tasks one producer publishes together, and what it is spared."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from celery import Celery, Task, group, signals
from celery.canvas import Signature

from celery_stargate.effects.together import Together, may_publish_together
from tests.unit.helpers import make_app


class Own(Task):  # type: ignore[type-arg]
    """A task that publishes in a way of its own."""

    abstract = True

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Publish."""


def test_which_tasks_it_takes() -> None:
    """Those that Celery publishes: a canvas, and a task with its own way, take more producers."""
    app = make_app()

    def work() -> None:
        """Do nothing."""

    for name, base in (("shop.own", Own), ("shop.plain", Task)):
        given: dict[str, Any] = {"name": name, "base": base, "shared": False}
        app.task(**given)(work)
    found = Together(app, None)
    assert found.takes(app.signature("shop.plain"))
    assert found.takes(app.signature("shop.elsewhere"))
    assert not found.takes(app.signature("shop.own"))
    assert not found.takes(group([app.signature("a"), app.signature("b")]))


def declares(app: Celery, *signatures: Any) -> list[bool]:
    """Return for each task whether it declares its queue."""
    found = Together(app, "producer")
    options = []
    for each in signatures:
        options.append(found.options_for(each))
        found.note_published(each)
    assert {each["producer"] for each in options} == {"producer"}
    return ["declare" not in each for each in options]


def test_a_queue_is_declared_once() -> None:
    """Each by the first task for it; a task may have a queue of its own."""
    app = make_app()
    one, other = app.signature("a", queue="q"), app.signature("a", queue="r")
    own = app.signature("b", queue="q", declare=["mine"])
    assert declares(app, one, one, other, app.signature("b"), one, own) == [
        *(True, False, True, True, False, True)
    ]


def test_one_that_was_not_published_declares_nothing() -> None:
    """It may have failed before its queue was declared, and the next would go nowhere."""
    app = make_app()
    found, one = Together(app, "producer"), app.signature("a", queue="q")
    assert "declare" not in found.options_for(one)
    assert "declare" not in found.options_for(one)
    found.note_published(one)
    assert found.options_for(one)["declare"] == ()


@pytest.mark.parametrize("owner", [Task, Signature])
def test_who_stands_around_celery_may_choose_a_queue(
    owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each declares its own."""
    real = owner.apply_async

    @functools.wraps(real)
    def around(*args: Any, **options: Any) -> Any:
        return real(*args, **options)

    monkeypatch.setattr(owner, "apply_async", around)
    app = make_app()
    one = app.signature("a", queue="q")
    assert declares(app, one, one) == [True, True]


def test_where_each_declares() -> None:
    """A router may look at the arguments, and a receiver may add to what is declared."""
    one = make_app().signature("a", queue="q")
    assert declares(make_app(task_routes={"a": "q"}), one, one) == [True, True]

    def receive(**_: Any) -> None:
        """Hear of what is published."""

    signals.before_task_publish.connect(receive)
    try:
        assert declares(make_app(), one, one) == [True, True]
    finally:
        signals.before_task_publish.disconnect(receive)


@pytest.mark.parametrize(("limit", "count", "may"), [(10, 2, True), (10, 1, False), (1, 2, False)])
def test_how_many(limit: int, count: int, may: bool) -> None:
    """One gains nothing; and with a pool of one, a second producer would never come."""
    assert may_publish_together(make_app(broker_pool_limit=limit), count) is may
