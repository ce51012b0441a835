"""A broker that is killed, and comes back."""

from __future__ import annotations

from tests.contract.wire import Broker, frame, ids, new_topic, wait_until


def test_killed_and_started_again(guarded: Broker) -> None:
    """The socket goes without a close frame; names are free again; messages and numbers are
    kept, so that a replay stores nothing twice."""
    assert guarded.server is not None
    topic = new_topic()
    query: dict[str, object] = {
        "producerName": "lane",
        "initialSequenceId": -1,
        "sendTimeoutMillis": 0,
    }
    frames = [frame(b"%d" % n, context=str(n)) for n in range(100)]
    with guarded.producer(topic, guarded.token, **query) as producer:
        first = ids(producer.ask(*frames[:50]))
        guarded.server.kill()
        try:
            assert producer.closed_with() is None
        finally:
            # Other tests use it, too.
            guarded.server.start()
    with guarded.producer(topic, guarded.token, **query) as producer:
        second = ids(producer.ask(*frames))
    assert {found.ledger for found in second[:50]} == {-1}
    assert -1 not in {found.ledger for found in second[50:]}
    wait_until(lambda: guarded.admin.stats(topic)["publishers"] == [], "the end of the producer")
    assert first == sorted(first)
