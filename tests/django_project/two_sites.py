"""URLs of a project with an admin of its own beside Django's, for people who may only operate."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from celery_stargate.contrib.django.admin import (
    DeadLetterAdmin,
    FailedMessageAdmin,
    OutboxMessageAdmin,
)
from celery_stargate.contrib.django.models import DeadLetter, FailedMessage, OutboxMessage

operators = admin.AdminSite(name="operators")
operators.register(OutboxMessage, OutboxMessageAdmin)
operators.register(FailedMessage, FailedMessageAdmin)
operators.register(DeadLetter, DeadLetterAdmin)

#: It shows what failed, and not all messages: links to those lead nowhere.
failures = admin.AdminSite(name="failures")
failures.register(FailedMessage, FailedMessageAdmin)
failures.register(DeadLetter, DeadLetterAdmin)

urlpatterns = [
    path("failures/", failures.urls),
    path("operators/", operators.urls),
    path("admin/", admin.site.urls),
]
