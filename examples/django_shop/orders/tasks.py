"""The produce task and its callbacks; a callback may run twice, so both are idempotent."""

from celery import shared_task

from shop.celery import stargate

from .models import Order

#: ``publish_order.delay(message)`` publishes to the topic ``orders``.
publish_order = stargate.task("orders.publish_order", topic="orders", ignore_result=True)


@shared_task(ignore_result=True)
def mark_published(receipt, order_id):
    """Record that Pulsar has the order."""
    Order.objects.filter(pk=order_id).update(
        status=Order.Status.PUBLISHED, message_id=receipt["message_id"]
    )


@shared_task(ignore_result=True)
def mark_failed(failure, order_id):
    """Record why Pulsar does not have the order."""
    Order.objects.filter(pk=order_id).update(status=Order.Status.FAILED, reason=failure["reason"])
