"""Callbacks of the shop."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from django.db import transaction
from django.db.models import F

from celery_stargate.contrib.django.inbox import idempotent
from tests.django_project.shop.models import Order


@shared_task(name="shop.mark_published", ignore_result=True)
@transaction.atomic
@idempotent("mark-published")
def mark_published(receipt: Any, order: int) -> None:
    """Count how often it had its effect."""
    Order.objects.filter(pk=order).update(published=F("published") + 1)


@shared_task(name="shop.mark_failed", ignore_result=True)
def mark_failed(failure: Any, order: int) -> None:
    Order.objects.filter(pk=order).update(reason=failure["reason"])
