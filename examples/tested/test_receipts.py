import pytest
from celery_stargate import ProduceError

from shop import orders, place_order


def test_an_order_is_new_until_the_receipt(stargate_eager, stargate_receipts):
    stargate_receipts.hold()
    place_order(18, "lamp")
    stargate_eager.assert_produced("orders", key="order-18", count=1)
    assert orders[18] == "new"

    stargate_receipts.release()
    assert orders[18] == "published"


def test_a_refused_order(stargate_eager, stargate_receipts):
    stargate_receipts.fail_next("send-error:8")
    with pytest.raises(ProduceError):
        place_order(19, "lamp")

    stargate_eager.assert_produced("orders", key="order-19", count=0)
    assert orders[19] == "refused"
