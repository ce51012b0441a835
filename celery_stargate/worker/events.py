"""Task events of produce tasks: what Celery's worker sends of any task, in the lanes' way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import states
from kombu.utils.encoding import safe_repr

from celery_stargate.effects.successes import text_of
from celery_stargate.errors import ProduceError
from celery_stargate.lanes.record import Ended, Settled
from celery_stargate.model.follow_up import request_fields, since_of
from celery_stargate.model.outcome import error_of
from celery_stargate.model.revocation import EXPIRED, REVOKED

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["TaskEvents"]

_Event = tuple[str, dict[str, Any]]

#: How many characters of a result an event has at least: Flower shows it.
_RESULT_SIZE = 256
#: How many events one message to the broker has at most. Celery gathers 24, and to publish one
#: message costs as much as to make them.
_GATHERED = 100
#: Seconds after which the consumer is asked once more: it forgets what it was asked for when it
#: connects again.
_ASK_AGAIN = 1.0
#: What people look for comes first, because the text is cut off.
_FIRST = ("status", "message_id", "topic")


class TaskEvents:
    """Sends the events of tasks whose outcome is known.

    A call that was recorded in its lane at once was never received by a worker's consumer, so its
    ``task-received`` and ``task-started`` are sent with its outcome, dated when it was recorded.

    Arguments:
        app: the Celery app.
        consumer: returns the worker's consumer; None before there is one.
        clock: the time, in seconds.
    """

    def __init__(
        self, app: Celery, consumer: Callable[[], Any], clock: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._consumer = consumer
        self._clock = clock
        self._lock = threading.Lock()
        self._unsent: list[_Event] = []
        #: When the consumer was last asked to send what waits.
        self._asked_at = 0.0

    def wanted(self) -> bool:
        """Whether the worker sends task events now.

        With heartbeats its dispatcher is enabled without ``-E``, too, and drops what is not in its
        groups.
        """
        events = getattr(self._consumer(), "event_dispatcher", None)
        if events is None or not events.enabled:
            return False
        return not events.groups or "task" in events.groups

    def done(self, settled: Settled) -> None:
        """Send the events of a context's task, if it has one."""
        record = settled.record
        if record.task is None or not self.wanted():
            return
        task = self._app.tasks.get(record.task)
        if task is not None and not task.send_events:
            return
        events = list(self._events(settled))
        now = self._clock()
        with self._lock:
            ask = not self._unsent or now > self._asked_at + _ASK_AGAIN
            self._unsent += ((kind, {"uuid": record.context, **fields}) for kind, fields in events)
            if ask:
                self._asked_at = now
        if ask:
            # The dispatcher belongs to the consumer's thread. One call for many: kombu's event loop
            # keeps what it is to call soon in a set, so in any order.
            self._consumer().call_soon(self._send)

    def _send(self) -> None:
        """Send what waits, in its order, in the consumer's thread."""
        with self._lock:
            events, self._unsent = self._unsent, []
        dispatcher = self._consumer().event_dispatcher
        if events:
            with _sent_together(dispatcher):
                for kind, fields in events:
                    dispatcher.send(kind, **fields)
                # Not what waits for the broker: that is the dispatcher's own business.
                dispatcher.flush(errors=False)

    def _events(self, settled: Settled) -> Iterator[_Event]:
        request = request_fields(settled.record.request)
        since, by_lane = since_of(request, self._clock())
        state, error = _end_of(settled)
        if by_lane:
            yield "task-received", {**_received(settled, request), "timestamp": since}
            if state != states.REVOKED:
                yield "task-started", {"timestamp": since}
        match state:
            case states.SUCCESS:
                task = self._app.tasks.get(settled.record.task or "")
                size = max(_RESULT_SIZE, getattr(task, "resultrepr_maxsize", 0))
                shown = text_of(_in_order(settled.result), size)
                runtime = max(0.0, self._clock() - since)
                yield "task-succeeded", {"result": shown, "runtime": runtime}
            case states.REVOKED:
                expired = settled.failure.code != REVOKED
                yield "task-revoked", {"terminated": False, "signum": None, "expired": expired}
            case states.RETRY:
                # As Celery: what went wrong, and not the request for another attempt.
                why = getattr(error, "exc", None) or error
                yield "task-retried", {"exception": _shown(why), "traceback": ""}
            case states.REJECTED:
                yield "task-rejected", {"requeue": False}
            case states.IGNORED:
                pass
            case _:
                yield "task-failed", {"exception": _shown(error), "traceback": ""}


def _end_of(settled: Settled) -> tuple[str, BaseException | None]:
    """Return how the task ended, as a state of Celery, and its exception."""
    ended = settled.ended
    if ended is None:
        if not settled.failed:
            return states.SUCCESS, None
        never_sent = settled.failure.code in (REVOKED, EXPIRED)
        ended = Ended(states.REVOKED if never_sent else states.FAILURE, None)
    error = ended.error
    if error is None and settled.failed:
        error = error_of(settled.failure)
    return ended.state, error


def _shown(error: BaseException | None) -> str:
    """Return an exception as Celery's events have one: monitors read the class before the bracket.

    A failure is shown by its words; its own repr has all its fields.
    """
    if isinstance(error, ProduceError):
        return f"{type(error).__name__}({str(error)!r})"
    return str(safe_repr(error))


@contextmanager
def _sent_together(dispatcher: Any) -> Iterator[None]:
    """Let a dispatcher that gathers the events of tasks send them in fewer messages, and only then.

    By itself it gathers fewer, and asks the loop that runs this to flush the last ones. The loop
    does that after its next poll, which takes up to a second in an idle worker.
    """
    limit, ask = dispatcher.buffer_limit, dispatcher.on_send_buffered
    dispatcher.buffer_limit, dispatcher.on_send_buffered = max(limit, _GATHERED), None
    try:
        yield
    finally:
        dispatcher.buffer_limit, dispatcher.on_send_buffered = limit, ask


def _in_order(result: Any) -> Any:
    """Return a receipt, or a list of receipts, with what people look for first."""
    if isinstance(result, list):
        return [_in_order(each) for each in result]
    if not isinstance(result, Mapping):
        return result
    return {**{name: result[name] for name in _FIRST if name in result}, **result}


def _received(settled: Settled, request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": request.get("shadow") or settled.record.task,
        "args": request.get("argsrepr", ""),
        "kwargs": request.get("kwargsrepr", ""),
        "root_id": request.get("root_id"),
        "parent_id": request.get("parent_id"),
        "retries": request.get("retries", 0),
        "eta": request.get("eta"),
        "expires": request.get("expires"),
    }
