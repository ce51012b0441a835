"""Messages of arguments, standard input and files."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest

from celery_stargate import InvalidMessage, Message
from celery_stargate.cli.messages import Form, read_messages


def read(text: bytes, form: Form, arguments: Iterable[str] = ()) -> list[Message]:
    return list(read_messages(arguments, [("file", io.BytesIO(text))], form))


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
    messages = read_messages([], [("file", stream)], Form(lines=True))
    next(messages)
    assert stream.tell() == 4
