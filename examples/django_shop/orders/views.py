from functools import partial

from celery_stargate import ProduceError, StoreUnavailable
from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from shop.celery import stargate

from .events import order_placed
from .forms import OrderForm
from .models import Order
from .tasks import mark_failed, mark_published, publish_order


@require_POST
def orders(request):
    """Take an order and answer at once; the receipt triggers what comes next."""
    form = OrderForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    try:
        with transaction.atomic():
            order = form.save()
            # After the commit, because the callback may run before this view returns.
            transaction.on_commit(partial(publish, order))
    except StoreUnavailable:
        # The order stays new and can be published later.
        return JsonResponse(order.to_dict(), status=503)
    location = reverse("order", args=[order.pk])
    return JsonResponse(order.to_dict(), status=202, headers={"Location": location})


def publish(order):
    publish_order.delay(
        order_placed(order),
        on_ack=mark_published.s(order.pk),
        on_error=mark_failed.s(order.pk),
    )


@require_GET
def order(request, order_id):
    """Show an order and its status."""
    return JsonResponse(get_object_or_404(Order, pk=order_id).to_dict())


@require_POST
async def order_and_wait(request):
    """Take an order and answer when Pulsar has it, without blocking other requests."""
    form = OrderForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    order = form.save(commit=False)
    await order.asave()
    try:
        receipt = await stargate.aproduce(order_placed(order), topic="orders", timeout=10)
    except StoreUnavailable:
        return JsonResponse(order.to_dict(), status=503)
    except ProduceError as error:
        order.status, order.reason = Order.Status.FAILED, error.reason
    else:
        order.status, order.message_id = Order.Status.PUBLISHED, receipt.message_id
    await order.asave()
    published = order.status == Order.Status.PUBLISHED
    return JsonResponse(order.to_dict(), status=201 if published else 502)
