"""Publish many tasks by one producer; over Redis they leave in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from celery import Task, signals
from celery.app.routes import Router
from celery.canvas import Signature

from celery_stargate.effects.results.write import has_receivers

if TYPE_CHECKING:
    from celery import Celery

__all__ = [
    "Together",
    "is_celerys",
    "may_publish_together",
    "publishes_by_celery_alone",
    "together",
]

#: The options by which Celery finds a task's queue, where nothing routes by the task.
_DESTINATION = ("queue", "exchange", "routing_key", "exchange_type")


class Together:
    """A producer that publishes many tasks.

    Arguments:
        app: the app of the tasks.
        producer: kombu's.
    """

    def __init__(self, app: Celery, producer: Any) -> None:
        self._app = app
        #: kombu's.
        self.producer = producer
        self._declared: set[tuple[Any, ...]] = set()
        #: A router may look at the arguments, and a receiver may add to what is declared.
        self.declares_each = (
            bool(app.conf.task_routes)
            or not publishes_by_celery_alone(app)
            or has_receivers(signals.before_task_publish)
        )

    def takes(self, signature: Mapping[str, Any]) -> bool:
        """Whether a task can be published by it: it has Celery's own ``apply_async``.

        Groups, chains and chords take further producers from the pool, which would wait for ever if
        the pool has no other.
        """
        if signature.get("subtask_type") is not None:
            return False
        task = self._app.tasks.get(signature["task"])
        return task is None or type(task).apply_async is Task.apply_async

    def options_for(self, signature: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of ``apply_async`` that publish a task by this producer.

        kombu declares a queue once for each connection, but it takes a fifth of the time of a
        publish to find out that it has. So tasks declare their queue until one of them is
        published. A task that is published in a way of its own may choose another queue each time.
        """
        options = {"producer": self.producer}
        if (
            not self.declares_each
            and "declare" not in signature["options"]
            and _destination(signature) in self._declared
            and self.takes(signature)
            and self._is_of_this_app(signature["task"])
        ):
            options["declare"] = ()
        return options

    def _is_of_this_app(self, name: str) -> bool:
        task: Any = self._app.tasks.get(name)
        return task is None or task.app is self._app

    def note_published(self, signature: Mapping[str, Any]) -> None:
        """Note that a task was published, and so its queue is declared."""
        self._declared.add(_destination(signature))


def _destination(signature: Mapping[str, Any]) -> tuple[str, ...]:
    given = signature["options"]
    # A task may have a queue of its own as an attribute of its class.
    return (signature["task"], *(str(given.get(each)) for each in _DESTINATION))


def publishes_by_celery_alone(app: Celery) -> bool:
    """Whether no code but Celery's own runs between ``apply_async`` and kombu.

    Such is a router of another class, or a function that somebody has put around one of Celery's:
    it may choose another queue for each task.
    """
    amqp: Any = app.amqp
    kind: type = type(amqp.router)
    steps = (
        *(Signature.apply_async, Task.apply_async, app.send_task, amqp.router.route),
        *(amqp.create_task_message, amqp.send_task_message),
    )
    return kind is Router and all(is_celerys(step) for step in steps)


def is_celerys(method: Any) -> bool:
    """Whether a function is Celery's own, and not one that somebody has put around it."""
    module = str(getattr(method, "__module__", ""))
    return module.startswith("celery.") and not hasattr(method, "__wrapped__")


def may_publish_together(app: Celery, count: int) -> bool:
    """Whether ``count`` tasks can be published together, and gain by it.

    One task gains nothing. With a pool of one producer, a task that publishes another task on the
    way would wait for ever for a second producer.
    """
    return count > 1 and app.pool.limit != 1


@contextmanager
def together(app: Celery) -> Iterator[Together]:
    """Lend a producer; its messages are sent together at the end, if kombu can do so.

    ``kombu.Producer.batch`` came with kombu 5.7, for Redis; otherwise each is sent at once.
    """
    with app.producer_or_acquire() as producer, getattr(producer, "batch", nullcontext)():
        yield Together(app, producer)
