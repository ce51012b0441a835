from shop import place_order


def test_a_worker_publishes_the_order(stargate_worker, stargate_pulsar):
    result = place_order(20, "lamp")

    assert result.get(timeout=10)["status"] == "stored"
    stargate_pulsar.assert_produced("orders", payload={"item": "lamp"}, key="order-20")


def test_a_broken_connection(stargate_worker, stargate_pulsar):
    stargate_pulsar.faults.close_after_frames(1, code=1011)
    result = place_order(21, "lamp")

    assert result.get(timeout=10)["status"] == "stored"
