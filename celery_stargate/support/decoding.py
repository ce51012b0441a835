"""What reading bytes that others wrote can raise."""

from __future__ import annotations

import msgspec

__all__ = ["UNDECODABLE"]

#: Of msgspec's and kombu's JSON. Deep nesting is a RecursionError, and wrong UTF-8 no DecodeError:
#: who catches only that is stopped by what anybody can write.
UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
