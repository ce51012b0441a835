"""The loggers; they never get a token, key or payload."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["logger", "websocket_logger"]

logger = logging.getLogger("celery_stargate")


class _NoDebug(logging.LoggerAdapter[logging.Logger]):
    """Drop the DEBUG records of ``websockets``: they contain the token and the payloads."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and super().isEnabledFor(level)

    def debug(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """Drop the record."""


websocket_logger = _NoDebug(logging.getLogger("celery_stargate.websocket"), {})
