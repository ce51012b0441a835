"""``numbering.py``: runs without gaps, the producer's query, when the numbers are lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate.model.entry import Entry
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.sequence import (
    Alignment,
    DeduplicationUnavailable,
    leading_run,
    producer_query,
)

TOPIC = Topic.parse("orders")


def entries(*numbers: int) -> list[Entry]:
    """Messages of these numbers."""
    return [Entry(number, f"c{number}", b"{}") for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "after", "run"),
    [
        ([], 0, []),
        ([1, 2, 3], 0, [1, 2, 3]),
        ([2, 3], 0, []),
        ([5, 6, 8, 9], 4, [5, 6]),
        ([5, 7], 4, [5]),
    ],
)
def test_leading_run(numbers: list[int], after: int, run: list[int]) -> None:
    """As far as each number follows the one before it."""
    assert [entry.number for entry in leading_run(entries(*numbers), after)] == run


@given(st.sets(st.integers(1, 40)), st.integers(0, 40))
def test_a_run_has_no_gap_and_ends_only_at_one(numbers: set[int], after: int) -> None:
    """Whatever is missing."""
    ordered = sorted(number for number in numbers if number > after)
    run = [entry.number for entry in leading_run(entries(*ordered), after)]
    assert run == list(range(after + 1, after + 1 + len(run)))
    assert after + 1 + len(run) not in numbers


def test_the_producers_query() -> None:
    """The service counts on from the number before the first."""
    assert producer_query(3, "abc", 18) == {
        "producerName": "stargate-3-abc",
        "initialSequenceId": "17",
        "sendTimeoutMillis": "0",
    }


class TestAlignment:
    """When the numbers are lost, and whether the name can be kept."""

    def test_it_is_kept_while_all_is_stored(self) -> None:
        """In any order."""
        alignment = Alignment()
        for number in (3, 1, 2):
            alignment.stored(number)
        assert not alignment.lost

    def test_what_is_refused_for_good_needs_no_number(self) -> None:
        """The connection is made anew, under the same name."""
        alignment = Alignment()
        alignment.refused("never")
        alignment.stored(9)
        assert alignment.lost
        alignment.unheard(10)
        found = alignment.verdict()
        assert str(found) == "never"
        assert not found.regenerate

    @pytest.mark.parametrize("first", ["the error", "the receipt"])
    def test_a_number_that_another_may_have_taken(self, first: str) -> None:
        """Something behind it was stored."""
        alignment = Alignment()
        if first == "the receipt":
            alignment.stored(5)
        alignment.failed(4, "not now", over=False)
        alignment.stored(5)
        assert alignment.verdict().regenerate

    def test_a_number_that_nobody_has(self) -> None:
        """Nothing behind it was stored: it goes again under the same name."""
        alignment = Alignment()
        alignment.stored(3)
        alignment.failed(5, "not now", over=False)
        alignment.failed(4, "not now", over=False)
        assert alignment.lost
        assert not alignment.verdict().regenerate

    def test_the_lowest_failed_one_counts(self) -> None:
        """What is stored between two that failed has the number of the first, perhaps."""
        alignment = Alignment()
        alignment.failed(4, "not now", over=False)
        alignment.stored(5)
        alignment.failed(6, "not now", over=False)
        assert alignment.verdict().regenerate

    def test_what_nobody_heard_of_may_have_its_number(self) -> None:
        """The link broke before, or the deadline passed; if it was sent behind the failed one."""
        alignment = Alignment()
        alignment.unheard(3)
        alignment.failed(4, "not now", over=False)
        assert not alignment.verdict().regenerate
        alignment.unheard(5)
        alignment.unheard(2)
        assert alignment.verdict().regenerate

    def test_a_producer_that_is_over_stored_nothing_behind(self) -> None:
        """So its name is kept, and what it stored before is known again."""
        alignment = Alignment()
        alignment.failed(4, "closed", over=True)
        alignment.unheard(7)
        assert not alignment.verdict().regenerate

    def test_a_number_was_free_if_a_lower_one_was_stored(self) -> None:
        """Pulsar stores nothing below the highest number that it knows."""
        alignment = Alignment()
        assert not alignment.was_free(4)
        alignment.stored(6)
        alignment.stored(5)
        assert [number for number in range(4, 9) if alignment.was_free(number)] == [6, 7, 8]

    def test_a_false_ok(self) -> None:
        """The name's numbers were used in another time."""
        alignment = Alignment()
        alignment.false_ok(12)
        found = alignment.verdict()
        assert found.regenerate
        assert "12" in str(found)


def test_what_is_unfit_says_what_to_do() -> None:
    """With a word for programs."""
    plain, parts = (
        DeduplicationUnavailable.not_deduplicated(TOPIC),
        DeduplicationUnavailable.partitioned(TOPIC),
    )
    assert (plain.code, parts.code) == ("no-deduplication", "partitioned")
    assert "brokerDeduplicationEnabled=true" in str(plain)
    assert "partitions" in str(parts)
    assert all(str(TOPIC) in str(each) for each in (plain, parts))
