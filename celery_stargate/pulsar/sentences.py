"""Pulsar's error pages and messages as one plain line."""

from __future__ import annotations

import html
import re

__all__ = ["handshake_sentence", "plain"]


# Each pattern can match in one way only, so that no page takes long.
_TAGS = re.compile(r"<[^<>]*>")


_MESSAGE_ROW = re.compile(r"<th> ?MESSAGE: ?</th> ?<td>([^<]*)</td>", re.IGNORECASE)


#: The broker's error inside the proxy's error.
_BROKER_SENTENCE = re.compile(r'"errorMsg"\s*:\s*"((?:[^"\\]|\\.)+)"')


_TITLE = re.compile(r"<title> ?(?:Error \d{3} ?)?([^<]*)</title>", re.IGNORECASE)


def handshake_sentence(status: int, body: bytes | None) -> str:
    """Return the reason from the error page of a refused handshake, at most 500 characters.

    Arguments:
        status: the HTTP status. Without a reason in the page, the text has only the status.
        body: Jetty's HTML page.
    """
    text = " ".join((body or b"")[:20_000].decode("utf-8", "replace").split())
    broker = _BROKER_SENTENCE.search(_unescape(text))
    if broker:
        return f"HTTP {status}: {plain(broker.group(1))}"
    for pattern in (_MESSAGE_ROW, _TITLE):
        found = pattern.search(text)
        sentence = found and plain(found.group(1))
        if sentence:
            return f"HTTP {status}: {sentence}"
    rest = plain(_TAGS.sub(" ", text))
    return f"HTTP {status}: {rest}" if rest else f"HTTP {status} at the handshake"


def plain(text: object) -> str:
    """Return a text from outside as one printable line of at most 500 characters."""
    line = " ".join(_unescape(str(text)).split())
    return "".join(c if c.isprintable() else "?" for c in line)[:500]


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:
        # A numeric entity with more digits than Python converts.
        return text
