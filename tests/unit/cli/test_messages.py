"""Messages of arguments, standard input and files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from celery_stargate import InvalidMessage, Message
from celery_stargate.cli import messages
from celery_stargate.cli.messages import Form, read_messages


def read(text: bytes, form: Form, arguments: Iterable[str] = ()) -> list[Message]:
    found = read_messages(arguments, [("file", io.BytesIO(text))], form)
    return [each for each in found if each is not None]


def test_each_argument_is_a_message_and_so_is_a_file() -> None:
    form = Form(key="k", properties={"a": "b"})
    found = read(b"\x00\xff\n", form, ["one", "two"])
    assert [message.payload for message in found] == ["one", "two", b"\x00\xff\n"]
    assert {message.key for message in found} == {"k"}
    assert found[2].properties == {"a": "b"}


def test_each_line_is_a_message() -> None:
    found = read(b"one\r\n\ntwo", Form(lines=True))
    assert [message.payload for message in found] == [b"one", b"", b"two"]


def test_lines_of_json_are_texts_or_objects() -> None:
    form = Form(json_lines=True, key="shared", properties={"a": "b"})
    found = read(b'"text"\n{"payload": "x", "key": "own", "deliver_after": 5}\n\n', form)
    assert [(each.payload, each.key) for each in found] == [("text", "shared"), ("x", "own")]
    assert found[1].properties == {"a": "b"}
    assert found[1].deliver_after == 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "file, line 2 is no JSON"),
        (b"5", "file, line 2: it must be a text or an object with a payload, not int"),
        (b"[]", "not list"),
        (b'{"key": "k"}', "file, line 2: "),
        (b'{"payload": "x", "kye": "k"}', "did you mean 'key'"),
        (b'{"payload": {}}', "use Message.json"),
        (b'{"payload": "x", "key": 5}', "file, line 2: key"),
    ],
)
def test_a_wrong_line_is_named(line: bytes, words: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        read(b'"first"\n' + line, Form(json_lines=True))
    assert words in str(caught.value)


def test_reads_no_more_than_is_asked_for() -> None:
    stream = io.BytesIO(b"one\ntwo\nthree")
    next(read_messages([], [("file", stream)], Form(lines=True)))
    assert stream.tell() == 4


@pytest.mark.parametrize("step", [1, 3, 1 << 16])
def test_lines_of_a_file_are_those_that_python_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    """In however many parts they come."""
    monkeypatch.setattr(messages, "_STEP", step)
    path = tmp_path / "lines"
    for text in (b"", b"\n", b"one", b"one\n", b"one\r\n\n\rtwo\n\nthree"):
        path.write_bytes(text)
        with path.open("rb") as stream:
            found = read_messages([], [("file", stream)], Form(lines=True))
            assert list(found) == read(text, Form(lines=True))


def test_a_pause_in_the_input_is_told_once() -> None:
    """The lines before it are there, and the one that has begun is not."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as stream, os.fdopen(writes, "wb", buffering=0) as feed:
        found = read_messages([], [("pipe", stream)], Form(json_lines=True))
        feed.write(b'"one"\n"tw')
        assert next(found) == Message(payload="one")
        assert next(found) is None
        feed.write(b'o"\n')
        assert next(found) == Message(payload="two")
        assert next(found) is None
        feed.write(b"5")
        feed.close()
        with pytest.raises(InvalidMessage, match="pipe, line 3"):
            next(found)
