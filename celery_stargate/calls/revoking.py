"""Revoke calls, from any process: what was not sent is failed in its lane, for good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celery.utils.functional import maybe_list

from celery_stargate import observers
from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.apart import EffectsApart
from celery_stargate.effects.tracer import OutcomeTask
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.revocations import Revocations, Revoked
from celery_stargate.model.context import attempt_context
from celery_stargate.model.entry import label_of
from celery_stargate.model.follow_up import request_fields
from celery_stargate.model.revocation import EXPIRED, REVOKED

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Revoker", "attempts_of", "stamps_of"]


#: How many attempts of a task are looked for at most, where its retries have no bound.
_MOST_RETRIES = 100


class Revoker:
    """Revokes calls of one app.

    A message counts as sent from when its lane's owner read it to send it. Such a message is not
    revoked, since it may be in its topic.

    Every method raises :class:`StoreUnavailable` if Redis did not answer in bounded time.

    Arguments:
        runtime: of the app.
        effects: does the effects of what is revoked; by default those of the runtime.
    """

    def __init__(self, runtime: Runtime, effects: EffectsApart | None = None) -> None:
        self._runtime = runtime
        self._effects = effects or runtime.effects_apart
        settings = runtime.settings
        self._revocations = Revocations(
            runtime.connections, settings.keyspace, settings.dead_letter_rules
        )

    def cancel(self, context: str) -> bool:
        """Revoke one call, and return whether nothing of it was or will be sent."""
        sent, done = self._revoke(attempts_of(self._runtime.app, [context]), self._lanes())
        return bool(done) and not sent

    def revoke(self, contexts: Iterable[str]) -> set[str]:
        """Revoke calls that are in their lanes, or still on their way by Celery's broker.

        Returns:
            Those of them that may have been sent, whole or in part.
        """
        wanted = list(dict.fromkeys(contexts))
        self._revocations.remember(wanted)
        attempts = attempts_of(self._runtime.app, wanted)
        return {attempts[each] for each in self._revoke(attempts, self._lanes())[0]}

    def revoke_stamped(self, stamps: Mapping[str, Any]) -> None:
        """Revoke the calls that have any of some stamps, those of the next day included.

        Arguments:
            stamps: a value or a list of values for each stamped header, as Celery takes them.
        """
        wanted = _texts(stamps)
        # First, so that a call recorded meanwhile finds them.
        self._revocations.remember_stamps(wanted)
        lanes = self._lanes()
        for lane in lanes:
            for record, first in self._revocations.pending(lane, b"stamped_headers"):
                own = stamps_of(request_fields(record.request))
                if any(set(own.get(header, ())) & set(each) for header, each in wanted.items()):
                    self._revoke([record.context], [lane], lanes, first)

    def is_revoked(self, context: str) -> bool:
        """Whether an id was revoked within the last day."""
        return self._revocations.remembers(context)

    def has_revoked_stamp(self, request: Mapping[str, Any]) -> bool:
        """Whether a stamp of a call was revoked within the last day.

        Arguments:
            request: the request of its task.
        """
        stamps = stamps_of(request)
        return bool(stamps) and self._revocations.remembers_stamps(stamps)

    def check_stamps(self, context: str, lanes: Iterable[Lane], request: Mapping[str, Any]) -> None:
        """Revoke a call that was just recorded, if one of its stamps was revoked meanwhile.

        Arguments:
            context: of the call.
            lanes: of its messages.
            request: the request of its task.
        """
        if self.has_revoked_stamp(request):
            self._revoke([context], list(lanes))

    def _lanes(self) -> list[Lane]:
        _, lanes = self._runtime.outbox.registry.survey()
        return list(dict.fromkeys([CONTEXTS_LANE, *lanes]))

    def _revoke(
        self,
        contexts: Iterable[str],
        lanes: Sequence[Lane],
        all_lanes: Sequence[Lane] = (),
        first: int | None = None,
    ) -> tuple[set[str], set[str]]:
        """Revoke contexts.

        Arguments:
            lanes: where they may be.
            all_lanes: where the messages of their lists may be; by default in the same lanes.
            first: as for :meth:`Revocations.revoke`.

        Returns:
            The contexts that may have been sent, and those that ended by this.
        """
        found = self._revocations.revoke(lanes, list(contexts), first)
        self._finish(found)
        sent, done = found.sent, found.contexts
        for context, count in found.elsewhere.items():
            labels = [label_of(context, place) for place in range(count)]
            parts = self._revocations.revoke(all_lanes or lanes, labels)
            self._finish(parts)
            if len(parts.contexts) < count:
                sent.add(context)
            else:
                done.add(context)
        return sent, done

    def _finish(self, found: Revoked) -> None:
        rules = self._runtime.settings.dead_letter_rules
        for lane, settled in found.settled.items():
            observers.ended(lane, settled, rules, REVOKED, EXPIRED)
            self._effects.run(lane, settled)


def attempts_of(app: Celery, contexts: Iterable[str]) -> dict[str, str]:
    """Return the contexts that lanes may have of some calls, with the call of each.

    A later attempt of a call has a context of its own.

    Arguments:
        app: the app, whose tasks say how many attempts there may be.
    """
    tasks = [each for each in app.tasks.values() if isinstance(each, OutcomeTask)]
    most = max(map(_retries, tasks), default=0)
    return {attempt_context(each, number): each for each in contexts for number in range(most + 1)}


def _retries(task: OutcomeTask) -> int:
    """Return how many attempts may follow the first one of a task."""
    if not task.is_retried:
        return 0
    own: Any = getattr(task, "retry_kwargs", None) or {}
    most = own.get("max_retries", task.max_retries)
    return _MOST_RETRIES if most is None else min(most, _MOST_RETRIES)


def stamps_of(request: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return a request's stamps: the values of each stamped header, as texts."""
    headers, stamps = request.get("stamped_headers"), request.get("stamps")
    if isinstance(headers, str) or not isinstance(headers, Iterable):
        return {}
    if not isinstance(stamps, Mapping):
        return {}
    return _texts({header: stamps.get(header) for header in headers if isinstance(header, str)})


def _texts(stamps: Mapping[str, Any]) -> dict[str, list[str]]:
    found = {
        str(header): [str(each) for each in maybe_list(values) or ()]
        for header, values in stamps.items()
    }
    return {header: values for header, values in found.items() if values}
