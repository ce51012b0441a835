"""The window: order, matching by label, and its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from celery_stargate.model.entry import Entry, label_of
from celery_stargate.pulsar.window import LabelInFlight, Window


def entry(number: int, size: int = 1) -> Entry:
    """Return a message of that number, with a frame of that size."""
    return Entry(number, f"m{number}", b"x" * size)


def test_what_has_no_receipt_is_in_order() -> None:
    """Whatever order the receipts come in."""
    window = Window(10, 100)
    for number in (1, 2, 5, 6):
        assert window.add(entry(number))
    assert window.remove("m5") == entry(5)
    assert window.remove("m1") == entry(1)
    assert [each.number for each in window] == [2, 6]
    assert "m2" in window
    assert "m5" not in window
    assert len(window) == 2


def test_a_second_receipt_matches_nothing() -> None:
    """Nor does one for a label that was never here."""
    window = Window(10, 100)
    window.add(entry(1))
    assert window.remove("m1") is not None
    assert window.remove("m1") is None
    assert window.remove("nobody") is None
    assert window.room == (10, 100)


def test_the_same_message_again_is_not_new() -> None:
    """A lane read twice sends nothing twice."""
    window = Window(10, 100)
    assert window.add(entry(1))
    assert not window.add(entry(1))
    assert window.room == (9, 99)


@pytest.mark.parametrize("number", [4, 5])
def test_an_order_that_would_be_lost(number: int) -> None:
    """Is an error, and changes nothing."""
    window = Window(10, 100)
    window.add(entry(5))
    with pytest.raises(ValueError, match=f"^entry {number} comes after 5$"):
        window.add(Entry(number, "other", b"x"))
    assert [each.number for each in window] == [5]
    assert window.room == (9, 99)


def test_room() -> None:
    """By count and by bytes; full by either is full."""
    window = Window(2, 10)
    assert window.room == (2, 10)
    window.add(entry(1, 4))
    assert window.room == (1, 6)
    window.add(entry(2, 4))
    assert window.room == (0, 0)
    window.remove("m1")
    window.add(entry(3, 50))
    assert window.room == (0, 0)
    window.remove("m2")
    assert window.room == (0, 0)
    window.remove("m3")
    assert window.room == (2, 10)


@pytest.mark.parametrize(("count", "size"), [(8, 1000), (1000, 40)])
def test_room_for_a_few_is_none(count: int, size: int) -> None:
    """Below a quarter of what may be in flight, by count or by bytes."""
    window = Window(count, size)
    for number in range(1, 8):
        window.add(entry(number, 5))
    assert window.room == (0, 0)
    window.remove("m1")
    assert window.room == (count - 6, size - 30)


def test_a_window_of_one() -> None:
    """Has room whenever it is empty."""
    window = Window(1, 1)
    assert window.room == (1, 1)
    window.add(entry(1, 5))
    assert window.room == (0, 0)
    window.remove("m1")
    assert window.room == (1, 1)


def test_the_oldest() -> None:
    """Of those that have no receipt."""
    window = Window(10, 100)
    assert window.oldest is None
    window.add(entry(1))
    window.add(entry(2))
    assert window.oldest == 1
    window.remove("m1")
    assert window.oldest == 2
    assert window.forget("m2", 2)
    assert window.oldest == 2
    window.add(entry(3))
    assert window.oldest == 2
    window.heard("m2")
    assert window.oldest == 3


def test_another_message_with_the_label_waits() -> None:
    """A context that is used again: the receipt of the first must not settle the second."""
    window = Window(10, 100)
    window.add(entry(1))
    second = Entry(2, "m1", b"x")
    with pytest.raises(LabelInFlight):
        window.add(second)
    assert window.forget("m1", 1)
    assert (len(window), "m1" in window) == (0, True)
    with pytest.raises(LabelInFlight):
        window.add(second)
    assert not window.add(entry(1))
    assert window.remove("m1") is None
    assert (window.heard("m1"), window.heard("m1")) == (1, None)
    assert window.add(second)
    assert not window.forget("m1", 1)
    assert list(window) == [second]


def test_a_new_connection_awaits_nothing() -> None:
    """Receipts are lost with their socket."""
    window = Window(10, 100)
    for number in (1, 2):
        window.add(entry(number))
    window.forget("m1", 1)
    window.clear()
    assert (len(window), window.oldest, window.room) == (0, None, (10, 100))
    assert window.add(Entry(3, "m1", b"x"))


def test_iteration_stands_changes() -> None:
    """One may remove what one goes through."""
    window = Window(10, 100)
    for number in (1, 2, 3):
        window.add(entry(number))
    for each in window:
        window.remove(each.label)
    assert len(window) == 0


@given(st.text(min_size=1), st.integers(0, 10**6))
def test_the_context_of_a_label(context: str, place: int) -> None:
    """Of a message alone it is the label; of one in a list its place is taken off, once."""
    assert Entry(1, context, b"").context == context
    assert Entry(1, f"{context}\t{place}", b"", place).context == context
    assert Entry(1, context, b"", place).label == context


@given(st.text(st.characters(exclude_characters="\t"), min_size=1), st.integers(-1, 3))
def test_a_label_is_of_one_message(context: str, place: int) -> None:
    """The place stands in it where the call gave a list, and both are found again."""
    label = label_of(context, place)
    assert (label == context) == (place < 0)
    assert Entry(1, label, b"", place).context == context
    assert label_of(context, place + 1) != label


def test_an_entry_is_what_was_read() -> None:
    """Alone unless it was told its place; and nobody changes it."""
    given = Entry(1, "m", b"x")
    assert given.place == -1
    with pytest.raises(AttributeError):
        given.number = 2  # type: ignore[misc]


class WindowMachine(RuleBasedStateMachine):
    """Add and remove in any order, and compare with a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(5, 50)
        self.model: list[Entry] = []
        self.number = 0

    @precondition(lambda self: self.window.room != (0, 0))
    @rule(size=st.integers(0, 40), gap=st.integers(1, 3))
    def add(self, size: int, gap: int) -> None:
        """A new message, with gaps in the numbers."""
        self.number += gap
        new = entry(self.number, size)
        assert self.window.add(new)
        self.model.append(new)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A message that is here already."""
        assert not self.window.add(data.draw(st.sampled_from(self.model)))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Any of them, as receipts come."""
        gone = data.draw(st.sampled_from(self.model))
        assert self.window.remove(gone.label) == gone
        self.model.remove(gone)

    @invariant()
    def agrees(self) -> None:
        """The same messages, in order; and the room is what is left."""
        assert list(self.window) == self.model
        assert len(self.window) == len(self.model)
        size = 50 - sum(len(each.frame) for each in self.model)
        count = 5 - len(self.model)
        enough = count >= 2 and size >= 12.5
        assert self.window.room == ((count, size) if enough else (0, 0))


TestWindow = WindowMachine.TestCase


def test_what_was_forgotten_is_counted_until_its_receipt_comes() -> None:
    """Meanwhile an error without a context may be about it."""
    window = Window(10, 1000)
    window.add(Entry(1, "a", b"x"))
    window.add(Entry(2, "b", b"x"))
    assert window.forget("a", 1)
    assert (len(window), window.forgotten) == (1, 1)
    assert window.heard("a") == 1
    assert window.forgotten == 0
