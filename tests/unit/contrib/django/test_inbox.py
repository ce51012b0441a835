"""`@idempotent`: an effect once, though its task runs more than once."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from django.db import IntegrityError, transaction
from django.db.transaction import TransactionManagementError

from celery_stargate.contrib.django.inbox import idempotent
from celery_stargate.contrib.django.models import InboxClaim
from tests.django_project.shop.models import Order

pytestmark = pytest.mark.usefixtures("using")


@transaction.atomic
@idempotent("mark")
def mark(receipt: Any, item: str, *, fail: bool = False) -> str:
    Order.objects.create(item=item)
    if fail:
        raise ZeroDivisionError
    return item


def test_a_repeat_does_nothing() -> None:
    assert mark({"context": "a"}, "one") == "one"
    assert mark({"context": "a"}, "one") is None
    assert mark({"context": "b"}, "two") == "two"
    assert sorted(Order.objects.values_list("item", flat=True)) == ["one", "two"]


def test_a_run_that_failed_is_done_again() -> None:
    """The claim is rolled back with the effect."""
    with pytest.raises(ZeroDivisionError):
        mark({"context": "a"}, "one", fail=True)
    assert not InboxClaim.objects.exists()
    assert mark({"context": "a"}, "one") == "one"
    assert Order.objects.count() == 1


def test_an_effect_that_raises_leaves_no_claim_in_a_transaction_that_goes_on() -> None:
    """As in a task that does many, and skips those that fail; the error stays what it is."""
    with transaction.atomic():
        with pytest.raises(ZeroDivisionError):
            mark({"context": "a"}, "one", fail=True)
        assert mark({"context": "b"}, "two") == "two"
    assert InboxClaim.objects.count() == 1
    assert mark({"context": "a"}, "one") == "one"

    @transaction.atomic
    @idempotent("twice")
    def twice(receipt: Any) -> None:
        InboxClaim.objects.create(digest="d", name="x", message="y")
        InboxClaim.objects.create(digest="d", name="x", message="y")

    with pytest.raises(IntegrityError):
        twice({"context": "a"})


def test_an_effect_that_would_come_later_is_refused() -> None:
    """Its claim would stand without it."""

    async def coroutine(receipt: Any) -> None: ...

    def generator(receipt: Any) -> Any:
        yield receipt

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match="after its claim, and outside its transaction"):
            idempotent("later")(function)
    with pytest.raises(ValueError, match="no line break"):
        idempotent("a\nb")


def test_two_effects_of_one_message_have_two_names() -> None:
    other = transaction.atomic(idempotent("other")(lambda receipt: "done"))
    assert mark({"context": "a"}, "one") == "one"
    assert other({"context": "a"}) == "done"


def test_outside_a_transaction_it_is_refused() -> None:
    """There the claim would stand without its effect."""
    bare = idempotent("bare")(lambda receipt: "done")
    with pytest.raises(TransactionManagementError, match="transaction.atomic"):
        bare({"context": "a"})


@pytest.mark.parametrize(
    ("given", "claimed"),
    [
        ([{"context": "a"}, {"context": "b"}], "a"),
        ({"message_id": "CAE="}, "CAE="),
        ({"context": None, "message_id": "CAE="}, "CAE="),
    ],
)
def test_what_is_claimed(given: Any, claimed: str) -> None:
    """Of a list of receipts the first one's context; of a consumed message its id."""
    mark(given, "one")
    assert InboxClaim.objects.get().message == claimed


def test_an_id_of_ones_own() -> None:
    own = transaction.atomic(
        idempotent("own", message_id=lambda order, **_: f"order-{order}")(lambda order: "done")
    )
    assert own(7) == "done"
    assert own(7) is None
    assert InboxClaim.objects.get().message == "order-7"


@pytest.mark.parametrize("context", ["c" * 512, "a\x00b", "a\ud800b"])
def test_any_context_can_be_claimed(context: str) -> None:
    """It may be longer than the column, and hold what a database does not store."""
    assert mark({"context": context}, "one") == "one"
    assert mark({"context": context}, "one") is None
    assert mark({"context": f"{context}2"}, "two") == "two"


@pytest.mark.parametrize("found", ["", 7, None])
def test_what_cannot_be_claimed(found: Any) -> None:
    bare = transaction.atomic(idempotent("bare", message_id=lambda _: found)(lambda order: "done"))
    with pytest.raises(ValueError, match="a text that is not empty"):
        bare(7)


def test_a_task_without_a_receipt_claims_its_own_id() -> None:
    app = Celery("shop", set_as_current=False, broker="memory://")

    @app.task(bind=True)
    @transaction.atomic
    @idempotent("task")
    def task(self: Any, number: int) -> int:
        return number

    assert task.apply((3,), task_id="the-task").result == 3
    assert InboxClaim.objects.get().message == "the-task"
    assert task.apply((3,), task_id="the-task").result is None


def test_without_an_id_it_says_what_to_do() -> None:
    bare = transaction.atomic(idempotent("bare")(lambda number: "done"))
    with pytest.raises(ValueError, match="message_id=function"):
        bare(3)
    with pytest.raises(ValueError, match="1 to 100"):
        idempotent("x" * 101)
