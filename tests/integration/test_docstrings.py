"""The docstrings of the public names say what they must, and their examples run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import kombu.exceptions
import pytest
from celery import Celery

import celery_stargate
from celery_stargate import Stargate, testing
from celery_stargate.testing import in_memory
from tests.integration.conftest import MakeApp
from tests.unit.docstrings import Documented, documented, run_examples, shortcomings

_DEEP = frozenset({"Acknowledger", "Stargate"})
_PUBLIC = [*documented(celery_stargate, deep=_DEEP), *documented(testing)]
_EXAMPLES = [each for each in _PUBLIC if ">>> " in each.text]
#: Their examples need a Redis; the others run in memory.
_WITH_REDIS = ("Acknowledger", "Stargate.cancel", "Stargate.dead_letters", "Stargate.lanes")
#: For the package's own modules and tests, and what is Celery's.
_PRIVATE = {
    "Faults.closes_on_frame",
    "Faults.receipt",
    "ProduceTask.AsyncResult",
    "ProduceTask.checked",
    "ProduceTask.in_process",
    "ProduceTask.signature",
    "ProduceTask.subtask",
    "Stargate.runtime",
}
_TOPICS = {"orders": "persistent://public/default/orders"}


def _names(app: Celery) -> dict[str, Any]:
    register: Any = app.task

    def call_back(outcome: object) -> None:
        """Get a receipt or a failure."""

    return {
        **{name: getattr(testing, name) for name in testing.__all__},
        **{name: getattr(celery_stargate, name) for name in celery_stargate.__all__},
        "Celery": Celery,
        "alert": register(name="shop.alert", shared=False)(call_back),
        "app": app,
        "asyncio": asyncio,
        "kombu": kombu,
        "paid": register(name="shop.paid", shared=False)(call_back),
        "produce_task": app.tasks["celery_stargate.produce"],
        "stargate": Stargate.of(app),
    }


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the examples may use: an app whose messages stay in memory."""
    app = Celery("shop", set_as_current=False)
    app.conf.stargate_topics = _TOPICS
    app.conf.stargate_topic = "orders"
    Stargate(app)
    with in_memory(app) as pulsar:
        yield {**_names(app), "pulsar": pulsar}


@pytest.mark.parametrize("found", _PUBLIC, ids=repr)
def test_a_docstring_says_what_it_must(found: Documented) -> None:
    """What each argument is, what comes back, and how it is used."""
    if found.name not in _PRIVATE:
        assert list(shortcomings(found)) == []


@pytest.mark.parametrize(
    "found", [each for each in _EXAMPLES if not each.name.startswith(_WITH_REDIS)], ids=repr
)
def test_the_examples_run(found: Documented, names: dict[str, Any]) -> None:
    """Each example of a docstring gives what the docstring says."""
    assert run_examples(found, names) == ""


@pytest.mark.parametrize(
    "found", [each for each in _EXAMPLES if each.name.startswith(_WITH_REDIS)], ids=repr
)
def test_the_examples_run_with_redis(found: Documented, make_app: MakeApp) -> None:
    """The same, with lanes in a Redis."""
    app = make_app("ws://127.0.0.1:1", topics=_TOPICS)
    assert run_examples(found, _names(app)) == ""
    Stargate.of(app).close()
