"""Callbacks: publish ``on_ack`` or ``on_error``, of one context or of many at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from celery.canvas import maybe_signature
from kombu.exceptions import OperationalError

from celery_stargate.effects.copies import Copies
from celery_stargate.effects.inherit import Inherited, inherited
from celery_stargate.effects.signatures import is_plain_json, unpack
from celery_stargate.effects.together import may_publish_together, together
from celery_stargate.effects.tracer import acting_as
from celery_stargate.model.durations import until
from celery_stargate.model.outcome import Receipt
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.exits import as_error
from celery_stargate.support.log import logger_of
from celery_stargate.support.tracing import Carrier, follow

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.effects.unregistered import Unregistered

__all__ = [
    "STARTED_HEADER",
    "PlainTask",
    "callback_id",
    "following",
    "plain_task",
    "trigger",
    "trigger_together",
]

#: The header of a callback that is kept until its task has started: its task id.
STARTED_HEADER = "stargate_unstarted"

logger = logger_of(__name__)

_NAMESPACE = uuid.UUID("6f0c4bd5-9f0f-5a53-9a2f-3d1b0d1d7a54")


def callback_id(context: str, incarnation: str, option: str) -> str:
    """Return a callback's task id, which is always the same for a call and an option.

    Callbacks are published at least once; this id allows to make them idempotent.

    Arguments:
        context: the id of the call.
        incarnation: tells the call from others with the same context.
        option: ``on_ack`` or ``on_error``.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{option}:{context}:{incarnation}"))


def trigger(
    app: Celery,
    call: CallOutcomes,
    callback: str | None,
    request: str | None = None,
    trace: Carrier | None = None,
    *,
    marked: bool = False,
    unregistered: Unregistered | None = None,
) -> None:
    """Publish the callback of a call.

    Arguments:
        app: its broker gets the callback.
        call: whose receipt, list of receipts or failure is the callback's first argument.
        callback: the packed signature that these outcomes trigger; None for no callback.
        request: the packed request of the call's task, from which the callback inherits.
        trace: the context of the call's trace, which the callback goes on with.
        marked: let its task tell that it has started.
        unregistered: warns of tasks that are not registered here.

    Raises:
        What the broker raises, or Celery for a callback that it cannot publish.
    """
    if callback is not None:
        with acting_as(app), following(call, trace):
            signature: Any = maybe_signature(unpack(callback), app=app)
            if unregistered is not None:
                unregistered.look(signature)
            inherits = inherited(app, call.context, request)
            options = _options(call, signature, inherits, marked)
            signature.apply_async((_argument(call),), **options)


class Triggering(Protocol):
    """Outcomes, and the callback that they trigger."""

    @property
    def call(self) -> CallOutcomes:
        """What the callback gets."""

    @property
    def callback(self) -> str | None:
        """The packed signature; None if there is none."""

    @property
    def request(self) -> str | None:
        """The packed request of the task, from which the callback inherits; None without one."""

    @property
    def trace(self) -> Carrier | None:
        """The context of the call's trace; None without one."""


def trigger_together(
    app: Celery,
    settled: Iterable[Triggering],
    *,
    marked: bool = False,
    unregistered: Unregistered | None = None,
) -> set[str]:
    """Publish the callbacks of many contexts with one producer; with Redis in one round trip.

    Groups, chains and chords are left out: publishing them takes further producers from the pool,
    which would wait for ever if the pool has no other.

    Arguments:
        app, marked, unregistered: as in :func:`trigger`.
        settled: whose callbacks they are.

    Returns:
        The contexts whose callback is certainly published. The others are to be triggered one by
        one, which raises what is wrong with them.
    """
    waiting = [
        (each.call, given, each.request, each.trace)
        for each in settled
        if (given := each.callback) is not None
    ]
    published: set[str] = set()
    if not may_publish_together(app, len(waiting)):
        return published
    try:
        with acting_as(app), together(app) as producer:
            copies = Copies(app, producer)
            for call, packed, request, trace in waiting:
                try:
                    callback = unpack(packed)
                    if callback.get("subtask_type") is None:
                        if unregistered is not None:
                            unregistered.look(callback)
                        inherits = inherited(app, call.context, request)
                        publish = copies.publish
                        if inherits.stamps or not (
                            is_plain_json(packed) and is_plain_json(request or "")
                        ):
                            publish = copies.publish_by_celery
                            callback = maybe_signature(callback, app=app)
                        options = _options(call, callback, inherits, marked)
                        with following(call, trace):
                            publish(callback, _argument(call), options)
                        published.add(call.context)
                except OperationalError:
                    # The broker is unavailable: the others would only find that out again.
                    raise
                except Exception:  # noqa: BLE001  # trigger() will raise it again
                    logger.debug("a callback is published by itself", context=call.context)
    except BaseException as raised:  # noqa: BLE001  # whatever it is, each is published by itself
        error = as_error(raised)
        logger.warning("%d callbacks are published one by one: %r", len(waiting), error)
        return set()
    return published


def following(call: CallOutcomes, trace: Carrier | None) -> AbstractContextManager[object]:
    """Return what makes the trace of a call the current one, while its effects are done."""
    if trace is None:
        return nullcontext()
    outcome = call.outcomes[0]
    message_id = outcome.message_id if isinstance(outcome, Receipt) else None
    return follow(trace, call.context, outcome.topic, message_id)


class PlainTask(NamedTuple):
    """A callback that is one task."""

    task_id: str
    #: Full seconds until its task may begin: its ``countdown`` or its ``eta``.
    delay: int


def plain_task(app: Celery, call: CallOutcomes, packed: str) -> PlainTask | None:
    """Return the task id and the delay of a callback; None for a group, chain or chord."""
    signature: Any = unpack(packed)
    if signature.get("subtask_type") is not None:
        return None
    options = signature["options"]
    given = options.get("task_id")
    task_id = str(given) if given is not None else _own_id(call)
    when = options.get("countdown") or options.get("eta")
    try:
        delay = 0 if when is None else max(0, ceil(until(when, app)))
    except (AttributeError, OverflowError, TypeError, ValueError):
        # Celery tells what is wrong with it when it is published.
        delay = 0
    return PlainTask(task_id, delay)


def _own_id(call: CallOutcomes) -> str:
    option = "on_error" if call.failed else "on_ack"
    return callback_id(call.context, call.incarnation, option)


def _options(
    call: CallOutcomes, callback: Any, inherits: Inherited, marked: bool
) -> dict[str, Any]:
    """Return the options of ``apply_async`` that the callback of a call has not of its own."""
    options = inherits.apply_to(callback)
    given = callback["options"]
    if callback.get("subtask_type") is None:
        if "task_id" not in given:
            # The caller may have frozen an id. Groups, chains and chords were frozen when the
            # context was recorded.
            options["task_id"] = _own_id(call)
        if marked:
            headers = options.get("headers") or given.get("headers") or {}
            task_id = given.get("task_id") or options["task_id"]
            options["headers"] = {**headers, STARTED_HEADER: task_id}
        if _is_short(call) and not (
            callback["args"] or callback["immutable"] or "argsrepr" in given
        ):
            # What events and logs show. Celery's `saferepr`, which bounds the text, would cost as
            # much as a sixth of the whole callback.
            options["argsrepr"] = repr((_argument(call),))
            if not callback["kwargs"] and "kwargsrepr" not in given:
                options["kwargsrepr"] = "{}"
    return options


def _argument(call: CallOutcomes) -> Any:
    """Return what a callback gets: a receipt, a list of receipts, or a failure, as JSON has it."""
    return call.failure.to_dict() if call.failed else call.result


def _is_short(call: CallOutcomes) -> bool:
    """Whether the argument is one receipt, without a value of the user's own."""
    outcome = call.outcomes[0]
    return not call.is_list and isinstance(outcome, Receipt) and outcome.value is None
