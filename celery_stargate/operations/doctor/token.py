"""The token: when it expires, read without showing it."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["TokenFacts", "read_token"]


class _Claims(msgspec.Struct):
    exp: float | None = None
    sub: str | None = None


class TokenFacts(msgspec.Struct, frozen=True):
    """What a token tells; never the token."""

    #: Whether it is a JWT, so that the rest could be read.
    is_jwt: bool
    #: When it expires, epoch seconds; None for never.
    expires: float | None = None
    #: The role that it is for.
    role: str | None = None


def read_token(token: str) -> TokenFacts:
    """Read a token's claims. Its signature is not checked; Pulsar does that."""
    parts: list[Any] = token.split(".")
    if len(parts) != 3:
        return TokenFacts(is_jwt=False)
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(body, type=_Claims)
    except UNDECODABLE:
        return TokenFacts(is_jwt=False)
    return TokenFacts(is_jwt=True, expires=claims.exp, role=claims.sub)
