"""Ask the doctor about an app."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from celery import Celery

from celery_stargate.operations.doctor.diagnosis import Diagnosis
from celery_stargate.operations.doctor.finding import Finding, Level
from tests.servers.admin import PulsarAdmin
from tests.servers.fixtures import PulsarAddress

#: Everything that the doctor says of an app, but what is sound, by the name of the check.
Diagnose = Callable[[Celery], dict[str, Finding]]


@pytest.fixture
def diagnose(request: pytest.FixtureRequest) -> Iterator[Diagnose]:
    """Return what is not sound in an app.

    A test that is marked with ``plants`` must have found what it plants, or one of several.
    """
    told: set[str] = set()

    def of(app: Celery) -> dict[str, Finding]:
        findings = list(Diagnosis(app).findings())
        text = repr(findings)
        assert "s3cr3t" not in text, "no password and no token may be told"
        found = {each.check: each for each in findings if each.level is not Level.OK}
        assert all(each.why and each.mend for each in found.values())
        told.update(found)
        return found

    yield of
    for marker in request.node.iter_markers("plants"):
        assert told & set(marker.args), f"doctor did not find {marker.args}"


@pytest.fixture(scope="session")
def admin(pulsar: PulsarAddress) -> PulsarAdmin:
    """The admin API of the broker."""
    return pulsar.admin


@pytest.fixture
def namespace(admin: PulsarAdmin) -> Iterator[str]:
    """A namespace of its own, whose policies may be changed."""
    name = f"public/doctor-{uuid.uuid4().hex[:12]}"
    admin.create_namespace(name)
    admin.call("POST", f"namespaces/{name}/retention", _retention(60, 100))
    yield name
    for topic in admin.topics(name):
        base = topic.partition("-partition-")[0]
        if base == topic:
            admin.delete(topic)
        elif topic.endswith("-partition-0"):
            admin.delete_partitioned(base)
    admin.delete_namespace(name)


def _retention(minutes: int, megabytes: int) -> dict[str, int]:
    return {"retentionTimeInMinutes": minutes, "retentionSizeInMB": megabytes}


@pytest.fixture
def own_topic(admin: PulsarAdmin, namespace: str) -> str:
    """A topic that exists, in that namespace."""
    name = f"persistent://{namespace}/orders"
    admin.create_topic(name)
    return name
