"""The admin of the outbox: rows, dead letters, and the lanes in Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import router
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.module_loading import import_string
from django.utils.timesince import timesince

from celery_stargate.contrib.django.apps import APP_LABEL
from celery_stargate.contrib.django.dates import DatedChangeList
from celery_stargate.contrib.django.dead_admin import DeadLetterAdmin
from celery_stargate.contrib.django.lanes_admin import LanesPages
from celery_stargate.contrib.django.models import FailedMessage, OutboxMessage
from celery_stargate.contrib.django.operations import discard, outbox_stats, replay, requeue
from celery_stargate.contrib.django.pages import page_url, show_page
from celery_stargate.contrib.django.paging import BoundedPaginator
from celery_stargate.contrib.django.rows import outbox_rows
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.states import FAILED, State
from celery_stargate.contrib.django.topics import topic_names

__all__ = ["DeadLetterAdmin", "FailedMessageAdmin", "OutboxMessageAdmin", "TopicFilter"]

#: How many rows an action does at most; for more there are the commands. The form that asks has a
#: field for each, and Django accepts 1,000 fields.
_MOST = 900
_SHORT = 40
#: Columns whose values the admin does not show. A list that could be filtered by them would tell.
_HIDDEN = ("payload", "attributes", "on_ack", "on_error")


class TopicFilter(admin.SimpleListFilter):
    """Topics of the settings: to ask the table which there are would read all of it."""

    title = "topic"
    parameter_name = "topic"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the topics by their names in the settings."""
        return sorted(topic_names().items(), key=lambda each: each[1])

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the rows of the chosen topic."""
        return queryset if self.value() is None else queryset.filter(topic=self.value())


class _MessageList(DatedChangeList):
    """The list. It does not read what it does not show; the page of a row has all of it at once:
    what Django reads later, it asks of the database that the router names for reading."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the rows that match."""
        return super().get_queryset(request, *args, **kwargs).defer(*_HIDDEN, "history")


class _MessageAdmin(admin.ModelAdmin):
    """Rows, read-only but for the actions. It never counts the whole table.

    It has more methods than a class should: Django finds columns, actions and permissions by name.
    """

    #: The database; None for the router's choice. Set it in a subclass for another one.
    using: str | None = None

    change_list_template = "admin/celery_stargate/message_list.html"
    list_display = ("short_context", "state", "short_topic", "key", "age", "why", "attempts")
    list_filter: ClassVar[list[Any]] = ["state", TopicFilter]
    date_hierarchy = "created_at"
    # What is searched for, get_search_results decides: a context or a key, whole.
    search_fields = ("=key",)
    search_help_text = "A context or a key, whole."
    show_full_result_count = False
    paginator = BoundedPaginator
    list_per_page = 50
    ordering = ("-pk",)
    actions: ClassVar[list[str]] = ["replay_messages", "requeue_messages", "discard_messages"]
    fieldsets = (
        (None, {"fields": ("context", "state", "topic", "key", "reason", "code")}),
        ("Message", {"fields": ("shown_payload", "shown_attributes", "callbacks")}),
        (
            "Progress",
            {
                "fields": (
                    "created_at",
                    "recorded_at",
                    "closed_at",
                    "lane",
                    "message_id",
                    "attempts",
                    "earlier_attempts",
                )
            },
        ),
    )
    readonly_fields = (
        "context",
        "shown_payload",
        "shown_attributes",
        "callbacks",
        "attempts",
        "earlier_attempts",
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows of this admin's database."""
        return super().get_queryset(request).using(self._alias)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse to filter by what is hidden; the rest is Django's choice."""
        if lookup.partition("__")[0] in _HIDDEN:
            return False
        return bool(super().lookup_allowed(lookup, value, request))

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Search for a context or a key by the indexes of either."""
        term = search_term.strip()
        if not search_term:
            return queryset, False
        # A key may have space around it, and may look like a context.
        found = Q(key__in={search_term, term})
        with suppress(ValueError):
            # Of any attempt, and as a database writes it.
            found |= Q(uuid=UUID(term.partition(".")[0]))
        return queryset.filter(found), False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the list whose dates are cheap."""
        return _MessageList

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: rows are written by outbox.produce."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a message stays what it was; the actions do the rest."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: discard a row, and let the clean-up delete it."""
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Whether the user may replay."""
        return _may(request, "replay")

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Whether the user may requeue."""
        return _may(request, "requeue")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Whether the user may discard."""
        return _may(request, "discard")

    @admin.action(description="Replay stored messages (a second copy)", permissions=["replay"])
    def replay_messages(self, request: HttpRequest, queryset: Any) -> Any:
        """Send stored rows once more."""
        return self._confirmed(request, queryset, "replay", replay, [State.STORED])

    @admin.action(description="Requeue failed messages", permissions=["requeue"])
    def requeue_messages(self, request: HttpRequest, queryset: Any) -> Any:
        """Send failed and discarded rows again."""
        return self._confirmed(request, queryset, "requeue", requeue, [*FAILED, State.DISCARDED])

    @admin.action(description="Discard failed messages", permissions=["discard"])
    def discard_messages(self, request: HttpRequest, queryset: Any) -> Any:
        """Give up failed rows."""
        return self._confirmed(request, queryset, "discard", discard, FAILED)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show the list below the figures that matter."""
        stats = outbox_stats(self._alias, closed=False)
        context = {"stats": stats, "lanes_url": page_url(self.admin_site, "lanes")}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @admin.display(description="context", ordering="pk")
    def short_context(self, row: Any) -> str:
        """The beginning of the context."""
        return f"{str(row.uuid)[:8]}…{'' if row.attempt == 1 else f'.{row.attempt}'}"

    @admin.display(description="topic", ordering="topic")
    def short_topic(self, row: Any) -> Any:
        """The topic's name in the settings, or its own, with the full one behind it."""
        name = topic_names().get(row.topic) or row.topic.rpartition("/")[2]
        return format_html('<span title="{}">{}</span>', row.topic, name)

    @admin.display(description="age", ordering="created_at")
    def age(self, row: Any) -> Any:
        """How old the row is; an open one's age is what to watch."""
        return format_html(
            '<span title="{}">{}</span>',
            row.created_at.isoformat(timespec="seconds"),
            timesince(row.created_at, timezone.now(), depth=1),
        )

    @admin.display(description="attempts")
    def attempts(self, row: Any) -> str:
        """Attempts, and failed hand-overs of the present one."""
        return f"{row.attempt}{f' ({row.tries} tries)' if row.tries else ''}"

    @admin.display(description="reason")
    def why(self, row: Any) -> Any:
        """The beginning of the reason, with the whole one behind it."""
        short = row.reason if len(row.reason) <= _SHORT else f"{row.reason[: _SHORT - 1]}…"
        if not short:
            return "-"
        # A class name of Java's would push the other columns out of sight.
        shape = "display: inline-block; min-width: 8rem; overflow-wrap: anywhere"
        return format_html('<span title="{}" style="{}">{}</span>', row.reason, shape, short)

    @admin.display(description="payload")
    def shown_payload(self, row: Any) -> str:
        """What the project's mask shows of it; by default its size."""
        mask = OutboxSettings.read().mask
        if mask is None:
            return f"Hidden ({len(bytes(row.payload))} B); {_MASK_HINT}"
        return str(import_string(mask)(row))

    @admin.display(description="attributes")
    def shown_attributes(self, row: Any) -> str:
        """The names of properties, and the times: the values of properties may be secret."""
        attributes = dict(row.attributes or {})
        if "properties" in attributes:
            attributes["properties"] = sorted(attributes["properties"])
        return json.dumps(attributes, ensure_ascii=False) if attributes else "-"

    @admin.display(description="callbacks")
    def callbacks(self, row: Any) -> str:
        """The tasks' names; their arguments may be secret."""
        named = [
            f"{option}: {json.loads(packed).get('task')}"
            for option, packed in (("on_ack", row.on_ack), ("on_error", row.on_error))
            if packed
        ]
        return ", ".join(named) or "-"

    @admin.display(description="earlier attempts")
    def earlier_attempts(self, row: Any) -> Any:
        """What became of earlier attempts."""
        return (
            format_html_join(
                "",
                "<div>{}. {} {} {}</div>",
                (
                    (each["attempt"], each["state"], each["closed_at"] or "", each["reason"])
                    for each in row.history or []
                ),
            )
            or "-"
        )

    @property
    def _alias(self) -> str:
        return self.using or str(router.db_for_write(self.model))

    def _confirmed(
        self,
        request: HttpRequest,
        queryset: Any,
        verb: str,
        do: Callable[[Any], int],
        states: Iterable[State],
    ) -> Any:
        """Ask first; then do it, and log it for each row."""
        allowed = list(states)
        rows = outbox_rows(self._alias).filter(state__in=allowed)
        # What cannot be done is left out before it is counted: it must not hide what can.
        meant = queryset.filter(state__in=allowed).values_list("pk", flat=True)[: _MOST + 1]
        chosen = list(rows.filter(pk__in=list(meant)).defer("payload").order_by("pk"))
        if len(chosen) > _MOST:
            self.message_user(
                request, f"That is more than {_MOST} messages; use the command.", messages.ERROR
            )
            return None
        if not chosen:
            named = ", ".join(allowed)
            self.message_user(
                request,
                f"There is nothing to {verb}: only {named} messages can be.",
                messages.WARNING,
            )
            return None
        if request.POST.get("confirmed") != "yes":
            return self._ask(request, verb, chosen)
        done = do(rows.filter(pk__in=[row.pk for row in chosen]))
        LogEntry.objects.log_actions(
            request.user.pk, chosen, CHANGE, change_message=f"{verb} (stargate outbox)"
        )
        self.message_user(request, f"{verb.capitalize()}: {_messages(done)}.", messages.SUCCESS)
        return None

    def _ask(self, request: HttpRequest, verb: str, chosen: list[Any]) -> HttpResponse:
        context = {
            "title": f"{verb.capitalize()} {_messages(len(chosen))}?",
            "verb": verb,
            "rows": chosen[:20],
            "more": max(0, len(chosen) - 20),
            "ids": [str(row.pk) for row in chosen],
            "action": f"{verb}_messages",
            "opts": self.opts,
        }
        return show_page(request, self.admin_site, "confirm", context)


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


_MASK_HINT = "CELERY_STARGATE_OUTBOX_MASK may show more"


def _may(request: HttpRequest, verb: str) -> bool:
    user: Any = getattr(request, "user", None)
    return bool(user.has_perm(f"{APP_LABEL}.{verb}_outboxmessage"))


@admin.register(OutboxMessage)
class OutboxMessageAdmin(_MessageAdmin):
    """All rows, and the pages of the lanes."""

    def get_urls(self) -> list[Any]:
        """Add the pages of the lanes."""
        pages = LanesPages(self.admin_site, self.opts, self.has_view_permission)
        return [*pages.urls(), *super().get_urls()]


class _FailedStateFilter(admin.SimpleListFilter):
    """Refused or unknown."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states of dead letters."""
        return [(state.value, state.value.capitalize()) for state in FAILED]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the rows in the chosen state."""
        return queryset if self.value() is None else queryset.filter(state=self.value())


@admin.register(FailedMessage)
class FailedMessageAdmin(_MessageAdmin):
    """Rows that wait for an operator."""

    list_filter: ClassVar[list[Any]] = [_FailedStateFilter, TopicFilter]
    actions: ClassVar[list[str]] = ["requeue_messages", "discard_messages"]
