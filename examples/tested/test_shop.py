from shop import orders, place_order


def test_an_order_is_published(stargate_eager):
    place_order(17, "lamp")

    stargate_eager.assert_produced("orders", payload={"item": "lamp"}, key="order-17")
    assert orders[17] == "published"
