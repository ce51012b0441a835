"""Keep a callback until its task has started, and publish it again where it has not in time.

Celery's broker may lose a task that it took: with Redis, when a worker is killed at the wrong
moment. With ``stargate_callbacks="until_started"`` the lanes' Redis keeps the callback meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from celery_stargate.effects.callbacks import Triggering, plain_task, trigger
from celery_stargate.lanes.unstarted import UnstartedCallbacks
from celery_stargate.lanes.wire import decode_call, encode_call
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Republisher", "UntilStarted"]


logger = logger_of(__name__)


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is needed to publish a callback again."""

    #: What became of the call, as waiting processes get it.
    outcomes: str
    callback: str
    incarnation: str = ""
    request: str | None = None
    trace: Mapping[str, str] | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Kept)


class UntilStarted:
    """Keeps callbacks, and publishes them again.

    Arguments:
        app: its broker gets them.
        kept: where they are kept.
        after: seconds in which a task must start.
        bound: seconds after which a callback is given up.
    """

    def __init__(
        self, app: Celery, kept: UnstartedCallbacks, *, after: float, bound: float
    ) -> None:
        self._app = app
        self._kept = kept
        self._bound = bound
        self._log_now = Seldom()
        #: Seconds in which a task must start.
        self.after = after

    def keep(self, settled: Iterable[Triggering]) -> None:
        """Keep callbacks that are about to be published; groups, chains and chords are left out.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        bodies: dict[float, dict[str, bytes]] = {}
        for each in settled:
            if each.callback is not None:
                task = plain_task(self._app, each.call, each.callback)
                if task is not None:
                    # One with a countdown or an ETA has not been lost because it waits for it.
                    kept = bodies.setdefault(self.after + task.delay, {})
                    kept[task.task_id] = _encoder.encode(_pack(each))
        for after, some in bodies.items():
            self._kept.keep(some, after)

    def publish_again(self) -> int:
        """Publish what is overdue again; return how many callbacks were tried.

        One that cannot be published now is tried again when it is overdue once more.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        found = self._kept.overdue(self.after, self._bound)
        for task_id in found.given_up:
            logger.error(
                "callback %s is given up: its task has not started within "
                "stargate_effects_timeout, or what was kept of it cannot be read",
                task_id,
            )
        for task_id, body in found.again.items():
            try:
                given = _decoder.decode(body)
                wire = decode_call(given.outcomes.encode())
                call = CallOutcomes(wire.context, wire.is_list, wire.outcomes, given.incarnation)
                trigger(self._app, call, given.callback, given.request, given.trace, marked=True)
            except Exception as error:  # noqa: BLE001  # each fails for itself
                if self._log_now():
                    logger.warning("callback %s is not published again yet: %r", task_id, error)
            else:
                logger.warning(
                    "callback %s is published again: its task has not started",
                    task_id,
                    context=call.context,
                )
        return len(found.again)


class Republisher:
    """Publishes overdue callbacks again, in a thread of its own, until stopped.

    Arguments:
        until_started: does it.
    """

    def __init__(self, until_started: UntilStarted) -> None:
        self._until_started = until_started
        self._every = min(5.0, max(0.1, until_started.after / 4))
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a second start changes nothing."""
        if self._thread is None or not self._thread.is_alive() or self._stop.is_set():
            # One that was stopped may still run: it keeps its own event.
            self._stop = threading.Event()
            # A broker that hangs keeps no process from ending.
            self._thread = threading.Thread(
                target=self._work, args=(self._stop,), name="stargate-republish", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Let the thread end; nothing waits for it."""
        self._stop.set()

    def _work(self, stop: threading.Event) -> None:
        log_now = Seldom()
        while not stop.wait(self._every):
            try:
                while self._until_started.publish_again() and not stop.is_set():
                    pass
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                if log_now():
                    logger.warning("callbacks that did not start are looked for later: %s", error)


def _pack(each: Triggering) -> _Kept:
    call: Any = each.call
    return _Kept(
        outcomes=encode_call(call).decode(),
        callback=str(each.callback),
        incarnation=call.incarnation,
        request=each.request,
        trace=each.trace,
    )
