from django.db import models


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new"
        #: Pulsar has stored it.
        PUBLISHED = "published"
        #: Pulsar refused it, or the outcome is unknown; see ``reason``.
        FAILED = "failed"

    item = models.CharField(max_length=200)
    quantity = models.PositiveIntegerField(default=1, blank=True)
    status = models.CharField(max_length=20, choices=Status, default=Status.NEW)
    message_id = models.CharField(max_length=100, blank=True)
    reason = models.TextField(blank=True)

    def __str__(self):
        return f"order {self.pk}: {self.quantity} x {self.item}"

    def to_dict(self):
        return {
            "id": self.pk,
            "item": self.item,
            "quantity": self.quantity,
            "status": self.status,
            "message_id": self.message_id,
            "reason": self.reason,
        }
