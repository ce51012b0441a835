"""Where a token may go: over TLS to any host, and without it to this machine only."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from celery_stargate.errors import ConfigurationError

__all__ = ["is_loopback", "require_secrecy"]


def is_loopback(host: str | None) -> bool:
    """Return whether a URL's host is surely this machine: ``localhost`` or a loopback address.

    Nothing is resolved: a name that leads here today may lead elsewhere tomorrow. An address in a
    form that only some resolvers read, such as ``127.1``, is not one.

    Arguments:
        host: as ``urlsplit`` gives it, without brackets.
    """
    if host is None:
        return False
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def require_secrecy(url: str) -> None:
    """Check that others cannot read a token that goes to a service.

    Arguments:
        url: of Pulsar's service, checked.

    Raises:
        ConfigurationError: it goes to another host without TLS. The text names the settings.
    """
    parts = urlsplit(url)
    if parts.scheme == "ws" and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"the token would go to {parts.hostname} without TLS, where others can read it; "
            "set stargate_url to wss://…, or, on a network that you trust, "
            "stargate_allow_token_without_tls=True"
        )
