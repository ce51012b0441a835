from celery import chain

from celery_stargate import produce_task
from celery_stargate.testing.pytest_celery import PulsarTestContainer, StargateTestSetup

from .tasks import confirm


def test_an_order_is_confirmed_once_pulsar_has_it(
    celery_setup: StargateTestSetup,
    default_pulsar_container: PulsarTestContainer,
    pulsar_topic: str,
) -> None:
    order = produce_task.s(("order-17", "one lamp"), topic=pulsar_topic)
    result = chain(order, confirm.s()).delay()

    assert result.get(timeout=60) == "Pulsar has the order: stored"
    assert default_pulsar_container.stored(pulsar_topic) == 1
    [message] = default_pulsar_container.read(pulsar_topic, 1)
    assert (message.key, message.payload) == ("order-17", b"one lamp")
