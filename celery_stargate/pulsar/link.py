"""Errors of a connection to Pulsar."""

from __future__ import annotations

from urllib.parse import urlsplit

from celery_stargate.pulsar.sentences import plain
from celery_stargate.pulsar.verdicts import Verdict, classify_handshake

__all__ = ["HandshakeRefused", "LinkBroken"]


class LinkBroken(Exception):
    """There is no connection, or it broke. Messages without a receipt are sent again."""


class HandshakeRefused(Exception):
    """Pulsar refused the handshake of a producer.

    Arguments:
        status: the HTTP status.
        sentence: the reason from Pulsar's error page.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    @property
    def permanent(self) -> bool:
        """Whether a retry cannot succeed."""
        return classify_handshake(self.status, self.sentence) is Verdict.PERMANENT


def _link_sentence(url: str, error: BaseException) -> str:
    host = urlsplit(url)
    where = f"{host.scheme}://{host.hostname}:{host.port or (443 if host.scheme == 'wss' else 80)}"
    return f"no connection to {where}: {plain(str(error) or type(error).__name__)}"
