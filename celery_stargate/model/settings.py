"""Every setting: its name, type, default and check.

In the Celery configuration each name begins with ``stargate_``; in Django's settings with
``CELERY_STARGATE_``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from celery_stargate.errors import ConfigurationError, InvalidMessage, nearest, shown
from celery_stargate.model.buckets import in_buckets
from celery_stargate.model.dead_letters import DeadLetterBounds, DeadLetterRules, Policy
from celery_stargate.model.fields import MEMORY, PREFIX, TABLE, Token, read_topic, read_value
from celery_stargate.model.options import _OPTION_NAMES, ProducerOptions
from celery_stargate.model.redis_options import check_redis, is_cluster
from celery_stargate.model.redis_url import check_redis_url
from celery_stargate.model.token_transport import require_safe_transport
from celery_stargate.model.topic import Topic

__all__ = ["Settings", "named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one app, checked. Durations are seconds, sizes bytes."""

    url: str | None = None
    #: Not in the repr: it may contain a password.
    redis_url: str | None = field(default=None, repr=False)
    #: Not shown: they may hold a password.
    redis_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: How many connections to Redis the threads of a process share.
    redis_max_connections: int = 100
    #: On a Redis Cluster, in how many buckets the lanes are; fixed for a deployment.
    redis_buckets: int = 16
    #: The default topic: its full name, or its name in ``topics``.
    topic: str | None = None
    #: Name → topic's full name and its producer options.
    topics: Mapping[str, tuple[str, ProducerOptions]] = field(default_factory=dict)
    #: Whether a short name that is not in ``topics`` is a topic in ``public/default``.
    allow_unlisted_topics: bool = False
    options: ProducerOptions = field(default_factory=ProducerOptions)
    produce_timeout: float = 30.0
    lease: float = 10.0
    drain_timeout: float = 10.0
    effects_timeout: float = 86400.0
    #: How long a callback is kept: until the broker has it, or until its task has started.
    callbacks: Literal["published", "until_started"] = "published"
    callback_start_timeout: float = 300.0
    idle_timeout: float = 300.0
    receipt_timeout: float = 60.0
    open_timeout: float = 45.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    token: Token | None = field(default=None, repr=False)
    #: Whether the token may go to another host over ``ws://``, where others can read it.
    allow_token_without_tls: bool = False
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    via: Literal["lane", "broker"] = "lane"
    worker: bool = True
    #: Whether a process that calls owns lanes while there is no worker.
    own_lanes: Literal["auto", "worker"] = "auto"
    #: Where a worker serves metrics; port 0 for nowhere.
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    prefix: str = "stargate"
    #: How long, and how many, failed messages are kept; None for none.
    dead_letters: DeadLetterBounds | None = field(default_factory=DeadLetterBounds)
    #: Class or code of an error → what it means for its message.
    dead_letter_policy: Mapping[str, Policy] = field(default_factory=dict)
    #: What the names in the configuration begin with, such as ``CELERY``; for the texts of errors.
    namespace: str | None = field(default=None, compare=False)

    @classmethod
    def read(cls, conf: Mapping[str, Any], namespace: str | None = None) -> Settings:
        """Read the ``stargate_…`` settings of a Celery configuration.

        Arguments:
            conf: the configuration, ``app.conf`` or any mapping.
            namespace: what each name begins with, such as ``CELERY``.

        Raises:
            ConfigurationError: a setting does not exist or has a wrong type. The text names the
                setting, what was found, and the closest known name.
        """
        try:
            return cls(**_read(conf, namespace), namespace=namespace)
        except ConfigurationError as error:
            raise ConfigurationError(named(str(error), namespace)) from None

    @property
    def keyspace(self) -> str:
        """What all keys in Redis begin with; on a Redis Cluster with the number of buckets."""
        if is_cluster(self.redis_url):
            return in_buckets(self.prefix, self.redis_buckets)
        return self.prefix

    def error(self, text: str) -> ConfigurationError:
        """Return an error whose text names settings as this configuration does."""
        return ConfigurationError(named(text, self.namespace))

    @property
    def dead_letter_rules(self) -> DeadLetterRules:
        """What becomes of messages that fail."""
        return DeadLetterRules(
            bounds=self.dead_letters,
            policies=self.dead_letter_policy,
            lane_count=self.lane_count,
        )

    def lane_count(self, topic: str) -> int:
        """Return how many lanes a topic has by the settings.

        Arguments:
            topic: its full name.
        """
        for name, options in self.topics.values():
            if name == topic:
                return options.lane_count
        return self.options.lane_count

    def require_url(self) -> str:
        """Return Pulsar's service URL.

        Raises:
            ConfigurationError: ``stargate_url`` is not set.
        """
        if self.url is None:
            raise self.error(
                f"{PREFIX}url is not set; give Pulsar's service URL, such as ws://localhost:8080"
            )
        return self.url

    @property
    def in_memory(self) -> bool:
        """Whether messages stay in the process, for tests."""
        return self.url == MEMORY

    def require_service(self) -> str:
        """Return the URL of a Pulsar that can be connected to.

        Raises:
            ConfigurationError: ``stargate_url`` is not set, or keeps messages in memory.
        """
        if self.in_memory:
            raise self.error(
                f"{PREFIX}url is {MEMORY}, which keeps messages in the process of a test: it needs "
                "task_always_eager=True, and no worker can use it; give Pulsar's service URL, such "
                "as ws://localhost:8080"
            )
        return self.require_url()

    def resolve(self, topic: str | None) -> tuple[Topic, ProducerOptions]:
        """Return a topic and its options.

        Arguments:
            topic: its name in ``stargate_topics``, its full name, or, without
                ``stargate_topics``, a short one; None for ``stargate_topic``.

        Raises:
            InvalidMessage: the topic's name is malformed, or it is a short one that is not in
                ``stargate_topics``.
            ConfigurationError: no topic is given, neither here nor in the settings.
        """
        if topic is None:
            topic = self.topic
        if topic is None:
            raise self.error(f"no topic: give topic=…, or set {PREFIX}topic to the default one")
        if isinstance(topic, str) and topic in self.topics:
            name, options = self.topics[topic]
            return Topic.parse(name), options
        parsed = Topic.parse(topic)
        if not self.allow_unlisted_topics:
            _require_listed(topic, self.topics, self.namespace)
        for name, options in self.topics.values():
            if name == str(parsed):
                return parsed, options
        return parsed, self.options


def _default_prefix(conf: Mapping[str, Any]) -> str:
    """Return the prefix of an app that sets none: behind the one that its Celery keys have.

    Two systems that share a Redis by ``global_keyprefix`` do not share their lanes.
    """
    for name in ("result_backend_transport_options", "broker_transport_options"):
        options = conf.get(name)
        keyprefix = options.get("global_keyprefix") if isinstance(options, Mapping) else None
        if keyprefix:
            # Braces would be read as a hash tag.
            return f"{keyprefix}stargate".replace("{", "").replace("}", "")
    return "stargate"


def named(text: str, namespace: str | None) -> str:
    """Return a text with the names of settings as they are in a namespace.

    With the namespace ``CELERY``, as in Django's settings, ``stargate_url`` becomes
    ``CELERY_STARGATE_URL``.
    """
    if not namespace:
        return text
    return _NAME.sub(lambda found: _in_namespace(found[1], namespace), text)


_NAME = re.compile(rf"\b{PREFIX}({'|'.join(sorted(TABLE, key=len, reverse=True))})\b")


def _in_namespace(name: str, namespace: str | None) -> str:
    return f"{namespace}_{PREFIX}{name}".upper() if namespace else f"{PREFIX}{name}"


def _read(conf: Mapping[str, Any], namespace: str | None) -> dict[str, Any]:
    """Return the fields of the settings that a configuration gives."""
    given: dict[str, Any] = {}
    lead = f"{namespace.lower()}_{PREFIX}" if namespace else PREFIX
    for key in list(conf):
        name = str(key).lower()
        if name.startswith(lead):
            name = name[len(lead) :]
        elif str(key).startswith(PREFIX):
            # Set on app.conf. In Django's settings STARGATE_… belongs to neither Celery nor us.
            name = name[len(PREFIX) :]
        else:
            continue
        if name.startswith("outbox_"):
            # celery_stargate.contrib.django.settings reads and checks them.
            continue
        if name not in TABLE:
            known = [named(PREFIX + each, namespace) for each in TABLE]
            shown_name = _in_namespace(name, namespace)
            raise ConfigurationError(
                f"there is no setting {shown_name}{nearest(shown_name, known)}"
            )
        value = conf[key]
        if value is not None:
            given[name] = read_value(name, value, PREFIX + name)
    if not namespace:
        _require_heard(conf, given)
    own: dict[str, Any] = {
        name: value for name, value in given.items() if name not in _OPTION_NAMES
    }
    options = ProducerOptions(**{k: v for k, v in given.items() if k in _OPTION_NAMES})
    own["topics"] = _topics(own.get("topics", {}), options)
    if "topic" in own and own["topic"] not in own["topics"]:
        if not own.get("allow_unlisted_topics"):
            try:
                _require_listed(own["topic"], own["topics"], namespace)
            except InvalidMessage as error:
                raise ConfigurationError(f"{PREFIX}topic: {error.problem}") from None
        own["topic"] = read_topic(f"{PREFIX}topic", own["topic"])
    if (own.get("tls_key") is None) != (own.get("tls_certificate") is None):
        raise ConfigurationError(
            f"{PREFIX}tls_certificate and {PREFIX}tls_key go together; one is missing"
        )
    if "url" in own and "token" in own and not own.get("allow_token_without_tls"):
        require_safe_transport(own["url"])
    check_redis(own.get("redis_url"), own.get("redis_options", {}), PREFIX)
    if own.get("redis_url") is not None:
        check_redis_url(f"{PREFIX}redis_url", own["redis_url"])
    own.setdefault("prefix", _default_prefix(conf))
    if "{" in own["prefix"] or "}" in own["prefix"]:
        raise ConfigurationError(
            f"{PREFIX}prefix must not contain a brace: Redis Cluster gives braces a meaning"
        )
    return {"options": options, **own}


def _require_heard(conf: Mapping[str, Any], given: Collection[str]) -> None:
    """Raise if a setting has Celery's usual namespace, and the configuration is read without it."""
    lead = f"celery_{PREFIX}"
    for key in conf:
        name = str(key).lower().removeprefix(lead)
        if str(key).lower() == lead + name and name in TABLE and name not in given:
            raise ConfigurationError(
                f"{key} is not read, because the configuration has no namespace: name it "
                f"{PREFIX}{name}, or read the configuration with namespace='CELERY'"
            )


def _require_listed(topic: str, listed: Collection[str], namespace: str | None) -> None:
    """Raise if there is a list of topics, and a short name is not in it: it may be misspelled."""
    if listed and "/" not in topic:
        text = (
            f"topic {topic!r} is not in {PREFIX}topics; use a name from there or a full name, or "
            f"set {PREFIX}allow_unlisted_topics=True{nearest(topic, listed)}"
        )
        raise InvalidMessage(named(text, namespace))


def _topics(
    given: Mapping[object, object], options: ProducerOptions
) -> dict[str, tuple[str, ProducerOptions]]:
    topics: dict[str, tuple[str, ProducerOptions]] = {}
    by_topic: dict[str, tuple[str, ProducerOptions]] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise ConfigurationError(
                f"the names in {PREFIX}topics must be text, not {type(name).__name__}"
            )
        where = f"{PREFIX}topics[{shown(name)}]"
        own = {"topic": value} if isinstance(value, str) else value
        if not isinstance(own, Mapping) or "topic" not in own:
            raise ConfigurationError(
                f"{where} must be a topic's full name, or a mapping with its 'topic' and options"
            )
        topic = read_topic(where, own["topic"])
        rest = {key: item for key, item in own.items() if key != "topic"}
        read = options.changed(rest, where)
        if topic in by_topic and by_topic[topic][1] != read:
            raise ConfigurationError(
                f"{where} and {PREFIX}topics[{shown(by_topic[topic][0])}] are the same topic with "
                "different options; a topic has one set of options"
            )
        by_topic[topic] = (name, read)
        topics[name] = (topic, read)
    return topics
