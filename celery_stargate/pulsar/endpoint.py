"""Where and how a producer connects to Pulsar."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from celery_stargate.errors import ConfigurationError
from celery_stargate.model.fields import Token, bearer
from celery_stargate.model.settings import Settings, named
from celery_stargate.pulsar.link import LinkBroken
from celery_stargate.support.daemon_call import Same, call_in_daemon

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach Pulsar: the settings that all topics share. Durations are seconds."""

    url: str
    token: Token | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    open_timeout: float = 45.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    #: As in :class:`Settings`, for the texts of errors.
    namespace: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> Endpoint:
        """Return the endpoint that the settings describe.

        Raises:
            ConfigurationError: ``stargate_url`` is not set, or is ``memory://``.
        """
        return cls(
            settings.require_service(),
            settings.token,
            settings.tls_ca,
            settings.tls_certificate,
            settings.tls_key,
            settings.tls_server_name,
            settings.open_timeout,
            settings.ping_interval,
            settings.ping_timeout,
            settings.namespace,
        )

    def headers(self) -> dict[str, str]:
        """Return the headers of a handshake. A token callable is called for each handshake.

        Raises:
            ConfigurationError: the token's callable failed, or did not return a usable text.
        """
        if self.token is None:
            return {}
        setting = named("stargate_token", self.namespace)
        name, token = setting, self.token
        if callable(token):
            name = f"what the callable in {setting} returned"
            try:
                token = token()
            except (Exception, SystemExit) as error:
                # SystemExit would end the event loop that all lanes share.
                raise ConfigurationError(
                    f"the callable in {setting} failed with {type(error).__name__}"
                ) from error
        return {"Authorization": f"Bearer {bearer(name, token)}"}

    async def fetch_headers(self) -> dict[str, str]:
        """Do as :meth:`headers` without holding the event loop.

        Raises:
            ConfigurationError: as :meth:`headers`.
            LinkBroken: the token's callable did not return within ``stargate_open_timeout``.
        """
        if not callable(self.token):
            return self.headers()
        try:
            return await call_in_daemon(self.headers, self.open_timeout, Same(self.token))
        except TimeoutError:
            setting = named("stargate_token", self.namespace)
            raise LinkBroken(
                f"the callable in {setting} did not return within {self.open_timeout:g} s"
            ) from None

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context for ``wss``, None for ``ws``.

        Raises:
            ConfigurationError: a file of the TLS settings cannot be loaded.
        """
        if urlsplit(self.url).scheme != "wss":
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_certificate is not None:
                context.load_cert_chain(self.tls_certificate, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            files = "stargate_tls_ca, stargate_tls_certificate or stargate_tls_key"
            raise ConfigurationError(
                f"{named(files, self.namespace)} cannot be loaded: {error}"
            ) from error
        return context
