"""The loggers. No token, key or payload reaches them."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["logger", "websocket_logger"]

logger = logging.getLogger("celery_stargate")


class _NoDebug(logging.LoggerAdapter[logging.Logger]):
    """Keep ``websockets`` from its DEBUG lines: they hold the token and the payloads."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and super().isEnabledFor(level)

    def debug(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """Say nothing."""


websocket_logger = _NoDebug(logging.getLogger("celery_stargate.websocket"), {})
