"""Read Pulsar's admin API beside the WebSocket service. Nothing here changes anything."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.support.daemon_call import wait_in_daemon
from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["AdminAnswer", "AdminApi"]

#: The bound on one question, in seconds.
_TIMEOUT = 10.0
_MAX_ANSWER = 4 * 1024 * 1024


class AdminAnswer(NamedTuple):
    """What the admin API answered."""

    #: The HTTP status; 0 for no answer.
    status: int
    #: The JSON of a 200; None for any other answer, and for an empty one.
    value: Any

    @property
    def fields(self) -> dict[str, Any]:
        """The value if it is a mapping; else an empty one."""
        return self.value if isinstance(self.value, dict) else {}


class AdminApi:
    """The admin API under the service URL, where a broker has it.

    No redirect is followed: the token would go where nobody meant it to. A server that did not end
    an answer in time is asked nothing more.

    Arguments:
        endpoint: where Pulsar is.

    Raises:
        ConfigurationError: the token or a TLS file is not usable.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._url = urlsplit(endpoint.url)
        self._headers = endpoint.headers()
        self._tls = endpoint.tls()
        # http.client has no name of its own for the certificate.
        self._usable = endpoint.tls_server_name is None
        self._silent = False

    def get(self, path: str) -> AdminAnswer:
        """Ask one question.

        Arguments:
            path: below ``/admin/v2/``.
        """
        if not self._usable or self._silent:
            return AdminAnswer(0, None)
        try:
            # http.client bounds each read, and not all of them: an answer may come byte by byte.
            return wait_in_daemon(partial(self._ask, path), _TIMEOUT)
        except TimeoutError:
            self._silent = True
            return AdminAnswer(0, None)
        except (OSError, HTTPException, *UNDECODABLE):
            return AdminAnswer(0, None)

    def _ask(self, path: str) -> AdminAnswer:
        host = self._url.hostname
        assert host is not None
        connection = (
            HTTPConnection(host, self._url.port, timeout=_TIMEOUT)
            if self._tls is None
            else HTTPSConnection(host, self._url.port, timeout=_TIMEOUT, context=self._tls)
        )
        try:
            connection.request("GET", f"{self._url.path}/admin/v2/{path}", headers=self._headers)
            # An answer without a length has the socket, which its end would leave open.
            with closing(connection.getresponse()) as answer:
                body = answer.read(_MAX_ANSWER)
        finally:
            connection.close()
        if answer.status != 200 or not body:
            return AdminAnswer(answer.status, None)
        return AdminAnswer(200, msgspec.json.decode(body))
