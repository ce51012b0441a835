"""The messages of all rivals."""

from __future__ import annotations

__all__ = ["PAYLOAD", "payload"]


def payload(size: int) -> str:
    """Return one of so many bytes."""
    return ("0123456789" * (size // 10 + 1))[:size]


#: 100 bytes.
PAYLOAD = payload(100)
