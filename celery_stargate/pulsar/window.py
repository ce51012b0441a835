"""The messages in flight of one lane or call: order and matching by label. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from celery_stargate.model.entry import Entry

__all__ = ["Window"]


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

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Yield what has no receipt, in the lane's order."""
        return iter(list(self._entries.values()))

    def __contains__(self, label: str) -> bool:
        return label in self._entries

    @property
    def oldest(self) -> str | None:
        """The label of the message that has waited longest; None if none is in flight."""
        return next(iter(self._entries), None)

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
        """Add a message; return False if its label is in flight already.

        Raises:
            ValueError: its number is not above the last one's: the lane's order would be lost.
        """
        if entry.label in self._entries:
            return False
        if self._entries:
            last = self._entries[next(reversed(self._entries))]
            if entry.number <= last.number:
                raise ValueError(f"entry {entry.number} comes after {last.number}")
        self._entries[entry.label] = entry
        self._bytes += len(entry.frame)
        return True

    def remove(self, label: str) -> Entry | None:
        """Remove and return a message that has its outcome; None if it is not in flight."""
        entry = self._entries.pop(label, None)
        if entry is not None:
            self._bytes -= len(entry.frame)
        return entry
