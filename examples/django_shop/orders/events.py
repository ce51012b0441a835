"""What an order is to the rest of the company: a message in the topic ``orders``."""

import json


def order_placed(order):
    return {
        "payload": json.dumps({"id": order.pk, "item": order.item, "quantity": order.quantity}),
        # Messages with the same key keep their order.
        "key": f"order-{order.pk}",
        "properties": {"type": "order-placed"},
    }
