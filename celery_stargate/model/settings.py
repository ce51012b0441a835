"""Every setting: its name, type, default and check.

Settings stand in the Celery configuration as ``stargate_…``, so in Django's as
``CELERY_STARGATE_…``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from celery_stargate.errors import ConfigurationError, nearest, shown
from celery_stargate.model.fields import _TABLE, PREFIX, Token, _read, _topic
from celery_stargate.model.options import _OPTION_NAMES, ProducerOptions
from celery_stargate.model.topic import Topic

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one app, checked. Durations are seconds, sizes bytes."""

    url: str | None = None
    #: Not shown: it may hold a password.
    redis_url: str | None = field(default=None, repr=False)
    #: The default one: its full name, or its name in ``topics``.
    topic: str | None = None
    #: Name → topic's full name and its producer options.
    topics: Mapping[str, tuple[str, ProducerOptions]] = field(default_factory=dict)
    options: ProducerOptions = field(default_factory=ProducerOptions)
    produce_timeout: float = 30.0
    lease: float = 10.0
    drain_timeout: float = 10.0
    idle_timeout: float = 300.0
    receipt_timeout: float = 60.0
    open_timeout: float = 45.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    token: Token | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    via: Literal["lane", "broker"] = "lane"
    worker: bool = True
    prefix: str = "stargate"

    @classmethod
    def read(cls, conf: Mapping[str, Any], namespace: str | None = None) -> Settings:
        """Read the ``stargate_…`` settings of a Celery configuration.

        Arguments:
            conf: the configuration, ``app.conf`` or any mapping.
            namespace: what stands before each name, such as ``CELERY``.

        Raises:
            ConfigurationError: a setting does not exist or has a wrong type. It names the
                setting, what was found, and the nearest right name.
        """
        given = {}
        lead = f"{namespace.lower()}_{PREFIX}" if namespace else PREFIX
        for key in list(conf):
            name = str(key).lower()
            if name.startswith(lead):
                name = name[len(lead) :]
            elif str(key).startswith(PREFIX):
                # Set on app.conf. In Django's settings STARGATE_… is not Celery's, and not ours.
                name = name[len(PREFIX) :]
            else:
                continue
            if name.startswith("outbox_"):
                # Django's outbox reads and checks them: celery_stargate.contrib.django.settings.
                continue
            if name not in _TABLE:
                known = [PREFIX + each for each in _TABLE]
                raise ConfigurationError(
                    f"there is no setting {PREFIX}{name}{nearest(PREFIX + name, known)}"
                )
            value = conf[key]
            if value is not None:
                given[name] = _read(name, value, PREFIX + name)
        own = {name: value for name, value in given.items() if name not in _OPTION_NAMES}
        options = ProducerOptions(**{k: v for k, v in given.items() if k in _OPTION_NAMES})
        own["topics"] = _topics(own.get("topics", {}), options)
        if "topic" in own and own["topic"] not in own["topics"]:
            own["topic"] = _topic(f"{PREFIX}topic", own["topic"])
        if (own.get("tls_key") is None) != (own.get("tls_certificate") is None):
            raise ConfigurationError(
                f"{PREFIX}tls_certificate and {PREFIX}tls_key go together; one is missing"
            )
        if "{" in own.get("prefix", "") or "}" in own.get("prefix", ""):
            raise ConfigurationError(f"{PREFIX}prefix must hold no brace; Redis Cluster reads them")
        return cls(options=options, **own)

    def require_url(self) -> str:
        """Return Pulsar's service URL.

        Raises:
            ConfigurationError: there is none.
        """
        if self.url is None:
            raise ConfigurationError(
                f"{PREFIX}url is not set; give Pulsar's service URL, such as ws://localhost:8080"
            )
        return self.url

    def resolve(self, topic: str | None) -> tuple[Topic, ProducerOptions]:
        """Return a topic and its options, by its full name or its name in the settings.

        Raises:
            InvalidMessage: the topic is malformed.
            ConfigurationError: no topic is given, neither here nor in the settings.
        """
        if topic is None:
            topic = self.topic
        if topic is None:
            raise ConfigurationError(
                f"no topic: give topic=…, or set {PREFIX}topic to the default one"
            )
        if isinstance(topic, str) and topic in self.topics:
            name, options = self.topics[topic]
            return Topic.parse(name), options
        parsed = Topic.parse(topic)
        for name, options in self.topics.values():
            if name == str(parsed):
                return parsed, options
        return parsed, self.options


def _topics(given: Mapping[Any, Any], options: ProducerOptions) -> dict[str, Any]:
    topics: dict[str, tuple[str, ProducerOptions]] = {}
    by_topic: dict[str, tuple[str, ProducerOptions]] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise ConfigurationError(
                f"the names in {PREFIX}topics must be text, not {type(name).__name__}"
            )
        where = f"{PREFIX}topics[{shown(name)}]"
        own: dict[str, Any] = {"topic": value} if isinstance(value, str) else value
        if not isinstance(own, Mapping) or "topic" not in own:
            raise ConfigurationError(
                f"{where} must be a topic's full name, or a mapping with its 'topic' and options"
            )
        topic = _topic(where, own["topic"])
        rest = {key: item for key, item in own.items() if key != "topic"}
        read = options.changed(rest, where)
        if topic in by_topic and by_topic[topic][1] != read:
            raise ConfigurationError(
                f"{where} and {PREFIX}topics[{shown(by_topic[topic][0])}] are the same topic with "
                "different options; a topic has one producer"
            )
        by_topic[topic] = (name, read)
        topics[name] = (topic, read)
    return topics
