"""The loggers: one for each concern. They never get a token, key or payload.

Each line says what happened, and then of what: ``… lane=persistent:…#0 context=7f1e…``. The
same fields are in the record, for formatters of JSON and for structlog.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

__all__ = ["Log", "logger_of", "package_logger", "websocket_logger"]

#: The parent of all of them.
package_logger = logging.getLogger("celery_stargate")
#: Reports what other handlers raise.
_unheard = logging.NullHandler()
_PLAIN = re.compile(r"[^\s\"=]+")


class Log(logging.LoggerAdapter[logging.Logger]):
    """Logs with fields: ``logger.warning("Pulsar refuses it: %s", error, lane=lane.name)``.

    A field that is None is left out. With ``lane`` comes ``topic``. What a filter or a handler of
    the project raises is reported, and not raised: nothing here must end because of a log line.
    """

    def log(
        self,
        level: int,
        msg: object,
        *args: object,
        exc_info: Any = None,
        stack_info: bool = False,
        stacklevel: int = 1,
        extra: Mapping[str, object] | None = None,
        **fields: object,
    ) -> None:
        """Log a line with its fields."""
        if not self.isEnabledFor(level):
            return
        found = {name: value for name, value in fields.items() if value is not None}
        text = str(msg)
        if found and not args:
            # Arguments follow, so a percent sign would be read.
            text = text.replace("%", "%%")
        shown = [f"{name}={_shown(value)}" for name, value in found.items()]
        text += " %s" * len(shown)
        if "lane" in found:
            found.setdefault("topic", str(found["lane"]).rpartition("#")[0])
        try:
            self.logger.log(
                level,
                text,
                *args,
                *shown,
                exc_info=exc_info,
                stack_info=stack_info,
                # The caller's line, not this one.
                stacklevel=stacklevel + 1,
                extra={**(extra or {}), **found},
            )
        except SoftTimeLimitExceeded:
            # A signal's handler raised it, and it is meant for the task.
            raise
        except Exception:  # noqa: BLE001  # of a filter or a handler
            _report(self.logger, level, text, (*args, *shown))


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _report(logger: logging.Logger, level: int, msg: object, args: tuple[object, ...]) -> None:
    """Say on stderr what a filter or a handler raises, as logging does where a handler says it."""
    if not logging.raiseExceptions:
        return
    try:
        _unheard.handleError(logging.LogRecord(logger.name, level, __file__, 0, msg, args, None))
    except Exception:  # noqa: BLE001
        # A worker's stderr is a log, which goes through the same filter.
        with suppress(Exception):
            traceback.print_exc(file=sys.__stderr__)


def logger_of(module: str) -> Log:
    """Return the logger of a module's concern: ``celery_stargate.delivery`` for all of its folder.

    Arguments:
        module: its ``__name__``.
    """
    parts = module.split(".")
    return Log(logging.getLogger(".".join(parts[:2])), {})


class _NoDebug(logging.LoggerAdapter[logging.Logger]):
    """Drop the DEBUG records of ``websockets``: they contain the token and the payloads."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and super().isEnabledFor(level)

    def debug(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """Drop the record."""

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """Log a line; it would break the connection if a filter raised an error."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except Exception:  # noqa: BLE001  # as for our own lines
            _report(self.logger, level, msg, args)


websocket_logger = _NoDebug(logging.getLogger("celery_stargate.websocket"), {})
