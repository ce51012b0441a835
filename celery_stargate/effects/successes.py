"""Celery's log line of a success, for tasks that its tracer does not run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
from celery.app import trace
from celery.utils.saferepr import saferepr
from kombu.utils.encoding import safe_repr

from celery_stargate.effects.signatures import unpack
from celery_stargate.effects.tracer import CALL
from celery_stargate.lanes.record import Settled
from celery_stargate.model.follow_up import is_plain_id
from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Successes", "text_of"]

logger = logger_of(__name__)


class _Shown(msgspec.Struct):
    """The fields of a request that the log line shows."""

    shadow: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None


_decode = msgspec.json.Decoder(_Shown).decode


class Successes:
    """Logs what Celery's tracer logs of a success: same logger, level, text and data.

    Arguments:
        app: the app of the tasks.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    @property
    def logged(self) -> bool:
        """Whether successes are logged at all."""
        return trace.logger.isEnabledFor(logging.INFO)

    def log(self, settled: Iterable[Settled]) -> None:
        """Log successes, if they are logged at all. An error is logged, and hits no other."""
        if not self.logged:
            return
        for each in settled:
            try:
                self._log(each)
            except Exception:
                logger.exception("a success is not logged", context=each.record.context)

    def _log(self, settled: Settled) -> None:
        record, begun = settled.record, time.monotonic()
        task: Any = self._app.tasks.get(record.task or "")
        shown, request = text_of(settled.result, getattr(task, "resultrepr_maxsize", 64)), _Shown()
        if record.request is not None:
            request = _decode(record.request)
        args, kwargs = request.argsrepr, request.kwargsrepr
        if not (args and kwargs):
            given = unpack(record.request or "{}").get(CALL, ((), {}))
            args, kwargs = args or safe_repr(tuple(given[0])), kwargs or safe_repr(given[1])
        # The function of Celery's own, so that its settings of the line count.
        trace.info(
            trace.LOG_SUCCESS,
            {
                "id": record.context,
                "name": request.shadow or record.task,
                "return_value": shown,
                "runtime": time.monotonic() - begun,
                "args": args,
                "kwargs": kwargs,
            },
        )


def text_of(result: Any, size: int) -> str:
    """Return what Celery's ``saferepr`` returns; for a receipt much faster.

    Arguments:
        result: a receipt as a dict, a list of such, or anything else.
        size: about how many characters at most.
    """
    if type(result) is dict:
        match [*islice(result.items(), 3)]:
            case [("context", str(context)), ("topic", str(topic)), _] if is_plain_id(context):
                rest = _behind_context(len(context), topic, size)
                if rest is not None:
                    return f"{{'context': '{context}'{rest}"
        if all(map(_is_plain, result.values())):
            text = repr(result)
            if len(text) < size and "\\" not in text and '"' not in text:
                return text
    return str(saferepr(result, size))


@lru_cache(1024)
def _behind_context(length: int, topic: str, size: int) -> str | None:
    """Return what the text of a receipt shows behind the context, if it is cut off at the topic.

    Arguments:
        length: of the context.
        topic: of the receipt.
        size: as in :func:`text_of`.

    Returns:
        None if it shows more of the receipt, or less of the context.
    """
    context = "c" * length
    # What comes third makes no difference.
    text, same = (
        str(saferepr({"context": context, "topic": topic, name: None}, size))
        for name in ("status", "another")
    )
    begin = f"{{'context': '{context}'"
    return text.removeprefix(begin) if text == same and text.startswith(begin) else None


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (str, int)
