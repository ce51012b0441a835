"""A Django project in one file, whose only view publishes; run as a program it is `manage.py`."""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.integration.web.site import stargate


def publish(request: HttpRequest) -> HttpResponse:
    """Publish, and answer with the receipt's status and the process that has it."""
    return HttpResponse(f"{stargate.produce('django', timeout=20).status} {os.getpid()}")


urlpatterns = [path("", publish)]

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    settings.configure(DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    execute_from_command_line(sys.argv)
