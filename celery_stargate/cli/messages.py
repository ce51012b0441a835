"""The messages that ``produce`` sends: of arguments, standard input or files."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from celery_stargate.errors import InvalidMessage
from celery_stargate.model.message import Message, check_messages
from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["Form", "read_messages"]

#: How much of a stream is read in one step, in bytes.
_STEP = 1 << 16
#: Seconds without input after which it is told that there is none for now.
_PAUSE = 0.1


@dataclass(frozen=True)
class Form:
    """How a source is split into messages, and what all of them get."""

    #: Each line is a message.
    lines: bool = False
    #: Each line is a JSON text (the payload) or object (the fields of a message).
    json_lines: bool = False
    key: str | None = None
    properties: Mapping[str, str] | None = None

    def of_payload(self, payload: str | bytes) -> Message:
        """Return the message of a payload.

        Raises:
            InvalidMessage: the key or a property is not usable.
        """
        return Message(payload=payload, key=self.key, properties=self.properties or None)

    def of_json(self, line: bytes, place: str) -> Message:
        """Return the message of a line of JSON; its own key and properties win.

        Raises:
            InvalidMessage: it is no JSON text or object, or has a wrong field; it names the place.
        """
        try:
            found = msgspec.json.decode(line)
            if isinstance(found, str):
                return self.of_payload(found)
            if not isinstance(found, dict):
                raise InvalidMessage(
                    f"it must be a text or an object with a payload, not {type(found).__name__}"
                )
            shared = {"key": self.key, "properties": self.properties or None}
            given = {name: value for name, value in shared.items() if value is not None}
            [message], _ = check_messages({**given, **found})
        except InvalidMessage as error:
            raise InvalidMessage(f"{place}: {error.problem}") from None
        except UNDECODABLE as error:
            raise InvalidMessage(f"{place} is no JSON: {error}") from None
        return message


def read_messages(
    arguments: Iterable[str], sources: Iterable[tuple[str, BinaryIO]], form: Form
) -> Iterator[Message | None]:
    """Read messages, one at a time; None where there is no further line for now.

    Arguments:
        arguments: a payload each.
        sources: name and stream of each file; what is not split is one message.
        form: how they are split.

    Raises:
        InvalidMessage: a message cannot be published; the text names its place.
        OSError: a stream cannot be read.
    """
    for argument in arguments:
        yield form.of_payload(argument)
    for name, stream in sources:
        if not (form.lines or form.json_lines):
            yield form.of_payload(stream.read())
            continue
        number = 0
        for raw in _lines(stream):
            if raw is None:
                yield None
                continue
            number += 1
            line = raw.rstrip(b"\r\n")
            if form.json_lines:
                # An empty line at the end of a file is no message.
                if line.strip():
                    yield form.of_json(line, f"{name}, line {number}")
            else:
                yield form.of_payload(line)


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield a stream's lines; None once when no more comes, and wait then.

    A line may have its end, or not. The stream's own buffer is not used: nobody can ask it whether
    it holds a line.
    """
    try:
        descriptor = stream.fileno()
    except OSError:
        # Not from the stream itself: who stops before its end would close it.
        yield from (line for line in stream)
        return
    begun: list[bytes] = []
    pause: float | None = _PAUSE
    while True:
        if not select.select([descriptor], [], [], pause)[0]:
            pause = None
            yield None
            continue
        pause = _PAUSE
        part = os.read(descriptor, _STEP)
        if not part:
            break
        first, *lines = part.split(b"\n")
        begun.append(first)
        if lines:
            yield b"".join(begun)
            yield from lines[:-1]
            begun = [lines[-1]]
    last = b"".join(begun)
    if last:
        yield last
