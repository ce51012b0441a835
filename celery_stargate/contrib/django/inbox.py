"""The inbox: an effect once, though its task may run more than once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, ParamSpec, TypeVar

from celery import current_task
from django.db import IntegrityError, connections, router, transaction
from django.db.transaction import TransactionManagementError

from celery_stargate.contrib.django.rows import model_of, storable
from celery_stargate.support.log import logger_of

__all__ = ["idempotent"]

logger = logger_of(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_MAX_NAME, _MAX_ID = 100, 255

#: Functions that do nothing yet when they return.
_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def idempotent(
    name: str, *, message_id: Callable[..., str] | None = None, using: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Do a task's effect once for each message, in the task's own transaction.

    The claim and the effect commit together: if the task fails, its next run does it all; if it
    has committed, a repeat returns None and does nothing. An effect that raises leaves no claim,
    although its transaction may go on.

    Arguments:
        name: of the effect; two effects of one message have two names.
        message_id: gets the function's arguments and returns the id to claim. By default that is
            the ``context`` of the first argument (a receipt, a failure, or a list of receipts),
            else its ``message_id``, else the id of the Celery task.
        using: the database of the transaction; by default the router's choice for the inbox.

    Raises:
        TransactionManagementError: when called, no transaction is open in that database.
        ValueError: the name is too long; when called, there is no id to claim.
        TypeError: the function is a coroutine's or a generator's, for which Django has no
            transaction.

    Example:
        >>> @app.task
        ... @transaction.atomic
        ... @idempotent("mark-published")
        ... def mark_published(receipt, order_id):
        ...     return f"order {order_id} is published"
        >>> mark_published({"context": "c-17"}, 17)
        'order 17 is published'
        >>> mark_published({"context": "c-17"}, 17)  # a repeat does nothing
    """
    if not 0 < len(name) <= _MAX_NAME:
        raise ValueError(f"the name of an effect has 1 to {_MAX_NAME} characters, not {len(name)}")
    if "\n" in name:
        raise ValueError(f"the name of an effect has no line break: {name!r}")

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        if any(kind(function) for kind in _LATER):
            raise TypeError(
                f"idempotent({name!r}) takes a plain function: the effect of "
                f"{function.__qualname__} would come after its claim, and outside its transaction"
            )

        @functools.wraps(function)
        def once(*args: P.args, **kwargs: P.kwargs) -> R | None:
            found = _find_id(args) if message_id is None else message_id(*args, **kwargs)
            claim, alias = _make_claim(name, found, using)
            claimed = False
            try:
                # If the effect fails there is no claim either, although the transaction goes on.
                with transaction.atomic(using=alias):
                    # A claim in a transaction that is still open is waited for: it commits, or is
                    # rolled back.
                    claim.save(using=alias, force_insert=True)
                    claimed = True
                    return function(*args, **kwargs)
            except IntegrityError:
                if claimed:
                    raise
            logger.info("%s was done for %s already", name, found)
            return None

        return once

    return decorate


def _find_id(args: tuple[Any, ...]) -> str:
    # The first argument of a bound task is the task.
    for given in args[:2]:
        first = given[0] if isinstance(given, list) and given else given
        if isinstance(first, Mapping):
            for field in ("context", "message_id"):
                if isinstance(first.get(field), str):
                    return str(first[field])
    request = getattr(current_task, "request", None)
    if request is not None and request.id:
        return str(request.id)
    raise ValueError(
        "there is no id to claim: the first argument has no context and no message_id, and this is "
        "not a Celery task; give idempotent(..., message_id=function)"
    )


def _make_claim(name: str, message: str, using: str | None) -> tuple[Any, str]:
    """Return the unsaved claim of an id, and the database whose transaction is open."""
    if not isinstance(message, str) or not message:
        raise ValueError(f"an id to claim is a text that is not empty, not {message!r}")
    model = model_of("InboxClaim")
    using = using or router.db_for_write(model)
    if not connections[using].in_atomic_block:
        raise TransactionManagementError(
            f"idempotent({name!r}) needs a transaction in the database {using!r}: put "
            "@transaction.atomic above it, so that the claim and the effect commit together"
        )
    # The digest is of the whole id, whatever it holds; the text is for people.
    digest = sha256(f"{name}\n{message}".encode(errors="surrogatepass")).hexdigest()
    return model(digest=digest, name=name, message=storable(message)[:_MAX_ID]), using
