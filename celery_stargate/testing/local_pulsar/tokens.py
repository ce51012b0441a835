"""Bearer tokens, as a broker with the token provider reads them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

import msgspec


class _Claims(msgspec.Struct):
    sub: str
    exp: float | None = None


class Tokens:
    """The accepted tokens. Without `secret` and `fixed` no token is needed.

    Args:
        secret: accepts tokens signed with it (HS256) that have not expired; `sub` is the role.
        fixed: further tokens and their roles.
        superusers: roles that may do everything; others need a grant.
    """

    def __init__(
        self,
        *,
        secret: bytes | None,
        fixed: Mapping[str, str] | None,
        superusers: frozenset[str],
    ) -> None:
        self._secret = secret
        self._fixed = dict(fixed or {})
        self._superusers = superusers
        self.required = secret is not None or fixed is not None

    def role(self, authorization: str | None, query_token: str | None) -> str | None:
        """Return the role of an `Authorization` header or `?token=`; None without a valid one."""
        token = query_token
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme != "Bearer":
                return None
        if token is None:
            return None
        fixed = self._fixed.get(token)
        return fixed if fixed is not None else self._signed(token)

    def superuser(self, role: str | None) -> bool:
        """Return whether a role may do everything."""
        return not self.required or role in self._superusers

    def _signed(self, token: str) -> str | None:
        if self._secret is None:
            return None
        signed, _, signature = token.rpartition(".")
        good = hmac.new(self._secret, signed.encode(), hashlib.sha256).digest()
        try:
            if not hmac.compare_digest(good, _bytes(signature)):
                return None
            claims = msgspec.json.decode(_bytes(signed.partition(".")[2]), type=_Claims)
        except (binascii.Error, msgspec.MsgspecError, ValueError):
            return None
        return None if claims.exp is not None and claims.exp <= time.time() else claims.sub


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
