"""Topic names and producer URLs: round trips, and nothing smuggled into a path or a query."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celery_stargate import ConfigurationError, InvalidMessage
from celery_stargate.model.topic import Topic, producer_url, split_producer_url

SERVICE = "ws://host:8080"

#: One part of a name: whatever is printable, without a slash or white space.
PART = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=20
).filter(lambda part: part not in {".", ".."} and part.isprintable())
#: Parts that a careless URL would give another meaning.
NASTY = st.sampled_from(
    ["a?b=c", "a#b", "%2f", "%2F..%2F..", "a%00", "a&token=x", "{a}", "}{", "a;b", "a:b@c", "é😀"]
)
#: The name of a tenant or a namespace.
ENTITY = st.from_regex(r"[-=:.A-Za-z0-9_]{1,20}", fullmatch=True).filter(
    lambda part: part not in {".", ".."}
)
DOMAIN = st.sampled_from(["persistent", "non-persistent"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders", "persistent://public/default/orders"),
        ("shop/eu/orders", "persistent://shop/eu/orders"),
        ("persistent://shop/eu/orders", "persistent://shop/eu/orders"),
        ("non-persistent://shop/eu/orders", "non-persistent://shop/eu/orders"),
        ("persistent://shop/eu/a/b", "persistent://shop/eu/a/b"),
        ("persistent://shop/eu/orders-partition-0", "persistent://shop/eu/orders-partition-0"),
    ],
)
def test_names_are_read_as_pulsar_does(text: str, expected: str) -> None:
    """Short or full."""
    assert str(Topic.parse(text)) == expected


def test_persistent() -> None:
    """What is published to the other kind is stored nowhere."""
    assert Topic.parse("a").persistent
    assert not Topic.parse("non-persistent://a/b/c").persistent


@given(DOMAIN, ENTITY, ENTITY, PART | NASTY)
def test_round_trip_of_names(domain: str, tenant: str, namespace: str, name: str) -> None:
    """A full name is read into its parts, and written again."""
    text = f"{domain}://{tenant}/{namespace}/{name}"
    topic = Topic.parse(text)
    assert topic == Topic(domain, tenant, namespace, name)
    assert str(topic) == text


@given(
    DOMAIN,
    ENTITY,
    ENTITY,
    PART | NASTY | st.just("a/b"),
    st.dictionaries(PART | NASTY, st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
)
@example("persistent", "a=b", "c:d", "?token=x", {"producerName": "a&b=c#d\r\nX: y"})
def test_nothing_is_smuggled_into_a_url(
    domain: str, tenant: str, namespace: str, name: str, query: dict[str, str]
) -> None:
    """A URL's parts are what went in, whoever reads it; and our own reader gives the topic back."""
    topic = Topic(domain, tenant, namespace, name)
    url = producer_url(SERVICE, topic, query)
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("ws", "host:8080", "")
    segments = [unquote(segment) for segment in parts.path.split("/")]
    assert segments == ["", "ws", "v2", "producer", domain, tenant, namespace, name]
    assert dict(parse_qsl(parts.query, keep_blank_values=True)) == query
    assert split_producer_url(url) == (SERVICE, topic, parts.query)


@pytest.mark.parametrize("service", ["ws://host", "ws://host/", "wss://host:1/pulsar/"])
def test_a_service_url_may_have_a_path(service: str) -> None:
    """Behind a proxy; a slash at its end does not count."""
    url = producer_url(service, Topic.parse("a"), {})
    assert url == f"{service.rstrip('/')}/ws/v2/producer/persistent/public/default/a"
    assert split_producer_url(url) == (service.rstrip("/"), Topic.parse("a"), "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (5, "topic must be text, not int"),
        (None, "topic must be text, not NoneType"),
        (b"orders", "topic must be text, not bytes"),
        ("", "is not of the form persistent://TENANT/NAMESPACE/TOPIC"),
        ("/", "is not of the form"),
        ("eu/orders", "is not of the form"),
        ("persistent://", "is not of the form"),
        ("persistent://a/b", "is not of the form"),
        ("persistent://a/b/", "is not of the form"),
        ("persistent:///b/c", "is not of the form"),
        ("persistent://a//c", "is not of the form"),
        ("persistent://a/b//c", "is not of the form"),
        ("persistent://a/b/c/", "is not of the form"),
        ("kafka://a/b/c", "has the domain 'kafka'; it must be one of persistent, non-persistent"),
        ("Persistent://a/b/c", "has the domain 'Persistent'"),
        ("://a/b/c", "has the domain ''"),
        ("persistent://a/b/c d", "contains white space or an unprintable character"),
        ("orders\r\nX: y", "contains white space or an unprintable character"),
        ("orders\x00", "contains white space or an unprintable character"),
        ("orders\u2028", "contains white space or an unprintable character"),
        ("orders\u00a0", "contains white space or an unprintable character"),
        ("orders\ud800", "contains white space or an unprintable character"),
        ("a/b/..", "has a part '.' or '..'"),
        ("../../orders", "has a part '.' or '..'"),
        ("persistent://a/./c", "has a part '.' or '..'"),
        ("a/b/c/../d", "has a part '.' or '..'"),
        ("pub+lic/default/x", "has the tenant 'pub+lic'; Pulsar allows only ASCII letters, digits"),
        ("persistent://public/de(fault/x", "has the namespace 'de(fault'; Pulsar allows only"),
        ("persistent://публичный/default/x", "has the tenant 'публичный'; Pulsar allows only"),
        ("a%2fb/c/d", "has the tenant 'a%2fb'"),
        ("a/b;c/d", "has the namespace 'b;c'"),
    ],
)
def test_malformed_names(text: object, words: str) -> None:
    """Each is told in one printable line."""
    with pytest.raises(InvalidMessage) as caught:
        Topic.parse(text)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.text())
def test_any_text_is_a_topic_or_invalid(text: str) -> None:
    """Never another error, and what is read can be asked of Pulsar."""
    try:
        topic = Topic.parse(text)
    except InvalidMessage as error:
        assert str(error).isprintable()
    else:
        assert Topic.parse(str(topic)) == topic
        assert split_producer_url(producer_url(SERVICE, topic, {}))[1] == topic


#: What a URL is made of, and what its readers stumble over.
PIECES = st.sampled_from(
    [
        "ws",
        "wss",
        "http",
        ":",
        "//",
        "/",
        "?",
        "#",
        "@",
        "%",
        "%2f",
        "%00",
        "%ff",
        "..",
        "\t",
        "\n",
        "host",
        "[::1]",
        "[",
        ":8080",
        ":x",
        "persistent",
        "a",
        "a=b",
        "℀",
        "/ws/v2/producer/",
    ]
)


@given(
    st.sampled_from(
        ["", f"{SERVICE}/ws/v2/producer/", f"{SERVICE}/ws/v2/producer/persistent/a/b/"]
    ),
    st.text() | st.lists(PIECES).map("".join),
)
def test_any_text_is_a_producers_url_or_refused(start: str, rest: str) -> None:
    """Never another error; and what is read of one is asked of Pulsar as it was given."""
    try:
        service, topic, query = split_producer_url(start + rest)
    except (ConfigurationError, InvalidMessage) as error:
        assert str(error).isprintable()
        return
    assert urlsplit(service)._replace(scheme="", netloc="", path="") == ("", "", "", "", "")
    again = producer_url(service, topic, {}) + (f"?{query}" if query else "")
    assert split_producer_url(again) == (service, topic, query)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ws://host:8080",
        "http://host:8080/ws/v2/producer/persistent/a/b/c",
        "ws:///ws/v2/producer/persistent/a/b/c",
        "ws://host/ws/v2/consumer/persistent/a/b/c/s",
        "ws://host/ws/v2/producer/persistent/a/b",
        "ws://host/ws/v2/producer/persistent/a/b/c#d",
        "ws://host:port/ws/v2/producer/persistent/a/b/c",
        "ws://host:99999/ws/v2/producer/persistent/a/b/c",
        "ws://[host/ws/v2/producer/persistent/a/b/c",
        "ws://host/ws/v2/producer/persistent/a/b/%ff",
        "ws://host/ws/v2/producer/persistent/a/b/c\r\nX: y",
        None,
        5,
        b"ws://host/ws/v2/producer/persistent/a/b/c",
    ],
)
def test_malformed_producer_urls(url: object) -> None:
    """Are mistakes of the configuration."""
    with pytest.raises(ConfigurationError, match="a producer's URL is ws://HOST:PORT/ws/v2/"):
        split_producer_url(url)  # type: ignore[arg-type]


def test_a_host_that_cannot_be_one() -> None:
    """It is no host that is away: nothing helps but another URL."""
    with pytest.raises(ConfigurationError, match="the URL names the host 'a..b', which cannot be"):
        split_producer_url("ws://a..b/ws/v2/producer/persistent/a/b/c")


@pytest.mark.parametrize(
    "url",
    [
        "ws://host/ws/v2/producer/persistent//b/c",
        "ws://host/ws/v2/producer/kafka/a/b/c",
        "ws://host/ws/v2/producer/persistent/a/b/..",
        "ws://host/ws/v2/producer/persistent/a/b/c%0d%0a",
    ],
)
def test_malformed_topics_in_producer_urls(url: str) -> None:
    """Are told as any malformed topic is."""
    with pytest.raises(InvalidMessage, match="^topic "):
        split_producer_url(url)


def test_an_error_shows_neither_user_nor_query() -> None:
    """They may hold a password or a token."""
    with pytest.raises(ConfigurationError) as caught:
        split_producer_url("http://u:s3cr3t@host/ws/v2/producer/persistent/a/b/c?token=s3cr3t")
    assert "s3cr3t" not in repr(caught.value)
    assert "http://host/ws/v2/producer/persistent/a/b/c" in str(caught.value)


def test_a_partition_is_a_topic() -> None:
    """With a name of its own."""
    assert (
        str(Topic.parse("orders").partition(3)) == "persistent://public/default/orders-partition-3"
    )
    odd = Topic.parse("a-partition-1")
    assert odd.partition(12).whole() == (odd, 12)
