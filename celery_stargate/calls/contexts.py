"""Contexts without a message: recorded here, acknowledged by any process."""

from __future__ import annotations

import time
from concurrent.futures import Future

from celery_stargate import observers
from celery_stargate.calls.prepare import CallOptions, new_incarnation
from celery_stargate.calls.runtime import Runtime
from celery_stargate.calls.waiting import Patience, Waiting
from celery_stargate.effects.apart import EffectsApart
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.wire import SettleWord
from celery_stargate.model.context import check_context
from celery_stargate.model.outcome import Outcome, Receipt
from celery_stargate.support.log import logger_of

__all__ = ["Contexts"]

logger = logger_of(__name__)

#: The inbox's thread enforces the deadline for as long as anyone waits.
_PATIENCE = Patience(settle_every=1.0)


class Contexts:
    """Records contexts without a message, and gives contexts their outcome.

    Arguments:
        runtime: of the app.
        effects: does the effects of what is settled here.
    """

    def __init__(self, runtime: Runtime, effects: EffectsApart) -> None:
        self._runtime = runtime
        self._effects = effects

    def expect(self, context: str, options: CallOptions) -> Future[Receipt]:
        """Record a context, and return the future of its outcome.

        Raises:
            ContextInUse: it is pending already.
            InvalidMessage: the context is not printable text.
            StoreUnavailable: Redis did not answer in bounded time.
        """
        check_context(context)
        runtime, callbacks = self._runtime, options.callbacks
        settings = runtime.settings
        seconds = options.seconds(
            settings.options.delivery_timeout if callbacks else settings.produce_timeout
        )
        inbox = runtime.inbox
        ticket = inbox.expect(
            Waiting(
                time.monotonic() + seconds,
                _PATIENCE,
                lambda: runtime.settle_overdue([CONTEXTS_LANE]),
            )
        )
        record = Record(
            context,
            on_ack=callbacks.on_ack,
            on_error=callbacks.on_error,
            inbox=ticket.address,
            incarnation=new_incarnation(callbacks),
        )
        try:
            runtime.outbox.put(CONTEXTS_LANE, record, (), timeout=seconds, exclusive=True)
        except BaseException:
            inbox.forget(ticket)
            raise
        return ticket.future

    def settle(self, outcome: Outcome) -> bool:
        """Give a context its outcome, and do its effects.

        Returns:
            Whether this call settled it.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        outbox = self._runtime.outbox
        for lane in self._candidates(outcome):
            word, settled = outbox.settle(lane, outcome)
            if settled is not None:
                observers.ended(lane, [settled], self._runtime.settings.dead_letter_rules)
                self._effects.run(lane, [settled])
                return True
            if word is not SettleWord.LATE:
                break
        else:
            word = SettleWord.LATE
        logger.info("an outcome changed nothing: %s", word, context=outcome.context)
        return False

    def _candidates(self, outcome: Outcome) -> list[Lane]:
        if outcome.topic is not None:
            topic, options = self._runtime.settings.resolve(outcome.topic)
            return [Lane(str(topic), index) for index in range(options.lane_count)]
        _, lanes = self._runtime.outbox.registry.survey()
        return [CONTEXTS_LANE, *(lane for lane in lanes if lane != CONTEXTS_LANE)]
