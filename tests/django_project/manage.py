"""`python -m tests.django_project.manage`: Django's command line, with the Celery app."""

from __future__ import annotations

import sys

from tests.django_project.celery import app

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    app.set_current()
    execute_from_command_line(sys.argv)
