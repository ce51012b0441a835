"""The admin of the dead letters in Redis: find them, replay them, discard them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect

from celery_stargate.contrib.django import dead_letters, lanes
from celery_stargate.contrib.django.apps import APP_LABEL
from celery_stargate.contrib.django.closing import CLOSE_TASK
from celery_stargate.contrib.django.models import DeadLetter
from celery_stargate.contrib.django.pages import page_url, show_page
from celery_stargate.contrib.django.rows import storable
from celery_stargate.contrib.django.spans import span
from celery_stargate.contrib.django.topics import topic_names
from celery_stargate.errors import StargateError

__all__ = ["DeadLetterAdmin"]

_Verb = Literal["replay", "discard"]

#: How many dead letters a page shows, an action does, and a confirmation names.
_PAGE, _MOST, _NAMED = 100, 1000, 20
#: How many entries of its history a page shows.
_HISTORY = 20
_AGES = (("", "Any time"), ("3600", "1 hour"), ("86400", "1 day"), ("259200", "3 days"))
_FIELDS = ("topic", "error", "age", "q")
_WORDS = {
    dead_letters.DeadResult.DONE: "done",
    dead_letters.DeadResult.MISSING: "gone, or failed again, since the page was made",
    dead_letters.DeadResult.FULL: "left, because the lane is full; try again later",
    dead_letters.DeadResult.KNOWN: "left, because a replay is pending or ended a short time ago",
    dead_letters.DeadResult.UNREADABLE: "left, because the message or record cannot be read",
}


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):
    """Dead letters are in Redis: this admin has pages of its own, and no table.

    It has more methods than a class should: Django finds views and permissions by name.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: messages become dead letters by themselves."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a message stays what it was; the actions do the rest."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: discard it."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show dead letters, or act on those that were chosen.

        Raises:
            PermissionDenied: the user may not view dead letters, or not act on them.
            Http404: the query does not name a place in the list.
            BadRequest: the form is not of this page.
        """
        self._check(request)
        try:
            if request.method == "POST":
                return self._act(request)
            return self._list(request)
        except StargateError as error:
            return self._page(request, "list", title="Dead letters in Redis", problem=str(error))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Show the dead letters of one id: two topics may have one each.

        Raises:
            PermissionDenied: the user may not view dead letters.
        """
        self._check(request)
        name = unquote(object_id)
        shown: list[dict[str, Any]] = []
        problem = ""
        try:
            stargate = lanes.current_stargate()
            letters = {each.lane.name: each for each in dead_letters.named(stargate, name)}
            rows = dead_letters.rows_of(letters.values())
            shown = [
                self._line(each, letters[each.lane], rows)
                for each in dead_letters.details(stargate, name)
                if each.lane in letters
            ]
        except StargateError as error:
            problem = str(error)
        return self._page(
            request,
            "detail",
            title=f"Dead letter {name}",
            name=name,
            letters=shown,
            history=LogEntry.objects.filter(content_type=_content_type(), object_id=storable(name))
            .select_related("user")
            .order_by("-action_time")[:_HISTORY],
            close_task=CLOSE_TASK,
            problem=problem,
        )

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """Lead to the page of a dead letter, which shows its history."""
        return HttpResponseRedirect(page_url(self.admin_site, "deadletter_change", object_id))

    def _check(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _list(self, request: HttpRequest) -> HttpResponse:
        stargate = lanes.current_stargate()
        query = {name: request.GET.get(name, "") for name in _FIELDS}
        letters, after = self._find(stargate, query, request.GET.get("after"), _PAGE)
        now = dead_letters.now(stargate)
        rows = dead_letters.rows_of(letters)
        totals = dead_letters.totals(stargate)
        topics = sorted({each.topic for each in totals.groups} | ({query["topic"]} - {""}))
        names = {name for each in totals.groups for name in (each.error, each.code)}
        errors = sorted(names | ({query["error"]} - {""}))
        return self._page(
            request,
            "list",
            title="Dead letters in Redis",
            totals=totals,
            letters=[self._line(each.view(now), each, rows) for each in letters],
            verbs=[verb for verb in ("replay", "discard") if _may(request, verb)],
            most=_MOST,
            filters=[
                _choices("topic", query, [("", "All"), *((each, _short(each)) for each in topics)]),
                _choices("error", query, [("", "All"), *((each, each) for each in errors)]),
                _choices("age", query, _AGES, title="last failure before"),
            ],
            query=query,
            next_page="" if after is None else f"?{_encoded({**query, 'after': after})}",
            first_page=f"?{_encoded(query)}" if "after" in request.GET else "",
        )

    def _find(
        self, stargate: Any, query: Mapping[str, str], after: str | None, most: int
    ) -> tuple[list[dead_letters.Letter], str | None]:
        if query["q"].strip():
            return dead_letters.named(stargate, query["q"].strip())[:most], None
        age = query["age"]
        where = dead_letters.DeadLetterFilter(
            topic=query["topic"] or None,
            error=query["error"] or None,
            older_than=float(age) if age in dict(_AGES) and age else None,
        )
        try:
            return dead_letters.page(stargate, where, after, most)
        except ValueError as error:
            raise Http404(str(error)) from None

    def _line(
        self, view: Any, letter: dead_letters.Letter, rows: Mapping[str, dead_letters.OutboxRow]
    ) -> dict[str, Any]:
        row = rows.get(letter.id)
        row_url = ""
        if row is not None:
            row_url = page_url(self.admin_site, "outboxmessage_change", row.pk)
        return {
            "view": view,
            "token": dead_letters.pack([letter]),
            "url": page_url(self.admin_site, "deadletter_change", quote(view.id)),
            "short_topic": _short(view.topic),
            "first": span(view.first_failed_seconds),
            "last": span(view.last_failed_seconds),
            "row": row,
            "row_url": row_url,
        }

    def _act(self, request: HttpRequest) -> HttpResponse:
        verb: _Verb = "replay" if request.POST.get("action") == "replay" else "discard"
        if request.POST.get("action") != verb:
            messages.warning(request, "No action was chosen.")
            return HttpResponseRedirect(request.get_full_path())
        if not _may(request, verb):
            raise PermissionDenied
        chosen, more = self._chosen(request)
        with_row = set()
        if verb == "replay":
            with_row = dead_letters.closing(lanes.current_stargate(), chosen)
        if with_row:
            messages.warning(
                request,
                f"{_letters(len(with_row))} left out: requeue their outbox messages instead, which "
                "hear of the receipt.",
            )
        chosen = [each for each in chosen if each not in with_row]
        if not chosen:
            messages.warning(request, f"There is nothing to {verb}.")
        elif request.POST.get("confirmed") != "yes":
            return self._ask(request, verb, chosen, more=more)
        else:
            self._do(request, verb, chosen)
        return HttpResponseRedirect(request.get_full_path())

    def _chosen(self, request: HttpRequest) -> tuple[list[dead_letters.Letter], bool]:
        """Return the dead letters that are meant, and whether the filter matches more of them."""
        stargate = lanes.current_stargate()
        if request.POST.get("select_across") != "1":
            try:
                given = request.POST.getlist("_selected_action")
                return dead_letters.unpack(stargate, given)[:_MOST], False
            except ValueError as error:
                raise BadRequest(str(error)) from None
        query = {name: request.GET.get(name, "") for name in _FIELDS}
        found: list[dead_letters.Letter] = []
        after = None
        while len(found) < _MOST:
            letters, after = self._find(stargate, query, after, _MOST - len(found))
            found += letters
            if after is None:
                break
        return found, after is not None

    def _ask(
        self,
        request: HttpRequest,
        verb: _Verb,
        chosen: Sequence[dead_letters.Letter],
        *,
        more: bool,
    ) -> HttpResponse:
        now = dead_letters.now(lanes.current_stargate())
        return self._page(
            request,
            "confirm",
            title=f"{verb.capitalize()} {_letters(len(chosen))}?",
            verb=verb,
            letters=[each.view(now) for each in chosen[:_NAMED]],
            others=max(0, len(chosen) - _NAMED),
            unknown=sum(each.view(now).status == "unknown" for each in chosen),
            more=more,
            most=_MOST,
            # One field for all: Django takes no more than 1,000.
            chosen=dead_letters.pack(chosen),
            back=request.get_full_path(),
        )

    def _do(self, request: HttpRequest, verb: _Verb, chosen: Sequence[dead_letters.Letter]) -> None:
        """Do it, and log what was done, even if Redis goes away half-way."""
        counts: Counter[dead_letters.DeadResult] = Counter()
        done: list[str] = []
        by = f"{request.user.get_username()} in Django's admin"
        try:
            for change in dead_letters.act(lanes.current_stargate(), verb, chosen, by):
                counts[change.result] += 1
                if change.result is dead_letters.DeadResult.DONE:
                    done.append(change.id)
        except StargateError as error:
            messages.error(request, f"Not all was done: {error}")
        LogEntry.objects.bulk_create(
            LogEntry(
                user_id=request.user.pk,
                content_type=_content_type(),
                object_id=storable(name),
                object_repr=storable(name)[:200],
                action_flag=CHANGE,
                change_message=f"{verb} (stargate dead letter)",
            )
            for name in done
        )
        for result, count in counts.items():
            good = result is dead_letters.DeadResult.DONE
            tell = messages.success if good else messages.warning
            told = "." if good else f": {_WORDS[result]}."
            tell(request, f"{verb.capitalize()}: {_letters(count)}{told}")

    def _page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        whole = {"opts": self.opts, **context}
        return show_page(request, self.admin_site, f"dead_{template}", whole)


def _choices(
    name: str, query: Mapping[str, str], choices: Sequence[tuple[str, str]], title: str = ""
) -> dict[str, Any]:
    """Return a filter as Django's template shows one."""
    return {
        "title": title or name,
        "choices": [
            {
                "selected": query[name] == value,
                "query_string": f"?{_encoded({**query, name: value})}",
                "display": display,
            }
            for value, display in choices
        ],
    }


def _short(topic: str) -> str:
    return topic_names().get(topic) or topic.rpartition("/")[2]


def _encoded(query: Mapping[str, str]) -> str:
    return urlencode({name: value for name, value in query.items() if value})


def _may(request: HttpRequest, verb: str) -> bool:
    user: Any = getattr(request, "user", None)
    return bool(user.has_perm(f"{APP_LABEL}.{verb}_deadletter"))


def _content_type() -> ContentType:
    return ContentType.objects.get_for_model(DeadLetter, for_concrete_model=False)


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"
