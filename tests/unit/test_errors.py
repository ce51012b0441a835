"""The errors: their words and fields, through pickle and through Celery's result backends."""

from __future__ import annotations

import copy
import pickle
import uuid
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from celery_stargate import errors
from celery_stargate.errors import (
    ConfigurationError,
    ContextInUse,
    InvalidMessage,
    LaneFull,
    ProduceError,
    ProduceTimeout,
    StargateError,
    StoreUnavailable,
    nearest,
    shown,
    unknown_argument,
)
from tests.unit.helpers import TOPIC, failure, make_app

EACH: list[tuple[StargateError, str]] = [
    (StargateError("something"), "something"),
    (ConfigurationError("stargate_url is not set"), "stargate_url is not set"),
    (InvalidMessage("no payload"), "no payload"),
    (InvalidMessage("no payload", 0), "message 0 of the list: no payload"),
    (
        LaneFull("t#0", 9, 10),
        (
            "lane t#0 holds 9 messages and its limit is 10; wait for Pulsar to catch up, or raise "
            "stargate_max_backlog"
        ),
    ),
    (
        ContextInUse("c"),
        (
            "context 'c' is already pending, or ended within stargate_once_window; "
            "use a different id for each context"
        ),
    ),
    (StoreUnavailable("Redis does not answer"), "Redis does not answer"),
    (
        ProduceError(failure().to_dict()),
        f"refused: no (context c, {TOPIC})",
    ),
    (
        ProduceTimeout(failure(status="unknown", code="deadline", outcomes=[{}]).to_dict()),
        f"unknown: no (context c, {TOPIC})",
    ),
]


@pytest.mark.parametrize(("error", "words"), EACH)
def test_words(error: StargateError, words: str) -> None:
    """One sentence, with the next step where there is one."""
    assert str(error) == words


@pytest.mark.parametrize("error", [row[0] for row in EACH])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(error: StargateError, protocol: int) -> None:
    """The same class, words and fields: errors cross processes."""
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize("error", [row[0] for row in EACH])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_celerys_result_backends(error: StargateError, serializer: str) -> None:
    """What a worker stores is what `get()` raises: the same class, words and fields."""
    app = make_app(result_serializer=serializer, accept_content=["json", serializer])
    task_id = uuid.uuid4().hex
    app.backend.mark_as_failure(task_id, error)
    with pytest.raises(type(error)) as caught:
        app.AsyncResult(task_id).get(timeout=1)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    fields = vars(caught.value)
    assert {name: fields.get(name) for name in vars(error)} == vars(error)


def test_the_tree() -> None:
    """One root; Celery's own handlers see what is theirs."""
    for name in errors.__all__:
        kind: Any = getattr(errors, name)
        if isinstance(kind, type):
            assert issubclass(kind, StargateError)
            assert kind.__doc__
    assert issubclass(InvalidMessage, ValueError)
    assert issubclass(StoreUnavailable, OperationalError)
    assert issubclass(ProduceTimeout, ProduceError)


def test_the_fields_of_a_produce_error() -> None:
    """From the failure; and without one, what is safe to say."""
    error = ProduceError(failure(status="unknown").to_dict())
    assert (error.context, error.status, error.reason) == ("c", "unknown", "no")
    bare = ProduceError({})
    assert (bare.context, bare.status, bare.reason) == (None, "unknown", "no reason was given")
    assert str(bare) == "unknown: no reason was given (context None, no topic)"


def test_a_produce_error_has_a_failure_of_its_own() -> None:
    """A change of the mapping it was made from does not reach it."""
    given = failure().to_dict()
    error = ProduceError(given)
    given["context"] = "another"
    assert error.context == "c"


def test_unknown_arguments() -> None:
    """Each with what was meant: another word of the same thing, or the nearest."""
    error = unknown_argument("f()", {"timeout": 1, "zzz": 2}, ["delivery_timeout", "topic"])
    assert str(error) == (
        "f() has no argument 'timeout'; here it is 'delivery_timeout', 'zzz'. "
        "Its arguments are delivery_timeout, topic"
    )
    error = unknown_argument("f()", {"topik": 1}, ["topic"])
    assert str(error) == (
        "f() has no argument 'topik'; did you mean 'topic'? Its arguments are topic"
    )


def test_nearest() -> None:
    """The word that was meant, or nothing."""
    assert nearest("topik", ["topic", "token"]) == "; did you mean 'topic'?"
    assert nearest("zzz", ["topic", "token"]) == ""
    assert nearest("", ["topic"]) == ""


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("stargate_ack_timeout", None),
        ("stargate_jwt", None),
        ("stargate_exactly_once", None),
        ("stargate_topik", "stargate_topic"),
        ("stargate_poll", "stargate_poll_interval"),
        ("stargat_topic", "stargate_topic"),
        ("stargate_", None),
    ],
)
def test_nearest_of_names_that_begin_alike(word: str, meant: str | None) -> None:
    """Their beginning makes no two of them close."""
    names = ("topic", "tls_ca", "drain_jitter", "poll_interval")
    found = nearest(word, [f"stargate_{name}" for name in names])
    assert found == (f"; did you mean {meant!r}?" if meant else "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\n", r"'a\n'"),
        (5, "5"),
        pytest.param(10**5000, "<int>", id="int"),
        ([10**5000], "<list>"),
        ("x" * 98, f"'{'x' * 98}'"),
        ("x" * 99, f"'{'x' * 96}..."),
    ],
)
def test_shown(value: object, expected: str) -> None:
    """At most 100 characters, whatever it is."""
    assert shown(value) == expected
    assert len(shown(value)) <= 100
