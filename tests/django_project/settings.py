"""Its settings. Processes get databases and Celery's settings as JSON in the environment."""

from __future__ import annotations

import json
import os
from typing import Any

#: Environment variables: the databases, and settings of Celery and the outbox.
DATABASES_VARIABLE, SETTINGS_VARIABLE = "STARGATE_TEST_DATABASES", "STARGATE_TEST_SETTINGS"

SECRET_KEY = "of these tests only"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "celery_stargate.contrib.django",
    "tests.django_project.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.django_project.urls"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["*"]
MIGRATION_MODULES = {"shop": None}

DATABASES: dict[str, Any] = json.loads(os.environ.get(DATABASES_VARIABLE, "{}"))
# Celery's settings, with its names in capitals and CELERY_ before them.
globals().update(json.loads(os.environ.get(SETTINGS_VARIABLE, "{}")))
