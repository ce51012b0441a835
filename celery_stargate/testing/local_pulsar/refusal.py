"""Refused handshakes: an HTTP status, and the broker's reason in a page like Jetty's."""

from __future__ import annotations

import itertools
from http import HTTPStatus

_request_ids = itertools.count(1)


class Refusal(Exception):
    """A handshake that gets an HTTP error instead of an upgrade.

    Args:
        status: the HTTP status.
        sentence: the reason in the page.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence


def bad_query(sentence: str) -> Refusal:
    """Return the refusal of a query parameter."""
    return Refusal(400, f"Invalid query params: {sentence}")


def broker_says(text: str) -> str:
    """Return the broker's error as its WebSocket proxy passes it on."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'{{"errorMsg":"{text}","reqId":{next(_request_ids)}, '
        '"remote":"127.0.0.1/127.0.0.1:6650", "local":"/127.0.0.1:6650"}'
    )


def not_created(status: int, text: str) -> Refusal:
    """Return the refusal for a producer or consumer that the broker does not create."""
    return Refusal(status, f"Failed to create producer/consumer: {broker_says(text)}")


def phrase(status: int) -> str:
    """Return the reason phrase of a status."""
    if status == 500:
        return "Server Error"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def page(status: int, sentence: str, path: str) -> bytes:
    """Return an error page like Jetty's."""
    said = _escape(sentence)
    return (
        '<html>\n<head>\n<meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/>\n'
        f"<title>Error {status} {said}</title>\n</head>\n"
        f"<body><h2>HTTP ERROR {status} {said}</h2>\n<table>\n"
        f"<tr><th>URI:</th><td>{_escape(path)}</td></tr>\n"
        f"<tr><th>STATUS:</th><td>{status}</td></tr>\n"
        f"<tr><th>MESSAGE:</th><td>{said}</td></tr>\n"
        "<tr><th>SERVLET:</th><td>LocalPulsar</td></tr>\n</table>\n<hr/>\n\n</body>\n</html>\n"
    ).encode("latin-1", "replace")


def _escape(text: str) -> str:
    for sign, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("'", "apos")):
        text = text.replace(sign, f"&{name};")
    return text
