"""A produce task that came by Celery's broker, as the worker holds it until its lane has it."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from celery_stargate.effects.callbacks import trigger
from celery_stargate.effects.signatures import Callbacks, pack
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.model.revocation import expired_failure, revoked_failure
from celery_stargate.support.log import logger_of

__all__ = ["ProduceRequest"]

logger = logger_of(__name__)


_Request: Any = Request  # Celery's types leave out most of it


class ProduceRequest(_Request):  # type: ignore[misc]
    """Celery's request, which shows no payload, and never kills a process.

    Celery uses it by :attr:`ProduceTask.Request`; the documented way to a request of one's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._argsrepr: Any
        # By `send_task` Celery itself makes this text, and it holds the payload.
        if not str(self._argsrepr).startswith("(<"):
            self._argsrepr = "(<a message>,)"
        self._kwargsrepr = "{}"

    def info(self, safe: bool = False) -> Any:
        """Return what ``inspect`` shows: never the payload."""
        return super().info(safe=True)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End as revoked; there is no process of the pool to be terminated."""
        self._announce_revoked("terminated", True, signal, False)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Do nothing: there is no process of the pool to be cancelled."""

    def _packed(self) -> str:
        """Return what the callback inherits of this request."""
        names = ("root_id", "stamped_headers", "stamps", "replaced_task_nesting")
        return pack("the task's request", {name: self._request_dict.get(name) for name in names})

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        super()._announce_revoked(reason, terminated, signum, expired)
        make = expired_failure if expired else revoked_failure
        try:
            callbacks = Callbacks.freeze(None, (self._kwargs or {}).get("on_error"), self._app)
            call = CallOutcomes(self.id, is_list=False, outcomes=(make(self.id, None),))
            trigger(self._app, call, callbacks.on_error, self._packed())
        except Exception:  # one bad callback must not end the worker's consumer
            logger.warning(
                "the task was revoked; its on_error is not told", exc_info=True, context=self.id
            )
