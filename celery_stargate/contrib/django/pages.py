"""Pages of the admin and their addresses, in the site that shows them: there may be several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse

from celery_stargate.contrib.django.apps import APP_LABEL

__all__ = ["page_url", "show_page"]


def page_url(site: AdminSite, page: str, *arguments: Any) -> str:
    """Return the address of one of our pages, or an empty text if the site does not have it.

    Arguments:
        site: the admin that shows the link.
        page: the name of its URL pattern, without the app's label.
        arguments: of the pattern.
    """
    try:
        found: str = reverse(f"admin:{APP_LABEL}_{page}", args=arguments, current_app=site.name)
    except NoReverseMatch:
        return ""
    return found


def show_page(
    request: HttpRequest, site: AdminSite, template: str, context: Mapping[str, Any]
) -> HttpResponse:
    """Return a page of ours; its links lead to the same site.

    Arguments:
        template: its name below ``admin/celery_stargate/``, without the suffix.
        context: more than the site's own.
    """
    # As Django's own views do: its tags look there for the site.
    request.current_app = site.name
    whole = {**site.each_context(request), **context}
    return TemplateResponse(request, f"admin/celery_stargate/{template}.html", whole)
