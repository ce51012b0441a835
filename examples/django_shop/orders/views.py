from celery_stargate import ProduceError, StoreUnavailable
from celery_stargate.contrib.django import outbox
from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from shop.celery import stargate

from .events import order_placed
from .forms import OrderForm
from .models import Order
from .tasks import mark_failed, mark_published


def place_order(form):
    """Store an order and its event together: both are there, or neither."""
    with transaction.atomic():
        order = form.save()
        outbox.produce(
            order_placed(order),
            topic="orders",
            on_ack=mark_published.s(order.pk),
            on_error=mark_failed.s(order.pk),
        )
    return order


@require_http_methods(["GET", "POST"])
def shop(request):
    """The shop's page: a form, and the latest orders with their status."""
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        place_order(form)
        return redirect("shop")
    return render(
        request, "orders/shop.html", {"form": form, "orders": Order.objects.order_by("-pk")[:20]}
    )


# The views below are for programs, without cookies, so there is nothing for CSRF to guard.


@csrf_exempt
@require_POST
def orders(request):
    """Take an order and answer at once; the receipt triggers what comes next."""
    form = OrderForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    order = place_order(form)
    location = reverse("order", args=[order.pk])
    return JsonResponse(order.to_dict(), status=202, headers={"Location": location})


@require_GET
def order(request, order_id):
    """Show an order and its status."""
    return JsonResponse(get_object_or_404(Order, pk=order_id).to_dict())


@csrf_exempt
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
