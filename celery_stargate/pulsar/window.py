"""What of one lane is in flight: order, matching by context, replay. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from celery_stargate.model.entry import Entry

__all__ = ["Window"]


class Window:
    """The messages that were read from the lane and have no receipt yet, in the lane's order.

    Receipts are matched by label and never by order: errors found before sending overtake, and
    partitions answer for themselves.

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
        """Yield what has no receipt, in the lane's order: what a new connection sends first."""
        return iter(list(self._entries.values()))

    def __contains__(self, label: str) -> bool:
        return label in self._entries

    @property
    def oldest(self) -> str | None:
        """The label of the message that has waited longest; None where none waits."""
        return next(iter(self._entries), None)

    @property
    def room(self) -> tuple[int, int]:
        """How many messages, and how many bytes, may be added now.

        (0, 0) where that is less than a quarter of all: what is in flight lasts meanwhile, and to
        look into the lane for each few would cost more than to send them.
        """
        count = self._max_count - len(self._entries)
        size = self._max_bytes - self._bytes
        enough = count > 0 and 4 * count >= self._max_count and 4 * size >= self._max_bytes
        return (count, size) if enough else (0, 0)

    def add(self, entry: Entry) -> bool:
        """Take a message in; return whether it is new here.

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
        """Take a message out, because it has its outcome; None where it is not in flight."""
        entry = self._entries.pop(label, None)
        if entry is not None:
            self._bytes -= len(entry.frame)
        return entry
