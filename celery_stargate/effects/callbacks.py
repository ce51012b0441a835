"""Trigger: publish ``on_ack`` or ``on_error``, of one context or of many at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from celery.canvas import maybe_signature
from kombu.exceptions import OperationalError

from celery_stargate.effects.signatures import unpack
from celery_stargate.effects.tracer import acting_as
from celery_stargate.lanes.record import Settled
from celery_stargate.model.outcome import Receipt
from celery_stargate.support.log import logger

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["callback_id", "trigger", "trigger_together"]

_NAMESPACE = uuid.UUID("6f0c4bd5-9f0f-5a53-9a2f-3d1b0d1d7a54")


def callback_id(context: str, option: str) -> str:
    """Return a callback's task id: one for each context and ``on_ack`` or ``on_error``, always.

    Callbacks are published at least once; by this id they can be made idempotent.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{option}:{context}"))


def trigger(app: Celery, settled: Settled) -> None:
    """Publish the callback that an outcome calls for, where there is one.

    Raises:
        What the broker raises, or Celery on a callback that it cannot publish.
    """
    packed = _called_for(settled)
    if packed is not None:
        with acting_as(app):
            _publish(settled, _signature(app, packed))


def trigger_together(app: Celery, settled: Iterable[Settled]) -> set[str]:
    """Publish the callbacks of many contexts by one producer; over Redis in one round trip.

    A group, chain or chord stays out: it takes a producer of its own for some of its parts, and
    would wait for one for ever where the pool has no other.

    Returns:
        The contexts whose callback is surely published. What of the others went wrong is seen when
        they are triggered one by one.
    """
    waiting = [(each, packed) for each in settled if (packed := _called_for(each)) is not None]
    published: set[str] = set()
    # One gains nothing by it; and a task that publishes another by the way needs a second producer
    # meanwhile.
    if len(waiting) < 2 or app.pool.limit == 1:
        return published
    try:
        with acting_as(app), _producer(app) as producer:
            for each, packed in waiting:
                try:
                    signature = _signature(app, packed)
                    if signature.get("subtask_type") is None:
                        _publish(each, signature, producer=producer)
                        published.add(each.record.context)
                except OperationalError:
                    # The broker is away: to learn that once is enough.
                    raise
                except Exception:  # noqa: BLE001  # what it was, trigger() raises again
                    logger.debug("the callback of %s is tried by itself", each.record.context)
    except Exception as error:  # noqa: BLE001  # whatever it is, each is tried by itself
        logger.warning("%d callbacks are published one by one: %r", len(waiting), error)
        return set()
    return published


@contextmanager
def _producer(app: Celery) -> Iterator[Any]:
    """Lend a producer; where kombu can do it, its messages leave together at the end.

    ``kombu.Producer.batch`` came with kombu 5.7, for Redis; else each message leaves at once.
    """
    with app.producer_or_acquire() as producer, getattr(producer, "batch", nullcontext)():
        yield producer


def _called_for(settled: Settled) -> str | None:
    record = settled.record
    return record.on_error if settled.failed else record.on_ack


def _signature(app: Celery, packed: str) -> Any:
    return maybe_signature(unpack(packed), app=app)


def _publish(settled: Settled, callback: Any, **options: Any) -> None:
    argument = settled.failure.to_dict() if settled.failed else settled.result
    given = callback["options"]
    if callback.get("subtask_type") is None:
        if "task_id" not in given:
            # One that the caller froze keeps its id, and so do those of a group, chain or chord,
            # frozen when the context was recorded.
            option = "on_error" if settled.failed else "on_ack"
            options["task_id"] = callback_id(settled.record.context, option)
        if _is_short(settled) and not (
            callback["args"] or callback["immutable"] or "argsrepr" in given
        ):
            # What events and logs show. Celery would make it by its own `saferepr`, which bounds
            # the text, at a sixth of the cost of all this.
            options["argsrepr"] = repr((argument,))
    callback.apply_async((argument,), **options)


def _is_short(settled: Settled) -> bool:
    """Whether all that the callback gets is one receipt, without a value of somebody's own."""
    outcome = settled.outcomes[0]
    return not settled.record.is_list and isinstance(outcome, Receipt) and outcome.value is None
