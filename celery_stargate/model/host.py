"""The host of a URL: what no resolver can be asked for is a mistake of the configuration."""

from __future__ import annotations

from celery_stargate.errors import ConfigurationError, shown

__all__ = ["check_host"]


def check_host(name: str, host: str) -> None:
    """Check that a host can be looked up.

    Python encodes its name first, and the error of that is no ``OSError``: a connection to it
    would not fail as one to a host that is away.

    Arguments:
        name: of the setting.
        host: a name or an address, without brackets.

    Raises:
        ConfigurationError: it cannot be encoded.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        raise ConfigurationError(
            f"{name} names the host {shown(host)}, which cannot be one: between its dots stand 1 "
            "to 63 characters"
        ) from None
