"""The message that an order becomes in the topic ``orders``."""

import json


def order_placed(order):
    return {
        "payload": json.dumps({"id": order.pk, "item": order.item, "quantity": order.quantity}),
        # Messages with the same key stay in order.
        "key": f"order-{order.pk}",
        "properties": {"type": "order-placed"},
    }
