"""Pages of a long list, of which only a bounded number of rows is counted."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator

__all__ = ["BoundedPaginator"]


class BoundedPaginator(Paginator):
    """A paginator for a table of millions: to count them all would read all of it.

    It has pages for the first :attr:`most` rows; filters and the search find the others.
    """

    #: The most rows that it counts.
    most = 10_000

    @cached_property
    def count(self) -> int:
        """How many rows it has pages for."""
        return min(self._seen, self.most)

    @property
    def has_more(self) -> bool:
        """Whether there are more rows than it counts."""
        return self._seen > self.most

    @cached_property
    def _seen(self) -> int:
        rows: Any = self.object_list
        # Without an order, so that the database may stop at the limit.
        return int(rows.order_by().values("pk")[: self.most + 1].count())
