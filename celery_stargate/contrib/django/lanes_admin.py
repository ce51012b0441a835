"""Pages of the admin that show Redis, read-only: the lanes, and the contexts that wait in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path

from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.apps import APP_LABEL
from celery_stargate.contrib.django.pages import show_page
from celery_stargate.contrib.django.spans import span
from celery_stargate.errors import StargateError

__all__ = ["LanesPages"]

#: How many contexts a page shows at most: those with the next deadlines.
_MOST = 200


class LanesPages:
    """The pages below ``…/outboxmessage/lanes/``.

    Arguments:
        site: the admin.
        opts: the model's ``_meta``, for breadcrumbs.
        may_view: whether the user of a request may see them.
    """

    def __init__(self, site: AdminSite, opts: Any, may_view: Callable[[HttpRequest], bool]) -> None:
        self._site = site
        self._opts = opts
        self._may_view = may_view

    def urls(self) -> list[Any]:
        """Return their URL patterns."""
        view = self._site.admin_view
        return [
            path("lanes/", view(self.lanes), name=f"{APP_LABEL}_lanes"),
            path("lanes/pending/", view(self.pending), name=f"{APP_LABEL}_pending"),
        ]

    def lanes(self, request: HttpRequest) -> HttpResponse:
        """Show the lanes.

        Raises:
            PermissionDenied: the user may not view outbox messages.
        """
        self._check(request)
        workers, problem = 0, ""
        found: list[lanes.LaneView] = []
        try:
            workers, found = lanes.survey(lanes.current_stargate())
        except StargateError as error:
            problem = str(error)
        return self._page(
            request,
            "lanes",
            title="Lanes in Redis",
            workers=workers,
            lanes=[
                {
                    "view": lane,
                    "oldest": span(lane.oldest_age_seconds),
                    "deadline": span(lane.next_deadline_seconds),
                }
                for lane in sorted(found, key=lambda lane: -lane.backlog)
            ],
            problem=problem,
        )

    def pending(self, request: HttpRequest) -> HttpResponse:
        """Show the contexts that wait in the lane of the query's ``lane``.

        Raises:
            PermissionDenied: the user may not view outbox messages.
            Http404: it is not the name of a lane.
        """
        self._check(request)
        lane, problem = request.GET.get("lane", ""), ""
        found: list[lanes.ContextView] = []
        try:
            found = lanes.pending_in(lanes.current_stargate(), lane, _MOST + 1)
        except StargateError as error:
            problem = str(error)
        except ValueError as error:
            raise Http404(str(error)) from None
        return self._page(
            request,
            "pending",
            title="Pending contexts",
            lane=lane,
            contexts=[
                {
                    "view": each,
                    "age": span(each.age_seconds),
                    "deadline": span(each.deadline_seconds),
                }
                for each in found[:_MOST]
            ],
            more=len(found) > _MOST,
            most=_MOST,
            problem=problem,
        )

    def _check(self, request: HttpRequest) -> None:
        if not self._may_view(request):
            raise PermissionDenied

    def _page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        return show_page(request, self._site, template, {"opts": self._opts, **context})
