"""What a caller gets of an outcome."""

from __future__ import annotations

import pytest

from celery_stargate import ProduceError, ProduceTimeout
from celery_stargate.calls.receipts import receipts_of
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import failure, receipt


def test_a_receipt_or_a_list() -> None:
    """As the call was."""
    assert receipts_of(Settled(Record("c"), (receipt(),))) == receipt()
    assert receipts_of(Settled(Record("c", is_list=True), (receipt(),))) == [receipt()]


@pytest.mark.parametrize(
    ("code", "kind"), [("http-404", ProduceError), ("deadline", ProduceTimeout)]
)
def test_an_error(code: str, kind: type[Exception]) -> None:
    """Where a message has no receipt."""
    settled = Settled(Record("c", is_list=True), (receipt(), failure(code=code)))
    with pytest.raises(kind) as caught:
        receipts_of(settled)
    assert type(caught.value) is kind
