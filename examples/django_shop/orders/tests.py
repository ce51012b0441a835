from celery_stargate.testing import in_memory
from django.test import TestCase

from shop.celery import app

from .models import Order


class OrderTests(TestCase):
    def setUp(self):
        self.pulsar = self.enterContext(in_memory(app))

    def place_order(self, item):
        # A TestCase never commits: this does what a commit would do.
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post("/orders/", {"item": item})
        return Order.objects.get()

    def test_an_order_is_published(self):
        order = self.place_order("lamp")

        event = {"id": order.pk, "item": "lamp", "quantity": 1}
        self.pulsar.assert_produced("orders", payload=event, key=f"order-{order.pk}", count=1)
        self.assertEqual(order.status, Order.Status.PUBLISHED)

    def test_a_refused_order_says_why(self):
        self.pulsar.receipts.fail_next("send-error:8")
        order = self.place_order("lamp")

        self.assertEqual(order.status, Order.Status.FAILED)
        self.assertIn("send-error:8", order.reason)
