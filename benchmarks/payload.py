"""The one message of all rivals."""

from __future__ import annotations

__all__ = ["PAYLOAD"]

#: 100 bytes.
PAYLOAD = "0123456789" * 10
