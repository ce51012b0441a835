"""Tasks. A callback may run twice, so both of them bear it."""

from celery import shared_task

from shop.celery import stargate

from .models import Order

#: ``publish_order.delay(message)``: surely to the topic ``orders``.
publish_order = stargate.task("orders.publish_order", topic="orders", ignore_result=True)


@shared_task(ignore_result=True)
def mark_published(receipt, order_id):
    """Go on: Pulsar has the order."""
    Order.objects.filter(pk=order_id).update(
        status=Order.Status.PUBLISHED, message_id=receipt["message_id"]
    )


@shared_task(ignore_result=True)
def mark_failed(failure, order_id):
    """Say why Pulsar has not got it."""
    Order.objects.filter(pk=order_id).update(status=Order.Status.FAILED, reason=failure["reason"])
