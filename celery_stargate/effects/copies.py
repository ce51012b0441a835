"""Publish many callbacks; those of one kind as copies of the first's message."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from celery import Task, signals
from celery.app.routes import MapRoute
from celery.backends.base import Backend
from celery.canvas import maybe_signature
from celery.utils.saferepr import saferepr

from celery_stargate.effects.results.write import has_receivers
from celery_stargate.effects.together import Together, is_celerys, publishes_by_celery_alone
from celery_stargate.effects.tracer import no_subscription

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Copies"]

#: The options of ``apply_async`` in which callbacks of one kind may differ.
_DIFFER = frozenset({"task_id", "parent_id", "root_id", "argsrepr", "kwargsrepr"})
#: Headers of the user that would stand in the place of Celery's.
_CELERYS = frozenset({*_DIFFER, "id", "ignore_result", "eta", "expires"}) - {"task_id"}
#: Methods of a task that are called when it is published.
_TASK_HOOKS = ("apply_async", "shadow_name", "AsyncResult", "_get_exec_options")
#: How deep Celery shows arguments, where it has no setting for that.
_LEVELS = 3


class _Differing(NamedTuple):
    """The fields in which a callback differs from others of its kind."""

    task_id: str
    parent_id: str | None
    root_id: str | None
    args: Sequence[Any]
    kwargs: dict[str, Any]
    argsrepr: str
    kwargsrepr: str


class _Message(NamedTuple):
    """What Celery gives to kombu's ``Producer.publish``."""

    body: Any
    options: dict[str, Any]


class _Template:
    """Makes messages from one that Celery made.

    Fields have the names of Celery's message protocol 2
    (https://docs.celeryq.dev/en/stable/internals/protocol.html).

    Arguments:
        message: what Celery made.
        first: the fields of that message that others replace.
    """

    def __init__(self, message: _Message, first: _Differing) -> None:
        self._embed = message.body[2]
        self._headers: dict[str, Any] = message.options["headers"]
        self._options = message.options
        self._named = [name for name, value in self._headers.items() if value == first.task_id]
        # Celery puts these among the properties, too, if they are given as options.
        self._shown = [name for name in ("argsrepr", "kwargsrepr") if name in message.options]

    @classmethod
    def of(cls, message: _Message, first: _Differing) -> Self | None:
        """Return the template of a message; None if others cannot be made from it."""
        body, options = message
        headers = options.get("headers")
        if not (isinstance(body, tuple) and len(body) == 3 and isinstance(headers, dict)):
            # Protocol 1 has no such body: args, kwargs, and what is to follow.
            return None
        if headers.get("eta") or headers.get("expires") or not options.get("retry"):
            # Each has a time of its own, counted from its publish. And without retries it is Celery
            # that translates the errors of the broker, not kombu.
            return None
        made = cls(message, first)
        return made if made.fill(first) == message and made._is_for_all(first) else None

    def fill(self, of: _Differing) -> _Message:
        """Return the message of another callback of the same kind."""
        shown = {"argsrepr": of.argsrepr, "kwargsrepr": of.kwargsrepr}
        headers = {
            **self._headers,
            **dict.fromkeys(self._named, of.task_id),
            "root_id": of.root_id or of.task_id,
            "parent_id": of.parent_id,
            **shown,
        }
        options = {**self._options, "headers": headers, "correlation_id": of.task_id}
        for name in self._shown:
            options[name] = shown[name]
        return _Message((of.args, of.kwargs, self._embed), options)

    def _is_for_all(self, first: _Differing) -> bool:
        """Whether nothing of the first is left in a message that has other ids and arguments."""
        left = repr(self.fill(_Differing("", None, None, (), {}, "", "")))
        ids = first.task_id, first.parent_id, first.root_id
        return not any(each in left for each in ids if each)


class _Recording:
    """kombu's producer; it notes what is published."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self.published: list[_Message] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> Any:
        """Publish it, as kombu does."""
        # As it is now: somebody may add headers on the way.
        kept = {**options, "headers": {**(options.get("headers") or {})}}
        self.published.append(_Message(body, kept))
        return self._producer.publish(body, **options)


class Copies:
    """Publishes callbacks by one producer, for the time of one batch.

    The first callback of a kind goes through Celery, with all that it does. Others of the same task
    and options differ from its message in ids and arguments only, so kombu gets copies in which
    these are replaced. A copy takes half the time of Celery's way. Whatever could notice the
    difference (a receiver of a signal, a router that looks at arguments, a method of the user's
    own) makes all callbacks, or those of that task, go through Celery.

    Arguments:
        app: the app of the tasks.
        together: its producer.
    """

    def __init__(self, app: Celery, together: Together) -> None:
        self._app = app
        self._together = together
        self._possible = _publishes_plainly(app)
        self._levels: int = getattr(app.conf, "task_repr_maxlevels", _LEVELS)
        #: By the name of a task: whether publishing it calls no method of the user's own.
        self._plain: dict[str, bool] = {}
        #: By the kind of a callback: the first's message, and then the template.
        self._firsts: dict[Hashable, tuple[_Message, _Differing]] = {}
        self._templates: dict[Hashable, _Template | None] = {}

    def publish(self, callback: Mapping[str, Any], argument: Any, options: dict[str, Any]) -> None:
        """Publish a callback as ``apply_async`` of its signature would, as a copy if possible.

        Arguments:
            callback: the signature of one task as plain JSON has it.
            argument: its first argument, if it is not immutable.
            options: of ``apply_async``, as plain JSON has them; among them ``task_id``.

        Raises:
            What ``apply_async`` raises.
        """
        kind = self._kind(callback, options)
        if kind is None:
            self.publish_by_celery(callback, argument, options)
            return
        differing = self._differing(callback, argument, options)
        template = self._template(kind)
        if template is not None:
            message = template.fill(differing)
            given = message.options
            if not self._together.declares_each:
                given["declare"] = ()
            self._together.producer.publish(message.body, **given)
            return
        recording = _Recording(self._together.producer)
        self.publish_by_celery(callback, argument, options, recording)
        if kind not in self._templates and len(recording.published) == 1:
            self._firsts[kind] = recording.published[0], differing

    def publish_by_celery(
        self,
        callback: Mapping[str, Any],
        argument: Any,
        options: dict[str, Any],
        producer: Any = None,
    ) -> None:
        """Publish a callback by ``apply_async`` of its signature.

        Arguments:
            callback, argument, options: as in :meth:`publish`; a signature, too, is a callback.
            producer: takes the place of the usual one.

        Raises:
            What ``apply_async`` raises.
        """
        own = self._together.options_for(callback)
        if producer is not None:
            own["producer"] = producer
        signature: Any = maybe_signature(callback, app=self._app)
        signature.apply_async((argument,), **options, **own)
        self._together.note_published(callback)

    def _template(self, kind: Hashable) -> _Template | None:
        """Return the template of a kind: none for its first, made for its second."""
        first = self._firsts.pop(kind, None)
        if first is not None:
            self._templates[kind] = _Template.of(*first)
        return self._templates.get(kind)

    def _kind(self, callback: Mapping[str, Any], options: Mapping[str, Any]) -> Hashable | None:
        """Return what callbacks with like messages have in common; None to go through Celery."""
        given = callback["options"]
        headers = options.get("headers") or {}
        if not (
            self._possible
            and self._is_plain(callback["task"])
            and _DIFFER.isdisjoint(given)
            and _CELERYS.isdisjoint(headers)
            and _CELERYS.isdisjoint(given.get("headers") or ())
        ):
            return None
        task_id = options["task_id"]
        same = {name: value for name, value in options.items() if name not in _DIFFER}
        # The task's id as the value of a header is another one in each.
        same["headers"] = [
            (name, *(() if value == task_id else (value,))) for name, value in headers.items()
        ]
        shown = tuple(name in options for name in ("argsrepr", "kwargsrepr"))
        of_args = len(callback["args"]), tuple(callback["kwargs"]), bool(callback["immutable"])
        return callback["task"], shown, of_args, repr((given, same))

    def _is_plain(self, name: str) -> bool:
        """Whether publishing a task calls neither a method of the user's own nor another app."""
        if name not in self._plain:
            task: Any = self._app.tasks.get(name)
            self._plain[name] = task is None or (
                task.app is self._app
                and all(_is_own(getattr(task, hook), Task) for hook in _TASK_HOOKS)
            )
        return self._plain[name]

    def _differing(
        self, callback: Mapping[str, Any], argument: Any, options: Mapping[str, Any]
    ) -> _Differing:
        args = callback["args"] or ()
        if not callback["immutable"]:
            args = (argument, *args)
        kwargs = dict(callback["kwargs"])
        amqp, levels = self._app.amqp, self._levels
        shown, shown_kwargs = options.get("argsrepr"), options.get("kwargsrepr")
        if shown is None:
            shown = saferepr(args, amqp.argsrepr_maxsize, maxlevels=levels)
        if shown_kwargs is None:
            shown_kwargs = saferepr(kwargs, amqp.kwargsrepr_maxsize, maxlevels=levels)
        parent, root = options.get("parent_id"), options.get("root_id")
        return _Differing(options["task_id"], parent, root, args, kwargs, shown, shown_kwargs)


def _publishes_plainly(app: Celery) -> bool:
    """Whether nobody but Celery does, or hears, anything when a task is published."""
    router: Any = app.amqp.router
    heard = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
    told: Any = app.backend.on_task_call
    return (
        not (app.conf.task_always_eager or app.conf.task_send_sent_event)
        # The current task would get the callbacks as its children.
        and app.current_worker_task is None
        and not has_receivers(*heard, deaf=())
        and publishes_by_celery_alone(app)
        # A function among the routes may look at the arguments.
        and all(type(route) is MapRoute for route in router.routes)
        # Others subscribe to each result, or declare a queue for it.
        and (told is no_subscription or _is_own(told, Backend))
    )


def _is_own(method: Any, of: type) -> bool:
    """Whether a bound method is the one that a class of Celery's has."""
    function = getattr(method, "__func__", None)
    return function is getattr(of, method.__name__, None) and is_celerys(function)
