"""The messages in flight of one lane or call: order and matching by label. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from celery_stargate.model.entry import Entry

__all__ = ["LabelInFlight", "Window"]


class LabelInFlight(ValueError):
    """A message cannot be sent yet: the receipt of another with its label may still come."""


class Window:
    """The messages that were read from the lane and have no receipt yet, in the lane's order.

    Receipts are matched by label and never by order: an error found before the broker overtakes
    receipts, and each partition answers in its own order.

    Arguments:
        max_count: how many messages may be in flight.
        max_bytes: how many bytes of frames may be in flight; one message always may.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        # A dict keeps the order of its insertions, and entries are added in the lane's order.
        self._entries: dict[str, Entry] = {}
        self._bytes = 0
        #: Labels and numbers of messages that have their outcome otherwise, while their receipt on
        #: this connection is to come. A later message with the label would get it.
        self._unheard: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Yield what has no receipt, in the lane's order."""
        return iter(list(self._entries.values()))

    def __contains__(self, label: str) -> bool:
        """Whether the receipt of a message with this label may still come."""
        return label in self._entries or label in self._unheard

    @property
    def forgotten(self) -> int:
        """How many messages have their outcome otherwise, while their receipt is to come."""
        return len(self._unheard)

    @property
    def oldest(self) -> int | None:
        """The number of a message that has waited long for its receipt; None if none is to come."""
        first = next(iter(self._entries.values()), None)
        unheard = next(iter(self._unheard.values()), None)
        if first is None or unheard is None:
            return unheard if first is None else first.number
        return min(first.number, unheard)

    @property
    def room(self) -> tuple[int, int]:
        """How many messages, and how many bytes, may be added now.

        (0, 0) where that is less than a quarter of the window: enough is in flight to keep Pulsar
        busy, and a read of the lane for a few messages costs more than sending them.
        """
        count = self._max_count - len(self._entries)
        size = self._max_bytes - self._bytes
        enough = count > 0 and 4 * count >= self._max_count and 4 * size >= self._max_bytes
        return (count, size) if enough else (0, 0)

    def add(self, entry: Entry) -> bool:
        """Add a message; return False if this very message was added on this connection already.

        Raises:
            LabelInFlight: the receipt of another message with its label may still come.
            ValueError: its number is not above the last one's: the lane's order would be lost.
        """
        if entry.label in self._entries or entry.label in self._unheard:
            if entry.number == self._number_of(entry.label):
                return False
            raise LabelInFlight(entry.label)
        if self._entries:
            last = self._entries[next(reversed(self._entries))]
            if entry.number <= last.number:
                raise ValueError(f"entry {entry.number} comes after {last.number}")
        self._entries[entry.label] = entry
        self._bytes += len(entry.frame)
        return True

    def remove(self, label: str) -> Entry | None:
        """Remove and return the message whose receipt came; None if none waits for it."""
        entry = self._entries.pop(label, None)
        if entry is not None:
            self._bytes -= len(entry.frame)
        return entry

    def heard(self, label: str) -> int | None:
        """Return the number of a message that was forgotten, whose receipt came now; else None."""
        return self._unheard.pop(label, None)

    def forget(self, label: str, number: int) -> bool:
        """Stop waiting for the receipt of a message that has its outcome otherwise.

        Arguments:
            label: of the message.
            number: of the message; another one with this label stays.

        Returns:
            Whether it was in flight. Until its receipt comes, or :meth:`clear` is called, no other
            message with its label can be added.
        """
        entry = self._entries.get(label)
        if entry is None or entry.number != number:
            return False
        self.remove(label)
        self._unheard[label] = number
        return True

    def _number_of(self, label: str) -> int:
        """Return the number of the message whose receipt may still come under a label."""
        entry = self._entries.get(label)
        return self._unheard[label] if entry is None else entry.number

    def clear(self) -> None:
        """Forget everything: the connection is over, and no receipt comes any more."""
        self._entries.clear()
        self._unheard.clear()
        self._bytes = 0
