"""Outbox: their names, their keys, and which one a message takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate.lanes.lane import CONTEXTS, Lane, lane_for
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.model.topic import Topic

TOPIC = Topic.parse("orders")


def hash_tag(key: str) -> str:
    """Return what Redis Cluster hashes of a key: between its first brace and the next one."""
    start = key.index("{")
    return key[start + 1 : key.index("}", start + 1)]


@given(
    st.sampled_from(
        [CONTEXTS, "persistent://a/b/c", "non-persistent://a/b/c#1", "persistent://a/b/{#}"]
    ),
    st.integers(0, 1023),
)
def test_names_are_read_back(topic: str, index: int) -> None:
    """Whatever the topic holds, a `#` too."""
    lane = Lane(topic, index)
    assert Lane.parse(lane.name) == lane


@pytest.mark.parametrize(
    "name",
    [
        "",
        "#",
        "#0",
        f"{TOPIC}",
        "contexts#",
        "contexts#x",
        "contexts#-1",
        "contexts#1_0",
        "contexts#01",
        "contexts# 1",
        "contexts#٣",
        f"contexts#{'1' * 5000}",
        "a/b#0",
        "orders#0",
    ],
)
def test_what_is_no_name(name: str) -> None:
    """Is a `ValueError`: each lane has one name."""
    with pytest.raises(ValueError, match="is not the name of a lane|^topic "):
        Lane.parse(name)


@pytest.mark.parametrize(
    "topic", ["persistent://a/b/c", "persistent://a/b/{x}", "persistent://a/b/}{", CONTEXTS]
)
def test_all_keys_of_a_lane_are_in_one_slot(topic: str) -> None:
    """Even where the topic holds braces; and no two lanes share a key."""
    lane, other = Lane(topic, 0), Lane(topic, 1)
    keys = [lane.key("stargate", part) for part in ("log", "contexts", "answers:x")]
    assert len({hash_tag(key) for key in keys}) == 1
    assert hash_tag(keys[0])
    assert keys[0] == f"stargate:{{{topic}#0}}:log"
    assert not {other.key("stargate", "log")} & set(keys)


def test_the_lane_of_contexts_has_no_messages() -> None:
    """Every other one has a topic."""
    assert not Lane(CONTEXTS).has_messages
    assert Lane(str(TOPIC)).has_messages


def test_the_registrys_keys() -> None:
    """Lanes, workers and events are in one slot."""
    registry = RegistryKeys("mine")
    assert registry.key("lanes") == "mine:{registry}:lanes"
    assert hash_tag(registry.key("lanes")) == hash_tag(registry.key("workers"))


@given(st.none() | st.text(), st.text())
def test_one_lane_takes_all(key: str | None, context: str) -> None:
    """The default: a topic's order is total."""
    assert lane_for(TOPIC, 1, key, context) == Lane(str(TOPIC), 0)


@given(st.integers(2, 1024), st.text(), st.text(), st.text())
def test_a_key_always_takes_the_same_lane(lanes: int, key: str, one: str, two: str) -> None:
    """Whatever the context."""
    found = lane_for(TOPIC, lanes, key, one)
    assert found == lane_for(TOPIC, lanes, key, two)
    assert 0 <= found.index < lanes
    assert found.topic == str(TOPIC)


def test_messages_without_a_key_are_spread() -> None:
    """By their context."""
    found = {lane_for(TOPIC, 4, None, f"context-{number}").index for number in range(100)}
    assert found == {0, 1, 2, 3}


def test_the_choice_is_for_ever() -> None:
    """Another version must take the same lane, or a key's order would be lost at an upgrade."""
    assert [lane_for(TOPIC, 16, key, "").index for key in ("", "a", "é", "key-1")] == [0, 3, 14, 10]


def test_the_lanes_of_a_cluster_are_in_buckets() -> None:
    """Those of a topic fill them evenly; each shares a slot with its bucket's registry."""
    lanes = [Lane("persistent://public/default/t", index) for index in range(32)]
    buckets = [lane.bucket("mine{16}") for lane in lanes]
    assert sorted(buckets) == sorted([*range(16), *range(16)])
    registries = RegistryKeys.of_all("mine{16}")
    for lane, bucket in zip(lanes, buckets, strict=True):
        key = lane.key("mine{16}", "log")
        assert key.startswith("mine:{") and key.endswith(f"}}:{lane.name}:log")
        assert hash_tag(key) == hash_tag(registries[bucket].key("lanes"))
    assert len({hash_tag(each.key("lanes")) for each in registries}) == 16


def test_a_single_server_has_one_bucket() -> None:
    """And the names of its keys are what they were."""
    lane = Lane("persistent://public/default/t", 3)
    assert lane.bucket("mine") == 0
    assert lane.key("mine", "log") == f"mine:{{{lane.name}}}:log"
    [registry] = RegistryKeys.of_all("mine")
    assert registry.key("lanes") == "mine:{registry}:lanes"
