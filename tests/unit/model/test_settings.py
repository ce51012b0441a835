"""Settings: each is read, checked and named in its error; topics; Pulsar's query parameters."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate import ConfigurationError, InvalidMessage
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings

ORDERS = "persistent://shop/eu/orders"

#: A good value of each setting, and how it is kept.
GOOD: dict[str, tuple[Any, Any]] = {
    "url": ("ws://localhost:8080/", "ws://localhost:8080"),
    "redis_url": ("redis://localhost", "redis://localhost"),
    "topic": ("orders", "persistent://public/default/orders"),
    "produce_timeout": (5, 5.0),
    "lease": (timedelta(seconds=4), 4.0),
    "drain_timeout": (0, 0.0),
    "idle_timeout": (60, 60.0),
    "open_timeout": (10, 10.0),
    "ping_interval": (10, 10.0),
    "ping_timeout": (10.5, 10.5),
    "token": ("Bearer a.b-c_d=", "a.b-c_d="),
    "tls_server_name": ("host", "host"),
    "via": ("broker", "broker"),
    "worker": (False, False),
    "prefix": ("mine", "mine"),
    "allow_unlisted_topics": (True, True),
    "dead_letter_policy": ({"revoked": "dead"}, {"revoked": "dead"}),
}
GOOD_OPTIONS: dict[str, tuple[Any, Any]] = {
    "delivery_timeout": (timedelta(hours=1), 3600.0),
    "max_in_flight": (5, 5),
    "max_in_flight_bytes": (5, 5),
    "max_backlog": (0, 0),
    "delivery": ("at_least_once", "at_least_once"),
    "lanes": (4, 4),
    "max_frame_size": (2048, 2048),
    "batching_with_keys": (True, True),
    "producer_name": ("p", "p"),
    "initial_sequence_id": (-1, -1),
    "hashing_scheme": ("JavaStringHash", "JavaStringHash"),
    "send_timeout": (0, 0.0),
    "batching_enabled": (True, True),
    "message_routing_mode": ("SinglePartition", "SinglePartition"),
    "compression_type": ("LZ4", "LZ4"),
    "encryption_keys": (["a", "b"], ("a", "b")),
}
#: Pulsar reads them only with batching.
GOOD_WITH_BATCHING: dict[str, tuple[Any, Any]] = {
    "batching_max_messages": (10, 10),
    "batching_max_publish_delay": (0.001, 0.001),
    "max_pending_messages": (10, 10),
}


def read(**given: Any) -> Settings:
    """Read these settings."""
    return Settings.read({f"stargate_{name}": value for name, value in given.items()})


@pytest.mark.parametrize("name", GOOD)
def test_each_setting(name: str) -> None:
    """A good value is kept in one form."""
    given, kept = GOOD[name]
    assert getattr(read(**{name: given}), name) == kept


@pytest.mark.parametrize("name", [*GOOD_OPTIONS, *GOOD_WITH_BATCHING])
def test_each_producer_option(name: str) -> None:
    """For all topics, for one topic, and for a call's own."""
    given, kept = {**GOOD_OPTIONS, **GOOD_WITH_BATCHING}[name]
    extra: dict[str, Any] = {"batching_enabled": True} if name in GOOD_WITH_BATCHING else {}
    everywhere = read(**extra, **{name: given})
    assert getattr(everywhere.options, name) == kept
    for_one = read(**extra, topics={"o": {"topic": "a", name: given}})
    assert getattr(for_one.resolve("o")[1], name) == kept
    assert getattr(for_one.resolve("a/b/c")[1], name) == getattr(ProducerOptions(**extra), name)
    assert getattr(ProducerOptions(**extra).changed({name: given}, "here"), name) == kept


@pytest.mark.parametrize("name", ["tls_ca", "tls_certificate", "tls_key"])
def test_files(name: str, tmp_path: Path) -> None:
    """A path or its text, of a file that is there."""
    path = tmp_path / "file.pem"
    path.touch()
    names = {name} | ({"tls_certificate", "tls_key"} if name != "tls_ca" else set())
    assert getattr(read(**dict.fromkeys(names, path)), name) == str(path)
    with pytest.raises(
        ConfigurationError, match=rf"^stargate_{name}: there is no file 'nowhere.pem'$"
    ):
        read(**{**dict.fromkeys(names, path), name: "nowhere.pem"})


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    """One alone is a mistake."""
    path = tmp_path / "file.pem"
    path.touch()
    for name in ("tls_certificate", "tls_key"):
        with pytest.raises(ConfigurationError, match="go together; one is missing"):
            read(**{name: path})


def test_defaults() -> None:
    """Nothing need be set; None is not set; and what is not ours is not looked at."""
    assert read() == Settings() == read(url=None, lanes=None)
    others: dict[Any, Any] = {"broker_url": 5, "stargazer_lanes": 5, 7: 8}
    assert Settings.read(others) == Settings()


BAD: list[tuple[str, Any, str]] = [
    ("url", 5, "stargate_url must be text that is not empty, not int"),
    ("url", "", "stargate_url must be text that is not empty"),
    ("url", "http://h", "ws://HOST:PORT or wss://HOST:PORT, and its scheme is 'http'"),
    ("url", "localhost:8080", "and its scheme is 'localhost'"),
    ("url", "ws://", "must be of the form"),
    ("url", "ws://h:port", "its host or port cannot be read"),
    ("url", "ws://h:99999", "its host or port cannot be read"),
    ("url", "ws://[h", "its host or port cannot be read"),
    ("url", "http://h", "and its scheme is 'http'; use ws:// with the same host and port"),
    ("url", "https://h", "and its scheme is 'https'; use wss:// with the same host and port"),
    ("url", "pulsar://h:6650", "and its scheme is 'pulsar'; that is the binary protocol"),
    ("url", "ws://h/ws/v2/producer/persistent/a/b/c", "has the path of a producer or consumer"),
    ("url", "ws://h/pulsar/ws/v2/", "has the path of a producer or consumer; give the service's"),
    ("url", "ws://h/ws", "has the path of a producer or consumer"),
    ("url", "ws://h\r\nX: y", "white space or an unprintable character"),
    ("url", "ws://h h", "white space or an unprintable character"),
    ("url", "ws://h?", "a user, a query or a fragment; use stargate_token"),
    ("url", "ws://h#f", "a user, a query or a fragment"),
    ("url", "ws://@h", "a user, a query or a fragment"),
    ("url", "ws://pulsar..svc:8080", "stargate_url names the host 'pulsar..svc', which cannot be"),
    ("url", f"ws://{'a' * 64}.svc", f"names the host '{'a' * 64}.svc', which cannot be one: betw"),
    ("tls_server_name", ".svc", "stargate_tls_server_name names the host '.svc', which cannot"),
    ("redis_url", 5, "stargate_redis_url must be text that is not empty, not int"),
    ("topic", 5, "stargate_topic must be text that is not empty, not int"),
    ("token", 5, "stargate_token must be text, or a callable that returns text, not int"),
    ("dead_letter_policy", "dead", "must be a mapping of errors to policies, not str"),
    ("topic", "a/b", "stargate_topic: topic 'a/b' is not of the form"),
    ("topics", ["a"], "stargate_topics must be a mapping of names to topics, not list"),
    ("topics", {"o": 5}, "stargate_topics['o'] must be a topic's full name, or a mapping"),
    ("topics", {"o": {}}, "stargate_topics['o'] must be a topic's full name, or a mapping"),
    ("topics", {"o": "a/b"}, "stargate_topics['o']: topic 'a/b' is not of the form"),
    ("topics", {"o": {"topic": 5}}, "stargate_topics['o']: topic must be text, not int"),
    (
        "topics",
        {"o": {"topic": "a", "lane": 5}},
        "stargate_topics['o']: there is no option 'lane'; did you mean 'lanes'?",
    ),
    (
        "topics",
        {"o": {"topic": "a", "lanes": "5"}},
        "stargate_topics['o']: lanes must be a whole number, not str",
    ),
    ("topics", {"o": {"topic": "a", "lanes": None}}, "must be a whole number, not NoneType"),
    ("topics", {"o": {"topic": "a", "url": "ws://h"}}, "there is no option 'url'"),
    ("topics", {"o": {"topic": "a", 5: 5}}, "stargate_topics['o']: there is no option 5"),
    ("topics", {"o": "a", "p": {"topic": "a", "lanes": 2}}, "the same topic with different"),
    ("topics", {5: "a"}, "the names in stargate_topics must be text, not int"),
    ("delivery_timeout", 0, "stargate_delivery_timeout must be at least 0.001 seconds"),
    ("delivery_timeout", "5", "must be seconds or a timedelta, not str"),
    ("delivery_timeout", True, "must be seconds or a timedelta, not bool"),
    ("delivery_timeout", float("nan"), "and at most 1000000000, and is nan"),
    ("delivery_timeout", float("inf"), "and at most 1000000000, and is inf"),
    ("delivery_timeout", 10**5000, "and at most 1000000000, and is <int>"),
    ("delivery_timeout", timedelta(days=-1), "and is -86400.0"),
    ("lease", 0.1, "stargate_lease must be at least 0.5 seconds"),
    ("max_in_flight", 0, "stargate_max_in_flight must be from 1 to 100000, and is 0"),
    ("max_in_flight", 10**5000, "and is <int>"),
    ("max_in_flight", 1.0, "stargate_max_in_flight must be a whole number, not float"),
    ("max_in_flight", True, "stargate_max_in_flight must be a whole number, not bool"),
    ("max_backlog", -1, "stargate_max_backlog must be from 0"),
    ("delivery", "at_most_once", "and is 'at_most_once'; did you mean 'at_least_once'?"),
    ("delivery", 5, "must be one of at_least_once, effectively_once, not int"),
    ("delivery", ["at_least_once"], "must be one of at_least_once, effectively_once, not list"),
    ("compression_type", "lz4", "must be one of NONE, LZ4, ZLIB, ZSTD, SNAPPY, and is 'lz4'"),
    (
        "via",
        "lanes",
        "stargate_via must be one of lane, broker, and is 'lanes'; did you mean 'lane'?",
    ),
    ("worker", "yes", "stargate_worker must be True or False, not str"),
    ("worker", 1, "stargate_worker must be True or False, not int"),
    ("token", 5, "stargate_token must be text, or a callable that returns text, not int"),
    ("token", "a.b.c\n", "begins or ends with white space, as the text of a file often does; use "),
    ("token", " a.b.c", "stargate_token begins or ends with white space"),
    ("token", "a.b c", "stargate_token is not a token: it contains white space"),
    ("token", "a.b\x00c", "stargate_token is not a token"),
    ("token", "a.b.ć", "a character that is not printable ASCII"),
    ("token", "Bearer ", "stargate_token is not a token"),
    ("token", "Bearer  a", "begins or ends with white space"),
    ("token", "", "stargate_token must be text, or a callable"),
    ("token", b"t", "not bytes"),
    ("tls_ca", 5, "stargate_tls_ca must be a file's path, not int"),
    ("tls_ca", "", "stargate_tls_ca: there is no file"),
    ("tls_ca", "\x00", "stargate_tls_ca: there is no file"),
    ("prefix", "a{b", "stargate_prefix must not contain a brace"),
    ("prefix", "a}b", "stargate_prefix must not contain a brace"),
    ("encryption_keys", "key", "stargate_encryption_keys must be a list of names, not str"),
    ("encryption_keys", 5, "must be a list of names, not int"),
    ("encryption_keys", [], "must be a list of names"),
    ("encryption_keys", ["a", 5], "must be a list of names"),
    ("encryption_keys", ["a,b"], "must be a list of names"),
    ("initial_sequence_id", -2, "must be from -1"),
    ("batching_max_messages", 5, "needs stargate_batching_enabled=True"),
    ("batching_max_publish_delay", 5, "needs stargate_batching_enabled=True"),
    ("max_pending_messages", 5, "needs stargate_batching_enabled=True"),
]


@pytest.mark.parametrize(
    ("name", "value", "words"), BAD, ids=[f"{row[0]}-{index}" for index, row in enumerate(BAD)]
)
def test_bad_values(name: str, value: Any, words: str) -> None:
    """The error names the setting, what was found, and the nearest right word."""
    with pytest.raises(ConfigurationError) as caught:
        read(**{name: value})
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stargate_urll", "there is no setting stargate_urll; did you mean 'stargate_url'?"),
        ("stargate_max_in_flights", "did you mean 'stargate_max_in_flight'?"),
        ("STARGATE_LANE", "there is no setting stargate_lane; did you mean 'stargate_lanes'?"),
        ("stargate_compression", "did you mean 'stargate_compression_type'?"),
        ("stargate_", "there is no setting stargate_"),
        ("stargate_topik", "did you mean 'stargate_topic'?"),
    ],
)
def test_unknown_settings(name: str, words: str) -> None:
    """The nearest right name is in the error, and the value is not."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.read({name: "s3cr3t"})
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_what_cannot_go_together() -> None:
    """Both are named."""
    with pytest.raises(ConfigurationError, match="effectively_once' does not work with .*batching"):
        read(delivery="effectively_once", batching_enabled=True)
    with pytest.raises(ConfigurationError, match=r"producer_name is one name, .*lanes=2"):
        read(producer_name="p", lanes=2)
    with pytest.raises(ConfigurationError, match="needs stargate_batching_enabled"):
        read(batching_enabled=False, batching_max_messages=5)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*GOOD, *GOOD_OPTIONS, *GOOD_WITH_BATCHING, "topics", "tls_ca"]), VALUES)
def test_any_value_is_read_or_refused(name: str, value: Any) -> None:
    """Never another error, and its words can be printed."""
    try:
        read(**{name: value})
    except ConfigurationError as error:
        assert f"stargate_{name}" in str(error)
        assert str(error).isprintable()


@pytest.mark.parametrize(
    "key", ["stargate_lanes", "CELERY_STARGATE_LANES", "celery_stargate_lanes"]
)
def test_names_with_a_namespace(key: str) -> None:
    """As Django's settings have them; the plain name counts beside it."""
    assert Settings.read({key: 3}, "CELERY").options.lanes == 3


def test_what_is_in_no_namespace_is_not_ours() -> None:
    """A Django project may have `STARGATE_…` settings of its own, as with any of Celery's."""
    assert Settings.read({"STARGATE_LANES": 3, "STARGATE_URLL": 3}, "CELERY") == Settings()
    assert Settings.read({"STARGATE_LANES": 3}).options.lanes == 3


@pytest.mark.parametrize("key", ["CELERY_STARGATE_LEASE", "celery_stargate_lease"])
def test_a_setting_that_nobody_would_hear(key: str) -> None:
    """Celery's usual namespace, in a configuration that is read without one."""
    with pytest.raises(ConfigurationError, match=f"{key} is not read.*stargate_lease"):
        Settings.read({key: 5.0})
    assert Settings.read({key: 5.0, "stargate_lease": 7.0}).lease == 7.0
    # Another program's, and that of the outbox, which reads Django's settings itself.
    Settings.read({"CELERY_STARGATE_OUTBOX_LEASE": 5.0, "CELERY_STARGATE_PORT": 1})


def test_an_app_with_a_namespace() -> None:
    """Celery's own way of reading Django's settings brings ours along; errors name ours."""
    app = Celery("django-like", set_as_current=False)
    found = {
        "CELERY_STARGATE_URL": "ws://h:1",
        "CELERY_STARGATE_MAX_IN_FLIGHT": 7,
        "CELERY_BROKER_URL": "memory://",
        "STARGATE_IS_ANOTHER_APPS": True,
    }
    app.config_from_object(_Module(found), namespace="CELERY")
    settings = Settings.read(app.conf, app.namespace)  # type: ignore[attr-defined]
    assert (settings.url, settings.options.max_in_flight) == ("ws://h:1", 7)
    found["CELERY_STARGATE_URLL"] = "x"
    app.config_from_object(_Module(found), namespace="CELERY")
    with pytest.raises(ConfigurationError) as caught:
        Settings.read(app.conf, app.namespace)  # type: ignore[attr-defined]

    assert str(caught.value) == (
        "there is no setting CELERY_STARGATE_URLL; did you mean 'CELERY_STARGATE_URL'?"
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LANES", "4", "CELERY_STARGATE_LANES must be a whole number, not str"),
        ("TOPIC", "a/b", "CELERY_STARGATE_TOPIC: topic 'a/b' is not of the form"),
        ("TOPICS", {"o": {}}, "CELERY_STARGATE_TOPICS['o'] must be"),
        (
            "BATCHING_MAX_MESSAGES",
            5,
            "CELERY_STARGATE_BATCHING_MAX_MESSAGES needs CELERY_STARGATE_",
        ),
        ("URL", "ws://h?token=a", "use CELERY_STARGATE_TOKEN for a token"),
    ],
)
def test_errors_name_settings_as_a_namespace_does(name: str, value: Any, words: str) -> None:
    """So that they are found in Django's settings."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.read({f"CELERY_STARGATE_{name}": value}, "CELERY")
    assert words in str(caught.value)
    assert "stargate_" not in str(caught.value)


def test_later_errors_name_settings_as_a_namespace_does() -> None:
    """What is missing is told when it is needed."""
    settings = Settings.read({"CELERY_STARGATE_TOPICS": {"o": "a/b/c"}}, "CELERY")
    with pytest.raises(ConfigurationError, match="^CELERY_STARGATE_URL is not set"):
        settings.require_url()
    with pytest.raises(ConfigurationError, match="set CELERY_STARGATE_TOPIC to the default one"):
        settings.resolve(None)
    with pytest.raises(InvalidMessage, match="'p' is not in CELERY_STARGATE_TOPICS; .* or set CEL"):
        settings.resolve("p")


class _Module:
    """A module of settings, as Django's is."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.__dict__.update(given)


def test_an_app_with_settings_of_its_own() -> None:
    """Set one by one on `app.conf`."""
    app = Celery("plain", set_as_current=False)
    app.conf.stargate_url = "ws://h:1"
    app.conf.update(stargate_lanes=2)
    settings = Settings.read(app.conf)
    assert (settings.url, settings.options.lanes) == ("ws://h:1", 2)


# Topics.


def test_topics_by_name_and_by_full_name() -> None:
    """The options of a topic are its own, however it is named; the others have the common ones."""
    settings = read(
        lanes=2,
        max_in_flight=7,
        topics={"o": {"topic": ORDERS, "lanes": 4}, "plain": "persistent://a/b/c"},
    )
    for name in ("o", ORDERS, "shop/eu/orders"):
        topic, options = settings.resolve(name)
        assert str(topic) == ORDERS
        assert (options.lanes, options.max_in_flight) == (4, 7)
    for name in ("plain", "a/b/c", "d/e/f"):
        assert settings.resolve(name)[1] == settings.options


def test_a_short_name_that_is_not_listed() -> None:
    """Is taken for a misspelled one; the error names the nearest, and what to do."""
    settings = read(topics={"orders": ORDERS, "invoices": "a/b/c"})
    with pytest.raises(InvalidMessage) as caught:
        settings.resolve("ordrs")
    assert str(caught.value) == (
        "topic 'ordrs' is not in stargate_topics; use a name from there or a full name, or set "
        "stargate_allow_unlisted_topics=True; did you mean 'orders'?"
    )
    with pytest.raises(ConfigurationError, match="^stargate_topic: topic 'ordrs' is not in .*"):
        read(topics={"orders": ORDERS}, topic="ordrs")
    allowed = read(topics={"orders": ORDERS}, topic="ordrs", allow_unlisted_topics=True)
    for name in (None, "ordrs"):
        assert str(allowed.resolve(name)[0]) == "persistent://public/default/ordrs"


def test_without_a_list_every_short_name_is_a_topic() -> None:
    """In `public/default`, as in Pulsar."""
    assert str(read().resolve("ordrs")[0]) == "persistent://public/default/ordrs"


def test_two_names_for_one_topic() -> None:
    """Are fine, where the options are the same."""
    settings = read(topics={"o": ORDERS, "p": {"topic": ORDERS, "max_in_flight": 1000}})
    assert settings.resolve("o") == settings.resolve("p")


def test_the_default_topic() -> None:
    """By its full name, or its name among the topics."""
    assert str(read(topic=ORDERS).resolve(None)[0]) == ORDERS
    named = read(topic="o", topics={"o": {"topic": ORDERS, "lanes": 3}})
    topic, options = named.resolve(None)
    assert (str(topic), options.lanes) == (ORDERS, 3)
    with pytest.raises(ConfigurationError, match=r"^no topic: give topic=…, or set stargate_topic"):
        read().resolve(None)


@pytest.mark.parametrize("topic", [5, "", "a/b", ["o"], {"o": 1}])
def test_a_malformed_topic(topic: Any) -> None:
    """Is the caller's mistake."""
    with pytest.raises(InvalidMessage, match="^topic "):
        read(topics={"o": ORDERS}).resolve(topic)


def test_the_url_is_required_where_it_is_used() -> None:
    """And not before."""
    assert read(url="ws://h").require_url() == "ws://h"
    with pytest.raises(ConfigurationError, match="^stargate_url is not set; give Pulsar's service"):
        read().require_url()


# Producer options.


def test_the_query_of_every_parameter() -> None:
    """Pulsar's names, milliseconds, lower-case flags; only what is set."""
    options = read(
        producer_name="p",
        initial_sequence_id=-1,
        hashing_scheme="Murmur3_32Hash",
        send_timeout=1.5,
        batching_enabled=True,
        batching_max_messages=10,
        batching_max_publish_delay=0.005,
        max_pending_messages=7,
        message_routing_mode="RoundRobinPartition",
        compression_type="ZSTD",
        encryption_keys=("a", "b"),
    ).options
    assert options.query() == {
        "producerName": "p",
        "initialSequenceId": "-1",
        "hashingScheme": "Murmur3_32Hash",
        "sendTimeoutMillis": "1500",
        "batchingEnabled": "true",
        "batchingMaxMessages": "10",
        "batchingMaxPublishDelay": "5",
        "maxPendingMessages": "7",
        "messageRoutingMode": "RoundRobinPartition",
        "compressionType": "ZSTD",
        "encryptionKeys": "a,b",
    }
    assert ProducerOptions().query() == {}
    assert ProducerOptions(batching_enabled=False).query() == {"batchingEnabled": "false"}


def test_differing_and_changed_are_each_others_inverse() -> None:
    """So a worker that does not know a topic's options gets them from the caller."""
    base = ProducerOptions()
    other = base.changed({"lanes": 4, "encryption_keys": ["a"]}, "here")
    assert base.differing(base) == {}
    assert other.differing(base) == {"lanes": 4, "encryption_keys": ("a",)}
    assert base.changed(other.differing(base), "there") == other
    assert "lanes" in ProducerOptions.names()


# Secrets.


def test_no_secret_is_shown() -> None:
    """Neither the token nor Redis' password."""
    settings = read(token="s3cr3t", redis_url="redis://:s3cr3t@host")
    assert "s3cr3t" not in repr(settings)
    assert "s3cr3t" not in str(settings)


@pytest.mark.parametrize(
    "name",
    ["url", "lease", "max_in_flight", "worker", "tls_ca", "encryption_keys", "delivery"],
)
def test_a_secret_in_the_wrong_setting_is_not_shown(name: str) -> None:
    """The type is told where the type is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        read(**{name: {"token": "s3cr3t"}})
    assert "s3cr3t" not in repr(caught.value)


def test_a_secret_in_the_url_is_not_shown() -> None:
    """It is told where a token belongs."""
    for url in ("ws://u:s3cr3t@h", "ws://h?token=s3cr3t", "ws://:s3cr3t@[h", "http://s3cr3t@h"):
        with pytest.raises(ConfigurationError) as caught:
            read(url=url)
        assert "s3cr3t" not in repr(caught.value)


class TestEffectivelyOnce:
    """What it needs, and what cannot go with it."""

    def test_it_is_there(self) -> None:
        """With lanes, or with partitions, each of which has one."""
        assert read(delivery="effectively_once", lanes=3).options.lane_count == 3
        options = read(delivery="effectively_once", partitions=4, lanes=4).options
        assert options.lane_count == 4
        assert read().options.lane_count == 1

    @pytest.mark.parametrize(
        ("name", "value"),
        [("producer_name", "p"), ("initial_sequence_id", 5), ("send_timeout", 30)],
    )
    def test_what_it_sets_by_itself(self, name: str, value: Any) -> None:
        """The lane's name and numbers are its own."""
        with pytest.raises(ConfigurationError, match=f"stargate_{name} does not work with .*_once"):
            read(delivery="effectively_once", **{name: value})

    def test_partitions_without_it(self) -> None:
        """Pulsar chooses them itself."""
        with pytest.raises(ConfigurationError, match="partitions needs stargate_delivery"):
            read(partitions=4)

    def test_lanes_that_are_not_its_partitions(self) -> None:
        """Which would it be?"""
        with pytest.raises(ConfigurationError, match="leave stargate_lanes=2 out"):
            read(delivery="effectively_once", partitions=4, lanes=2)

    def test_a_hash_that_only_the_lanes_know(self) -> None:
        """It is for partitions, and never in the query."""
        with pytest.raises(ConfigurationError, match="BoostHash.*needs stargate_partitions"):
            read(hashing_scheme="BoostHash")
        options = read(
            delivery="effectively_once",
            partitions=4,
            hashing_scheme="BoostHash",
            message_routing_mode="SinglePartition",
            compression_type="LZ4",
        ).options
        assert options.query() == {"compressionType": "LZ4"}


def test_messages_that_stay_in_memory_need_no_service() -> None:
    """What would connect to one says what the URL is for."""
    settings = read(url="memory://")
    assert settings.in_memory
    with pytest.raises(ConfigurationError, match=r"memory://, which keeps messages in the process"):
        settings.require_service()
    assert read(url="ws://h").require_service() == "ws://h"


def test_the_outboxs_settings_are_djangos_part() -> None:
    """A `stargate_outbox_…` is neither read nor refused here."""
    assert read(outbox_batch=5) == Settings()


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ({"nonsense error": "dead"}, "neither a class nor a code of errors"),
        ({"revoked": "retry"}, r"\['revoked'\] is 'retry', and such a message is not refused"),
    ],
)
def test_a_wrong_dead_letter_policy(policies: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read(dead_letter_policy=policies)
