"""An order, and what its callbacks did."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    item = models.CharField(max_length=100)
    published = models.IntegerField(default=0)
    reason = models.TextField(default="", blank=True)

    def __str__(self) -> str:
        return f"order {self.pk}"
