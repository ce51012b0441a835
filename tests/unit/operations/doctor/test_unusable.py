"""A part that fails itself is one finding of ``doctor``; all others are asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from celery_stargate import Stargate
from celery_stargate.operations.doctor import diagnosis, service
from celery_stargate.operations.doctor.celery_checks import CELERY_CHECKS, gather_celery
from celery_stargate.operations.doctor.diagnosis import Diagnosis
from celery_stargate.operations.doctor.finding import (
    Check,
    Finding,
    Findings,
    Level,
    Problem,
    error,
    examine,
    within,
)
from celery_stargate.operations.doctor.peers import PeerSettings, gather_peers
from celery_stargate.pulsar.endpoint import Endpoint
from tests.unit.helpers import make_app

#: It holds a password, which no text may show a part of.
_AT = "user:s3cr3t@host"


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to nothing where the broker can be used."""
    monkeypatch.setattr(
        "celery_stargate.operations.doctor.celery_checks._problem", lambda question: None
    )


@pytest.mark.parametrize(
    ("check", "conf", "told"),
    [
        ("broker", {"broker_url": f"foo://{_AT}"}, "KeyError: No such transport: foo"),
        ("broker", {"broker_url": f"redis://{_AT}:bad"}, "ValueError: Port could not be cast to"),
        ("broker", {"broker_url": f"amqp://{_AT}:99999"}, "ValueError: Port out of range 0-65535"),
        ("broker", {"broker_url": "redis://user:s3cr3t#x@host"}, "ValueError: Port could not be"),
        (
            "broker",
            {
                "broker_url": f"redis://{_AT}",
                "broker_transport_options": {"visibility_timeout": "s3cr3t"},
            },
            "ValueError: could not convert string to float",
        ),
        ("result-backend", {"result_backend": f"foo://{_AT}"}, "No module named 'foo'"),
        ("result-backend", {"result_backend": f"redis://{_AT}:bad"}, "ValueError: Port could not"),
        ("result-backend", {"result_backend": f"rediss://{_AT}"}, "must have parameter ssl_cert_r"),
        ("result-backend", {"result_backend": "redis:s3cr3t@h:1"}, "ModuleNotFoundError"),
        ("result-backend", {"result_backend": "redis:s3cr3t@h"}, "AttributeError"),
        ("result-backend", {"result_serializer": "nope"}, "KeyError: nope"),
    ],
)
def test_celery_cannot_use_a_setting(check: str, conf: dict[str, Any], told: str) -> None:
    """It is an error of that check, without a part of a password, and the others are judged."""
    facts = gather_celery(make_app(**conf), via="lane", delivery_timeout=60.0)
    findings = list(examine(CELERY_CHECKS, facts))
    assert [each.check for each in findings] == [each.name for each in CELERY_CHECKS]
    [found] = [each for each in findings if each.level is Level.ERROR]
    assert found.check == check
    assert "Celery cannot use its" in found.found
    assert told in found.found
    assert not any(part in repr(findings) for part in ("s3c", "r3t"))


def test_a_broker_that_celery_cannot_use_asks_no_worker() -> None:
    """Its error is told by the check of the broker."""
    assert not gather_peers(make_app(broker_url="foo://"), PeerSettings()).asked


def test_the_name_of_a_host_that_cannot_be_one() -> None:
    """The resolver raises no OSError then."""
    facts = service.gather_service(Endpoint(f"ws://{'a' * 64}.example:8080"))
    assert facts.connection_problem == "the host's name cannot be one"


def test_a_check_that_raises() -> None:
    """It is an error under its name; what it found before stays, and the next check runs."""

    def judge(facts: object) -> Iterator[Problem]:
        yield error("a", "b", "c")
        raise KeyError("s3cr3t")

    def sound(facts: object) -> Iterable[Problem]:
        return ()

    first, failed, last = examine([Check("x", "", judge), Check("y", "sound", sound)], None)
    assert (first.found, last.found) == ("a", "sound")
    assert (failed.check, failed.level) == ("x", Level.ERROR)
    assert failed.found.startswith("the check failed itself: KeyError at ")
    assert "s3cr3t" not in failed.found
    assert failed.why
    assert failed.mend


def test_what_a_caller_has_a_finding_for_is_raised() -> None:
    """Such as that Redis does not answer."""

    def findings() -> Findings:
        yield Finding("x", Level.OK, "")
        raise OSError("away")

    assert len(list(within("x", findings()))) == 2
    with pytest.raises(OSError, match="away"):
        list(within("x", findings(), but=(OSError,)))


def test_parts_that_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an error under the name of the part, and the parts behind it are asked."""

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("s3cr3t")

    for name in ("gather_celery", "gather_topic", "servers_of"):
        monkeypatch.setattr(diagnosis, name, fail)
    monkeypatch.setattr(diagnosis, "AdminApi", lambda endpoint: None)
    monkeypatch.setattr(service, "_reach", lambda *_: {})
    app = make_app(stargate_topics={"a": "orders", "b": "bills"})
    Stargate(app)
    errors = [each for each in Diagnosis(app).findings() if each.level is Level.ERROR]
    assert [each.check for each in errors] == ["celery", "redis", "topics", "topics"]
    assert errors[2].found.startswith("persistent://public/default/orders: the check failed itself")
    assert "s3cr3t" not in repr(errors)
