"""The admin's drill-down by date, for a table of millions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.db.models import Max, Min
from django.utils import timezone

__all__ = ["DatedChangeList"]


class _Span:
    """Stands for the list's rows where Django asks for their years, months or days.

    Django reads all rows for that. Here only the first and the last one are looked up, by an index;
    each year, month or day between them is a choice, even if it has no rows.

    Arguments:
        rows: the list's rows.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def aggregate(self, **found: Any) -> Any:
        """Do as the rows do."""
        return self._rows.aggregate(**found)

    def datetimes(self, field: str, kind: str) -> list[datetime]:
        """Return the beginning of each year, month or day from the first row to the last one."""
        ends = self._rows.order_by().aggregate(first=Min(field), last=Max(field))
        if ends["first"] is None:
            return []
        return list(_periods(_local(ends["first"]), _local(ends["last"]), kind))


def _periods(first: datetime, last: datetime, kind: str) -> Iterator[datetime]:
    at = first.replace(hour=0, minute=0, second=0, microsecond=0)
    while at <= last:
        yield at
        if kind == "day":
            at += timedelta(days=1)
        else:
            # Into the next month or year, and to its beginning.
            days = 32 - at.day if kind == "month" else 367 - at.timetuple().tm_yday
            at = (at + timedelta(days=days)).replace(day=1)


def _local(moment: datetime) -> datetime:
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment


class DatedChangeList(ChangeList):
    """A list whose template gives ``cl.dated`` to Django's tag ``date_hierarchy``."""

    @property
    def dated(self) -> Any:
        """This list, with the span of its rows in their place."""
        return _Dated(self)


class _Dated:
    """What Django's tag asks of a list.

    Arguments:
        shown: the list.
    """

    def __init__(self, shown: Any) -> None:
        self.queryset = _Span(shown.queryset)
        self.model, self.params = shown.model, shown.params
        self.date_hierarchy = shown.date_hierarchy
        self.get_query_string = shown.get_query_string
