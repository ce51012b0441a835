"""The acknowledger: keeps contexts pending, owns lanes, and settles what is acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from celery_stargate.calls.contexts import Contexts
from celery_stargate.calls.given import Callback, Timeout
from celery_stargate.calls.prepare import CallOptions
from celery_stargate.calls.runtime import Runtime
from celery_stargate.delivery.thread import DeliveryThread
from celery_stargate.effects.apart import EffectsApart
from celery_stargate.effects.unstarted import Republisher
from celery_stargate.lanes.record import Settled
from celery_stargate.model.outcome import Outcome, Receipt

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Acknowledger"]


class Acknowledger:
    """Keep every message without a receipt as a pending context, and settle it.

    Producer workers run one by themselves. In any other process make your own, to own lanes there
    or to wait for contexts that have no message, which your code acknowledges.

    Arguments:
        app: a Celery app that has a :class:`~celery_stargate.Stargate`.
        hostname: the worker's name, for results and events.
        revoked: tells whether a context was revoked.
        on_done: called in the effects' thread with each context whose effects were done. A context
            without effects, or with a waiting ``produce`` and nothing else, is left out: it ends in
            the step that settles it. :data:`~celery_stargate.signals.message_settled` tells of all.
        done_matters: whether ``on_done`` has anything to do now; by default it always has.

    Raises:
        ConfigurationError: the app has no Stargate, or a setting is wrong or missing.

    Example:
        >>> with Acknowledger(app) as acknowledger:
        ...     future = acknowledger.produce("order-17")
        ...     acknowledger.ack(Receipt(context="order-17"))  # from any process
        ...     future.result(timeout=10).status
        True
        'stored'
    """

    def __init__(
        self,
        app: Celery,
        *,
        hostname: str | None = None,
        revoked: Callable[[str], bool] | None = None,
        on_done: Callable[[Settled], None] | None = None,
        done_matters: Callable[[], bool] = lambda: True,
    ) -> None:
        self._app = app
        self._runtime = runtime = Runtime.of(app)
        effects = runtime.make_effects(hostname, on_done, done_matters)
        self._contexts = Contexts(runtime, EffectsApart(effects, runtime.outbox))
        self._delivery = DeliveryThread(
            runtime.settings, runtime.connections, effects, revoked or (lambda context: False)
        )

        until_started = runtime.until_started
        self._republisher = None if until_started is None else Republisher(until_started)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether its thread is alive in this process.

        Example:
            >>> Acknowledger(app).running
            False
        """
        return self._delivery.running

    def start(self) -> None:
        """Start owning lanes, in a thread of its own. A second start changes nothing.

        Example:
            >>> acknowledger = Acknowledger(app)
            >>> acknowledger.start()
            >>> acknowledger.stop()
        """
        self._runtime.deliveries.add(self._delivery)
        self._delivery.start()
        if self._republisher is not None:
            self._republisher.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop: send nothing new, wait for what is in flight, and release the lanes.

        Arguments:
            timeout: seconds to wait for receipts; by default ``stargate_drain_timeout``.

        Example:
            >>> Acknowledger(app).stop(timeout=5)
        """
        if self._republisher is not None:
            self._republisher.stop()
        # First, so that a call in another thread looks for an owner that stays.
        self._runtime.deliveries.discard(self._delivery)
        self._delivery.stop(timeout)

    def produce(
        self,
        context: str,
        on_ack: Callback | None = None,
        on_error: Callback | None = None,
        timeout: Timeout | None = None,
    ) -> Future[Receipt]:
        """Record a context without a message, which :meth:`ack` acknowledges.

        Arguments:
            context: its id.
            on_ack, on_error: the signature that gets the receipt, or the failure.
            timeout: seconds or a timedelta until its deadline; by default
                ``stargate_produce_timeout``, with a callback ``stargate_delivery_timeout``.

        Returns:
            A future: its ``result(timeout=…)`` is the receipt, or raises ``ProduceError`` or
            ``ProduceTimeout``.

        Raises:
            ContextInUse: it is pending already.
            InvalidMessage: the context is not printable text, or a callback is no signature.
            StoreUnavailable: Redis did not answer in bounded time.

        Example:
            >>> acknowledger = Acknowledger(app)
            >>> future = acknowledger.produce("order-18", timeout=60)
            >>> acknowledger.ack(Receipt(context="order-18"))
            True
        """
        return self._contexts.expect(
            context, CallOptions.read(self._app, on_ack, on_error, timeout)
        )

    def ack(self, outcome: Outcome) -> bool:
        """Give a context its outcome, from any process.

        A receipt counts from any process. A failure counts only for a context without a message:
        the failure of a message is decided by Pulsar's answer to the lane's owner.

        Arguments:
            outcome: a receipt or a failure; its ``context`` is the id.

        Returns:
            Whether this call settled it. A second, late or unknown outcome is logged, and changes
            nothing.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.

        Example:
            >>> Acknowledger(app).ack(Receipt(context="nobody waits for this"))
            False
        """
        return self._contexts.settle(outcome)
