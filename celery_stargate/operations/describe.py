"""One report of what there is, to paste into a bug report; no secret is in it."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from celery_stargate.lanes.connections import UNAVAILABLE
from celery_stargate.lanes.target import Target
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.operations.audit import Audit
from celery_stargate.operations.doctor.celery_checks import package_versions
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.reading import LaneReader

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["describe", "masked_url"]

#: What a report shows instead of a secret.
_MASK = "********"
_SECRETS = ("token", "redis_url", "redis_options")
#: A parameter of a URL that holds a secret, such as ``?password=``, up to its value.
_SECRET_PARAMETER = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)
#: What ``INFO`` of Redis tells that matters here.
_REDIS_INFO = (
    "redis_version",
    "redis_mode",
    "role",
    "connected_slaves",
    "maxmemory",
    "maxmemory_policy",
    "used_memory",
    "aof_enabled",
    "uptime_in_seconds",
)
#: How many of the last actions are told.
_ACTIONS = 10


def describe(app: Celery, settings: Settings, target: Target, reader: LaneReader) -> dict[str, Any]:
    """Return the report: versions, settings, topology and counts, JSON types only.

    Redis that is away is told in it; it raises nothing for that.

    Arguments:
        app: the Celery app.
        settings: of Stargate.
        target: the Redis that holds the lanes.
        reader: reads the lanes.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            "platform": sys.platform,
            **package_versions(),
        },
        "settings": _settings(settings),
        "celery": {
            "app": app.main,
            "broker": masked_url(str(app.connection_for_write().as_uri())),
            "result_backend": masked_url(str(app.conf.result_backend)),
            "task_serializer": app.conf.task_serializer,
            "task_always_eager": app.conf.task_always_eager,
        },
        "redis": {"url": target.address, **_redis(reader)},
        **_lanes(reader),
    }


def masked_url(url: str) -> str:
    """Return a URL, or several with semicolons between them, without passwords."""
    if ";" in url:
        return ";".join(masked_url(each) for each in url.split(";"))
    url = _SECRET_PARAMETER.sub(rf"\g<1>{_MASK}", url)
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
    except ValueError:
        return _MASK
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{_MASK}@{host}"))


def _settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that are not the defaults, secrets masked."""
    usual = Settings()
    found: dict[str, Any] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name in ("options", "topics") or value == getattr(usual, each.name):
            continue
        if each.name == "redis_url":
            value = masked_url(value)
        elif each.name in _SECRETS:
            value = "a callable" if callable(value) else _MASK
        found[each.name] = value
    found |= _options(settings.options, ProducerOptions())
    found["topics"] = {
        name: {"topic": topic, **_options(options, settings.options)}
        for name, (topic, options) in settings.topics.items()
    }
    return found


def _options(options: ProducerOptions, usual: ProducerOptions) -> Mapping[str, Any]:
    return options.differing(usual)


def _redis(reader: LaneReader) -> dict[str, Any]:
    try:
        info = reader.redis.info()
    except UNAVAILABLE as problem:
        return {"problem": str(problem)}
    return {name: info[name] for name in _REDIS_INFO if name in info}


def _lanes(reader: LaneReader) -> dict[str, Any]:
    inspector = LaneInspector(reader)
    try:
        return {
            "status": inspector.status(),
            "workers": inspector.workers(),
            "actions": Audit(reader.redis, reader.registry).last(_ACTIONS),
        }
    except UNAVAILABLE:
        return {}
