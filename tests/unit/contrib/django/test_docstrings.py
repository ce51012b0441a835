"""The docstrings of the Django app's public names, and their examples."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from celery_stargate import Stargate
from celery_stargate.contrib.django import inbox, lanes, outbox
from celery_stargate.testing import in_memory
from tests.django_project.world import make_stargate
from tests.unit.docstrings import Documented, documented, run_examples, shortcomings

_PUBLIC = [*documented(outbox), *documented(inbox)]


@pytest.fixture
def stargate(monkeypatch: pytest.MonkeyPatch) -> Stargate:
    """The current app's, with the outbox's tasks and a topic of the examples."""
    made = make_stargate()
    made.app.conf.stargate_topics = {"orders": "persistent://public/default/orders"}
    monkeypatch.setattr(lanes, "current_stargate", lambda: made)
    return made


@pytest.mark.parametrize("found", _PUBLIC, ids=repr)
def test_a_docstring_says_what_it_must(found: Documented) -> None:
    """What each argument is, what comes back, and how it is used."""
    assert list(shortcomings(found)) == []


@pytest.mark.usefixtures("using")
@pytest.mark.parametrize("found", [each for each in _PUBLIC if ">>> " in each.text], ids=repr)
def test_the_examples_run(found: Documented, stargate: Stargate) -> None:
    """Each example of a docstring gives what the docstring says."""
    names: dict[str, Any] = {
        "app": stargate.app,
        "idempotent": inbox.idempotent,
        "outbox": outbox,
        "transaction": transaction,
    }
    with in_memory(stargate.app):
        assert run_examples(found, names) == ""
