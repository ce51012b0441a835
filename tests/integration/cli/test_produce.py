"""``produce``: what is in the topic, and the exit code that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from celery_stargate.testing import LocalPulsar
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.rig import Reader, read_back


@pytest.fixture
def app(make_app: MakeApp, local: LocalPulsar) -> Celery:
    """An app on a LocalPulsar."""
    return make_app(local.url, produce_timeout=10.0)


def test_sends_arguments_with_key_and_properties(run: Run, local: LocalPulsar, topic: str) -> None:
    ran = run("produce", "hello", "world", "--key", "k", "--property", "a=b=c")
    assert ran.code == 0
    assert ran.out.startswith("2 stored, 0 refused, 0 unknown in ")
    with Reader(local.url, topic) as reader:
        first, second = reader.take(2)
    assert (first["payload"], second["payload"]) == (b"hello", b"world")
    assert first["key"] == "k"
    assert first["properties"] == {"a": "b=c"}


def test_sends_more_lines_than_one_chunk_in_order(run: Run, local: LocalPulsar, topic: str) -> None:
    lines = [f"line {n}" for n in range(2500)]
    ran = run("produce", "--lines", "--json", stdin="\n".join(lines))
    assert ran.code == 0
    assert ran.json["stored"] == 2500
    assert read_back(local.url, topic, 2500) == [line.encode() for line in lines]


def test_sends_files_and_lines_of_json(
    run: Run, local: LocalPulsar, topic: str, tmp_path: Path
) -> None:
    whole, lines = tmp_path / "whole", tmp_path / "lines"
    whole.write_bytes(b"\x00\x01")
    lines.write_text('{"payload": "x", "key": "k"}\n"y"\n')
    assert run("produce", "--file", str(whole)).code == 0
    assert run("produce", "--json-lines", "--file", str(lines)).code == 0
    assert read_back(local.url, topic, 3) == [b"\x00\x01", b"x", b"y"]


def test_refused_is_1(run: Run, local: LocalPulsar) -> None:
    local.faults.fail_sends(
        "org.apache.pulsar.client.api.PulsarClientException$NotAllowedException: not you",
        when=lambda frame: frame.payload == b"bad",
        count=None,
    )
    ran = run("produce", "good", "bad")
    assert ran.code == 1
    assert "1 stored, 1 refused, 0 unknown" in ran.out
    assert "refused: " in ran.err
    assert "not you" in ran.err


def test_a_wrong_message_is_2_and_says_what_was_sent(run: Run, local: LocalPulsar) -> None:
    ran = run("produce", "--json-lines", stdin='"good"\n{"payload": 5}\n')
    assert ran.code == 2
    assert "standard input, line 2" in ran.err
    assert "0 messages before it were sent" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "--property", "a"], "NAME=VALUE"),
        (["x", "--topic", "a b"], "white space"),
        (["--lines", "--json-lines"], "not both"),
        (["--file", "nothere"], "nothere"),
        (["x", "--timeout", "soon"], "no duration"),
    ],
)
def test_a_wrong_argument_is_2(run: Run, arguments: list[str], words: str) -> None:
    ran = run("produce", *arguments)
    assert ran.code == 2
    assert words in ran.err


def test_nobody_knows_is_3(run: Run, local: LocalPulsar) -> None:
    local.faults.drop_receipts()
    ran = run("produce", "x", "--timeout", "1s", "--json")
    assert ran.code == 3
    assert (ran.json["stored"], ran.json["unknown"]) == (0, 1)


def test_tells_progress_on_standard_error(run: Run) -> None:
    ran = run("produce", "x", "--progress")
    assert "1 done, 0 in flight" in ran.err
    assert run("produce", "x").err == ""
