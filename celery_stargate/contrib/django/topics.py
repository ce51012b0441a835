"""The topics' names in the settings, which are short enough for a table."""

from __future__ import annotations

from celery_stargate.contrib.django import lanes
from celery_stargate.errors import StargateError

__all__ = ["topic_names"]


def topic_names() -> dict[str, str]:
    """Return the topics of the settings: full name → name there."""
    try:
        settings = lanes.current_stargate().settings
    except StargateError:
        return {}
    named = {topic: name for name, (topic, _) in settings.topics.items()}
    if settings.topic is not None and settings.topic not in settings.topics:
        named.setdefault(settings.topic, settings.topic.rpartition("/")[2])
    return named
