"""The form of a result: what Celery would store, for any id and any receipt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celery_stargate.effects.results.template import ResultTemplate, request_of
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.model.follow_up import ResultRow
from tests.unit.helpers import make_app, receipt

#: Nothing is written to it: a batch keeps what it gets.
REDIS = "redis://redis.invalid:6379/0"
NOW = "2026-11-25T10:00:00.000001+00:00"
RESULTS: list[Any] = [
    receipt().to_dict(),
    [receipt().to_dict(), receipt().to_dict()],
    {"topic": 'a "quoted" \\ \u00e4 \U0001f680 topic', "entry_id": 2**62, "partition": -1},
]


def batch(**conf: Any) -> ResultBatch:
    """Return a batch over a Redis backend."""
    return ResultBatch(make_app(result_backend=REDIS, **conf).backend)


def celerys(given: ResultBatch, task_id: str, result: Any) -> tuple[Any, Any, Any]:
    """Return what Celery itself stores."""
    given.backend.mark_as_done(task_id, result, request_of())
    return given.take_last()


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"result_expires": None},
        {"result_expires": 60},
        {"result_backend_transport_options": {"global_keyprefix": "shop-"}},
        {"enable_utc": False, "timezone": "Europe/Berlin"},
    ],
)
def test_it_is_what_celery_stores(conf: dict[str, Any], result: Any) -> None:
    """Key, meaning, moment and expiry, whenever it is."""
    given = batch(**conf)
    form = ResultTemplate.of(given)
    assert form is not None
    assert form.lasts
    assert len(given) == 0
    for task_id in ("a", "0b4f2c1e-7a55-4f5e-9a55-000000000000"):
        key, value, expires = celerys(given, task_id, result)
        expected = json.loads(value)
        filled, text, seconds = form.at(expected["date_done"])(task_id, result)
        assert (filled, seconds) == (key if isinstance(key, str) else key.decode(), expires or 0)
        assert json.loads(text) == expected


@pytest.mark.parametrize(("group", "parent"), [("g", None), (None, "p"), ("g", "p")])
def test_with_a_group_and_a_parent(group: str | None, parent: str | None) -> None:
    """They are stored with the result; the form is one for all groups and parents."""
    given = batch()
    form = ResultTemplate.of(given, group is not None, parent is not None)
    assert form is not None
    given.backend.mark_as_done("a", [1], request_of(group, parent))
    expected = json.loads(given.take_last().value)
    row = form.at(expected["date_done"])("a", [1], group, parent)
    assert json.loads(row.value) == expected


@pytest.mark.parametrize("serializer", ["pickle", "msgpack"])
def test_what_is_no_json_has_no_form(serializer: str) -> None:
    """Celery writes each of them by itself."""
    given = batch(result_serializer=serializer, accept_content=["json", serializer])
    assert ResultTemplate.of(given) is None
    assert len(given) == 0


class Foreign(ResultBatch):
    """A batch whose backend writes something of its own."""

    def __init__(self, key: Any, value: Any) -> None:
        super().__init__(make_app(result_backend=REDIS).backend)
        self._written = key, value

    def take_last(self) -> ResultRow:
        """Give another key and value, made of what Celery gave."""
        key, value, expires = super().take_last()
        make_key, make_value = self._written
        return ResultRow(make_key(key), make_value(value), expires)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (lambda key: "elsewhere", lambda value: value),
        (lambda key: key, lambda value: value.encode()),
        (lambda key: key, lambda value: value + value),
        (lambda key: key, lambda value: value.replace('"', "'")),
        (lambda key: key, lambda value: "compressed"),
    ],
    ids=["key without id", "bytes", "twice", "quoted otherwise", "compressed"],
)
def test_what_holds_the_stand_in_otherwise_has_no_form(key: Any, value: Any) -> None:
    """Nothing is guessed."""
    assert ResultTemplate.of(Foreign(key, value)) is None


def test_the_id_may_stand_before_or_behind_the_result() -> None:
    """Celery's versions may order the fields as they like."""

    def turned(value: str) -> str:
        fields = json.loads(value)
        return json.dumps(dict(reversed(fields.items())))

    form = ResultTemplate.of(Foreign(lambda key: key, turned))
    assert form is not None
    _, text, _ = form.at(NOW)("a", {"b": 1})
    assert (json.loads(text)["task_id"], json.loads(text)["result"]) == ("a", {"b": 1})


def changed(**fields: Any) -> Any:
    """Return what changes fields of a stored value."""
    return lambda value: json.dumps({**json.loads(value), **fields})


@pytest.mark.parametrize(
    "value",
    [
        changed(date_done=None),
        changed(date_done=17.5),
        changed(date_done="yesterday"),
        changed(date_done="2001-01-01T00:00:00+00:00"),
        changed(date_done="2001-01-01T00:00:00"),
        lambda value: changed(again=json.loads(value)["date_done"])(value),
        lambda value: changed(date_done=json.loads(value)["date_done"].replace("T", " "))(value),
        lambda value: value.replace("date_done", "done"),
    ],
    ids=["none", "number", "text", "past", "naive", "twice", "other form", "elsewhere"],
)
def test_a_moment_that_is_not_the_apps_makes_a_form_for_now(value: Any) -> None:
    """It keeps what Celery wrote, and does not last."""
    form = ResultTemplate.of(Foreign(lambda key: key, value))
    assert form is not None
    assert not form.lasts
    _, text, _ = form.at(NOW)("a", {"b": 1})
    assert NOW not in text
    assert json.loads(text)["result"] == {"b": 1}


def test_a_backend_that_keeps_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a template would lose them, or make them up: Celery stores each result itself."""
    given = batch()
    meta = given.backend._get_result_meta  # noqa: SLF001

    def without(*args: Any, **kwargs: Any) -> Any:
        found = meta(*args, **kwargs)
        found.pop("group_id", None)
        found.pop("parent_id", None)
        return found

    monkeypatch.setattr(given.backend, "_get_result_meta", without)
    assert ResultTemplate.of(given) is not None
    assert ResultTemplate.of(given, group=True) is None
    assert ResultTemplate.of(given, parent=True) is None
    assert len(given) == 0
