"""The admin API: tenants, namespaces, and what is refused."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable

import pytest

from tests.contract.wire import Broker, frame, ids, new_topic, wait_until
from tests.servers.admin import AdminError, topic_path


def refused(call: Callable[[], object]) -> int:
    """The status with which a call is refused."""
    with pytest.raises(AdminError) as caught:
        call()
    return caught.value.status


def test_tenants_and_namespaces(broker: Broker) -> None:
    """Each is made once; a namespace goes when it holds no topic."""
    admin, tenant = broker.admin, f"contract-{uuid.uuid4().hex[:12]}"
    namespace, topic = f"{tenant}/orders", f"persistent://{tenant}/orders/one"
    assert refused(lambda: admin.create_namespace(namespace)) == 404
    admin.create_tenant(tenant)
    settings = {"adminRoles": [], "allowedClusters": ["standalone"]}
    assert refused(lambda: admin.call("PUT", f"tenants/{tenant}", settings)) == 409
    admin.create_namespace(namespace)
    assert refused(lambda: admin.call("PUT", f"namespaces/{namespace}", {})) == 409
    admin.set_backlog_quota(namespace, limit_bytes=1 << 30)
    admin.create_topic(topic)
    assert refused(lambda: admin.delete_namespace(namespace)) == 409
    admin.delete(topic, force=False)
    assert admin.topics(namespace) == []
    admin.delete_namespace(namespace)
    assert refused(lambda: admin.topics(namespace)) == 404
    assert refused(lambda: admin.delete_namespace(namespace)) == 404


def test_a_topic_decides_on_deduplication_itself(broker: Broker) -> None:
    """Its policy comes before the namespace's and the broker's."""
    topic = new_topic()
    query = {"producerName": "lane", "initialSequenceId": -1}

    def has(status: str) -> bool:
        return bool(broker.admin.stats(topic)["deduplicationStatus"] == status)

    with broker.producer(topic, **query) as producer:
        ids(producer.ask(frame(b"one")))
        assert has("Enabled")
        broker.admin.set_topic_deduplication(topic, False)
        wait_until(lambda: has("Disabled"), "deduplication is off")


def test_an_empty_topic_has_no_last_message(broker: Broker) -> None:
    """The entry is -1."""
    topic = new_topic()
    broker.admin.create_topic(topic)
    assert broker.admin.last_message_id(topic)["entryId"] == -1


def test_a_subscription_is_made_once(broker: Broker) -> None:
    """The second time is a conflict."""
    topic = new_topic()
    broker.admin.create_topic(topic)
    broker.admin.create_subscription(topic, "s")
    assert refused(lambda: broker.admin.create_subscription(topic, "s")) == 409


def test_a_partitioned_topic(broker: Broker) -> None:
    """Is no single topic for these calls; it goes with all its partitions."""
    topic, admin = new_topic(), broker.admin
    admin.create_partitioned_topic(topic, 2)
    assert refused(lambda: admin.terminate(topic)) == 405
    for call in (admin.last_message_id, admin.stats, admin.internal_stats):
        assert refused(functools.partial(call, topic)) == 404
    admin.delete_partitioned(topic, force=False)
    assert refused(lambda: admin.partitions(topic)) == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing", 404),
        (f"{topic_path('persistent://public/default/contract')}/nothing", 404),
        ("namespaces/public/default/nothing", 405),
    ],
)
def test_a_call_that_does_not_exist(broker: Broker, path: str, status: int) -> None:
    """Is refused."""
    assert refused(lambda: broker.admin.call("PUT", path)) == status
