"""Write messages in the transaction of your data::

    from celery_stargate.contrib.django import outbox

    with transaction.atomic():
        order = Order.objects.create(...)
        outbox.produce({"payload": ..., "key": f"order-{order.pk}"}, topic="orders",
                       on_ack=mark_published.s(order.pk))

Rolled back means never sent. After the commit the row goes into its lane at once, or the relay
takes it; Pulsar's receipt closes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from celery_stargate.contrib.django import handover, lanes
from celery_stargate.contrib.django.contexts import context_of
from celery_stargate.contrib.django.handle import Handle
from celery_stargate.contrib.django.rows import new_row, outbox_alias, outbox_model
from celery_stargate.contrib.django.settings import PREFIX, OutboxSettings
from celery_stargate.errors import InvalidMessage
from celery_stargate.model.durations import read_timeout
from celery_stargate.model.message import Message
from celery_stargate.task import ProduceResult, ProduceTask

__all__ = [
    "Handle",
    "aproduce",
    "aproduce_many",
    "produce",
    "produce_many",
    "produce_on_commit",
]

#: Rows of one INSERT.
_INSERT_SIZE = 1000


def produce(
    message: object,
    *,
    topic: str | None = None,
    on_ack: Any = None,
    on_error: Any = None,
    delivery_timeout: Any = None,
    using: str | None = None,
) -> Handle:
    """Write one message in the current transaction.

    Arguments:
        message: text, bytes, ``(key, payload)``, a mapping or a Message.
        topic: its full name or its name in the settings; by default ``stargate_topic``.
        on_ack: the signature that gets the receipt.
        on_error: the signature that gets the failure.
        delivery_timeout: seconds or a timedelta from the hand-over to the message's deadline; by
            default ``stargate_delivery_timeout``.
        using: the database of your transaction; by default the router's choice for the outbox.

    Returns:
        A handle with the context.

    Raises:
        TransactionManagementError: no transaction is open in that database.
        InvalidMessage, ConfigurationError: nothing was written.

    Example:
        >>> with transaction.atomic():
        ...     handle = outbox.produce(("order-17", "one lamp"), topic="orders")
        >>> handle.topic
        'persistent://public/default/orders'
    """
    return _write([message], topic, on_ack, on_error, delivery_timeout, using, in_list=False)[0]


def produce_many(
    messages: Iterable[object],
    *,
    topic: str | None = None,
    on_ack: Any = None,
    on_error: Any = None,
    delivery_timeout: Any = None,
    using: str | None = None,
) -> list[Handle]:
    """Write many messages in the current transaction, with few statements; each has a receipt.

    Messages of one key keep the order given.

    Arguments:
        messages: any iterable of text, bytes, ``(key, payload)``, mappings and Messages.
        topic, on_ack, on_error, delivery_timeout, using: as in :func:`produce`, for each message.

    Returns:
        A handle for each, in the order given.

    Raises:
        TransactionManagementError, ConfigurationError: as :func:`produce`.
        InvalidMessage: as :func:`produce`; ``index`` is the place of the message. Nothing was
            written.

    Example:
        >>> with transaction.atomic():
        ...     handles = outbox.produce_many(["one lamp", "one chair"], topic="orders")
        >>> len(handles)
        2
    """
    if isinstance(messages, str | bytes | bytearray | memoryview | Mapping | Message):
        raise InvalidMessage(
            f"produce_many takes an iterable of messages, not {type(messages).__name__}; for one "
            "message use produce"
        )
    return _write(list(messages), topic, on_ack, on_error, delivery_timeout, using, in_list=True)


async def aproduce(message: object, **options: Any) -> Handle:
    """Do as :func:`produce` does, from async code.

    Django has no async transactions: to write data and message together, do both in one function
    under ``transaction.atomic`` and call it with ``sync_to_async``. Where the message stands by
    itself, set ``CELERY_STARGATE_OUTBOX_REQUIRE_TRANSACTION = False``.

    Arguments:
        message, options: as in :func:`produce`.

    Returns:
        A handle with the context.

    Raises:
        As :func:`produce`.

    Example:
        >>> async def view(request):
        ...     return await outbox.aproduce("one lamp", topic="orders")
    """
    return await sync_to_async(produce)(message, **options)


async def aproduce_many(messages: Iterable[object], **options: Any) -> list[Handle]:
    """Do as :func:`produce_many` does, from async code; see :func:`aproduce`.

    Arguments:
        messages, options: as in :func:`produce_many`.

    Returns:
        A handle for each, in the order given.

    Raises:
        As :func:`produce_many`.

    Example:
        >>> async def view(request):
        ...     return await outbox.aproduce_many(["one lamp", "one chair"], topic="orders")
    """
    return await sync_to_async(produce_many)(messages, **options)


def produce_on_commit(
    message: object,
    *,
    topic: str | None = None,
    on_ack: Any = None,
    on_error: Any = None,
    delivery_timeout: Any = None,
    using: str | None = None,
) -> ProduceResult[Any]:
    """Publish after the commit, without a row: as ``produce_task.delay``, and never if rolled back.

    A process that dies between the commit and the call loses the message; use :func:`produce` where
    that must not be. The message is checked now, and published as it is now.

    Arguments:
        message, topic, on_ack, on_error, delivery_timeout, using: as in :func:`produce`.

    Returns:
        The result at once: its ``id`` is the context, and ``get()`` waits for the receipt.

    Raises:
        InvalidMessage, ConfigurationError: nothing will be published.
        StoreUnavailable: when the transaction commits, or now outside one.

    Example:
        >>> with transaction.atomic():
        ...     result = outbox.produce_on_commit("one lamp", topic="orders")
        >>> len(result.id)
        36
    """
    stargate = lanes.current_stargate()
    context = str(uuid.uuid4())
    entry = lanes.prepare(stargate, message, context, topic)
    options = {
        "topic": topic,
        "on_ack": on_ack,
        "on_error": on_error,
        "delivery_timeout": delivery_timeout,
    }
    given = {name: value for name, value in options.items() if value is not None}
    task: Any = stargate.app.tasks[ProduceTask.default_name]
    args, kwargs = lanes.frozen_arguments(task, (entry.message,), given, context)
    transaction.on_commit(
        partial(task.apply_async, args, kwargs, task_id=context),
        using=using or outbox_alias(),
    )
    result: ProduceResult[Any] = task.AsyncResult(context)
    return result


def _write(
    messages: list[object],
    topic: str | None,
    on_ack: Any,
    on_error: Any,
    delivery_timeout: Any,
    using: str | None,
    *,
    in_list: bool,
) -> list[Handle]:
    model = outbox_model()
    using = using or outbox_alias()
    settings = OutboxSettings.read()
    connection = connections[using]
    if settings.require_transaction and not connection.in_atomic_block:
        raise TransactionManagementError(
            f"outbox.produce needs a transaction in the database {using!r}: wrap it and the change "
            f"of your data in transaction.atomic(using={using!r}), or set "
            f"{PREFIX}REQUIRE_TRANSACTION = False"
        )
    stargate = lanes.current_stargate()
    timeout = None if delivery_timeout is None else read_timeout(delivery_timeout)
    entries, rows = [], []
    packed = None
    for place, message in enumerate(messages):
        row_id = uuid.uuid4()
        try:
            entry = lanes.prepare(stargate, message, context_of(row_id, 1), topic, timeout)
            if packed is None or _is_canvas(on_ack) or _is_canvas(on_error):
                packed = lanes.freeze_callbacks(stargate, on_ack, on_error)
            rows.append(new_row(entry, row_id, *packed))
        except InvalidMessage as error:
            raise InvalidMessage(error.problem, place if in_list else None) from None
        entries.append(entry)
    if in_list:
        model.objects.using(using).bulk_create(rows, batch_size=_INSERT_SIZE)
    else:
        rows[0].save(using=using, force_insert=True)
    handover.after_commit(using, list(zip(rows, entries, strict=True)), settings)
    return [
        Handle(entry.context, row.uuid, entry.topic, using)
        for row, entry in zip(rows, entries, strict=True)
    ]


def _is_canvas(callback: Any) -> bool:
    """Whether a callback is a group, chain or chord: each message needs its own frozen ids."""
    return isinstance(callback, Mapping) and callback.get("subtask_type") is not None
