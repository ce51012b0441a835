"""Pulsar's service: the URL, the token, TLS."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from celery_stargate.errors import ConfigurationError
from celery_stargate.model.token_transport import is_loopback
from celery_stargate.operations.doctor.finding import Check, Problem, error, warning
from celery_stargate.operations.doctor.token import TokenFacts, read_token
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.support.daemon_call import wait_in_daemon

__all__ = ["SERVICE_CHECKS", "ServiceFacts", "gather_service"]

_DAY = 86_400.0
#: The bound on connecting, and on each read of the TLS handshake, in seconds.
_CONNECT_TIMEOUT = 5.0
#: The bound on all of that together.
_TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class ServiceFacts:
    """What can be known of the service without a topic."""

    url: str
    now: float
    #: None if no token is set.
    token: TokenFacts | None = None
    #: Whether the token is a fixed text, not a callable that gets a new one.
    token_is_fixed: bool = True
    #: Why the token cannot be had.
    token_problem: str | None = None
    #: Why there is no connection, or no trust.
    connection_problem: str | None = None
    tls_problem: str | None = None
    #: When the server's certificate expires, epoch seconds.
    certificate_expires: float | None = None

    @property
    def reachable(self) -> bool:
        """Whether it makes sense to ask more of it."""
        return not (self.connection_problem or self.tls_problem or self.token_problem)


def gather_service(endpoint: Endpoint, *, clock: Callable[[], float] = time.time) -> ServiceFacts:
    """Connect to the service, without a handshake of a producer.

    Arguments:
        endpoint: where it is.
        clock: the time, epoch seconds.

    Raises:
        ConfigurationError: a file of the TLS settings cannot be read.
    """
    facts: dict[str, Any] = {"url": endpoint.url, "now": clock()}
    if endpoint.token is not None:
        facts["token_is_fixed"] = not callable(endpoint.token)
        try:
            bearer = endpoint.headers()["Authorization"]
        except ConfigurationError as problem:
            facts["token_problem"] = str(problem)
        else:
            facts["token"] = read_token(bearer.removeprefix("Bearer "))
    parts = urlsplit(endpoint.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    context = endpoint.tls()
    reach = partial(_reach, host, port, context, endpoint.tls_server_name or host)
    try:
        # A name server and a handshake have no bound of their own as a whole.
        facts |= wait_in_daemon(reach, _TIMEOUT)
    except TimeoutError:
        facts["connection_problem"] = f"no answer within {_TIMEOUT:g} s"
    return ServiceFacts(**facts)


def _reach(host: str, port: int, context: ssl.SSLContext | None, name: str) -> dict[str, Any]:
    """Connect, and shake hands where TLS is used."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT) as connection:
            return {} if context is None else _greet(connection, context, name)
    except UnicodeError:
        return {"connection_problem": "the host's name cannot be one"}
    except OSError as problem:
        return {"connection_problem": problem.strerror or str(problem) or type(problem).__name__}


def _greet(connection: socket.socket, context: ssl.SSLContext, name: str) -> dict[str, Any]:
    """Shake hands by TLS: why that fails, or when the server's certificate expires."""
    try:
        with context.wrap_socket(connection, server_hostname=name) as secure:
            expires = (secure.getpeercert() or {}).get("notAfter")
    except ssl.SSLCertVerificationError as problem:
        return {"tls_problem": problem.verify_message}
    except ssl.SSLError as problem:
        return {"tls_problem": problem.reason or "the server does not speak TLS"}
    except OSError:
        return {"tls_problem": "the server does not answer to TLS"}
    if not isinstance(expires, str):
        return {}
    return {"certificate_expires": float(ssl.cert_time_to_seconds(expires))}


def _connection(facts: ServiceFacts) -> Iterable[Problem]:
    if facts.connection_problem:
        yield error(
            f"no connection to {facts.url}: {facts.connection_problem}",
            "no message can be sent; all of them wait in the lanes",
            "start Pulsar with webSocketServiceEnabled=true, or set stargate_url to where it is",
        )


def _token(facts: ServiceFacts) -> Iterable[Problem]:
    if facts.token_problem:
        yield error(
            facts.token_problem, "Pulsar refuses every producer (401)", "mend stargate_token"
        )
        return
    token = facts.token
    if token is None or token.expires is None:
        return
    left = token.expires - facts.now
    why = "Pulsar refuses every producer from then on (401)"
    mend = "pulsar tokens create --secret-key <key> --subject <role>, and set stargate_token"
    if left <= 0:
        yield error(f"the token expired {_days(-left)} ago", why, mend)
    elif facts.token_is_fixed and left < 7 * _DAY:
        yield warning(
            f"the token expires in {_days(left)}, and stargate_token is a fixed text",
            why,
            "set stargate_token to a callable that returns a fresh token",
        )


def _secrecy(facts: ServiceFacts) -> Iterable[Problem]:
    parts = urlsplit(facts.url)
    if facts.token is None or parts.scheme == "wss":
        return
    if is_loopback(parts.hostname):
        return
    yield warning(
        f"stargate_allow_token_without_tls lets the token go to {parts.hostname} without TLS",
        "whoever sees the traffic can use the token",
        "set stargate_url to wss://…, stargate_tls_ca to its authority's certificate, and remove "
        "stargate_allow_token_without_tls",
    )


def _tls(facts: ServiceFacts) -> Iterable[Problem]:
    if facts.tls_problem:
        yield error(
            f"TLS fails: {facts.tls_problem}",
            "no message can be sent; all of them wait in the lanes",
            _tls_cure(facts.tls_problem),
        )
    if facts.certificate_expires is None:
        return
    left = facts.certificate_expires - facts.now
    if left < 14 * _DAY:
        yield warning(
            f"the server's certificate expires in {_days(max(0.0, left))}",
            "no message can be sent from then on",
            "renew the broker's certificate",
        )


def _tls_cure(problem: str) -> str:
    text = problem.lower()
    if "hostname" in text or "ip address" in text:
        return "set stargate_tls_server_name to a name in the certificate"
    if "expired" in text:
        return "renew the broker's certificate"
    if "self" in text or "issuer" in text or "unable to get" in text:
        return "set stargate_tls_ca to the certificate of the authority that signed the broker's"
    return "check that the port speaks TLS, or set stargate_url to ws://…"


def _days(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 2 * _DAY:
        return f"{seconds / 3600:.0f} hours"
    return f"{seconds / _DAY:.0f} days"


SERVICE_CHECKS: list[Check[ServiceFacts]] = [
    Check("pulsar-connection", "Pulsar's WebSocket port can be reached", _connection),
    Check("pulsar-token", "the token is good, or none is needed", _token),
    Check("pulsar-secrecy", "no token goes over an open line", _secrecy),
    Check("pulsar-tls", "TLS is good, or not used", _tls),
]
