"""What follows the receipt. A callback may run twice; its effect happens once."""

from celery import shared_task
from celery_stargate.contrib.django.inbox import idempotent
from django.db import transaction

from .models import Order


@shared_task(ignore_result=True)
@transaction.atomic
@idempotent("orders.mark_published")
def mark_published(receipt, order_id):
    """Record that Pulsar has the order."""
    Order.objects.filter(pk=order_id).update(
        status=Order.Status.PUBLISHED, message_id=receipt["message_id"]
    )


@shared_task(ignore_result=True)
@transaction.atomic
@idempotent("orders.mark_failed")
def mark_failed(failure, order_id):
    """Record why Pulsar does not have the order."""
    Order.objects.filter(pk=order_id).update(status=Order.Status.FAILED, reason=failure["reason"])
