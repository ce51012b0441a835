"""The checker: are the promises of the design kept, by the ledger and by what the topics hold?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from celery_stargate.effects.run import callback_id
from celery_stargate.model.outcome import Failure
from tests.simulation.ledger import Context, Ledger
from tests.simulation.redis_model import Stream

if TYPE_CHECKING:
    from tests.simulation.broker import Broker
    from tests.simulation.world import World

__all__ = ["check", "left_in_redis"]

#: Codes of failures that a message with a receipt may have, or that are not kept.
_NOT_OF_MESSAGE = ("TypeError", "revoked", "expired")
#: What the design allows past a deadline, in ms.
_PAST_DEADLINE_MS = 15_000


def check(world: World, settled: bool, bound: float) -> list[str]:
    """Return what is wrong at the end of a run.

    Arguments:
        settled: whether all was settled and told in time.
        bound: seconds that there were for it, from when all was healed.
    """
    wrong: list[str] = []
    ledger, broker = world.ledger, world.broker
    if not settled:
        late = [
            process.name for process, task in world.callers if process.alive and not task.done()
        ]
        wrong += [f"a caller still waits: {each}" for each in late]
        wrong += [f"P2: {name} is not finished {bound:g} s later" for name in sorted(ledger.open)]
    copies = {
        name: Counter(stored.label for stored in topic.messages)
        for name, topic in broker.topics.items()
    }
    for context in ledger.contexts.values():
        if context.forgotten:
            continue
        wrong += _lost(context, copies.get(context.topic or "", Counter()))
        if context.settled is not None:
            wrong += _late(world, context)
        if context.told:
            wrong += _outcome(world, context, copies.get(context.topic or "", Counter()))
    wrong += _order(ledger, broker)
    if world.plan.effectively_once:
        wrong += _copies(world, copies)
    if (
        not world.faults.struck
        and world.plan.restored is None
        and world.plan.settings.drain_timeout > 1.0
    ):
        wrong += _without_faults(world, copies)
    if settled or not ledger.open:
        wrong += left_in_redis(world)
    if world.plan.restored is None:
        wrong += _dead_letters(world, copies)
    wrong += [
        f"an exception that was never retrieved: {error!r}" for error in world.loop.exceptions()
    ]
    return wrong


def _lost(context: Context, copies: Counter[str]) -> Iterator[str]:
    name = context.name
    if context.recorded is None:
        if context.accepted is not None:
            yield f"P1: {name} was accepted and not recorded"
        if context.told:
            yield f"P1: {name} was told and never recorded"
    elif context.completed:
        if context.told:
            yield f"P3: {name} was completed, and told all the same"
        if not all(copies[label] for label in context.labels):
            yield f"P1: {name} was completed, and is not in the topic"
    elif context.settled is not None and not context.told:
        yield f"P1: {name} has an outcome, and no callback for it came"


def _late(world: World, context: Context) -> Iterator[str]:
    plan = world.plan
    allowed = context.deadline_ms
    if world.faults.struck:
        assert world.healed_at is not None
        # A deadline that passed in the middle of faults: an owner must be there again first.
        again = world.healed_at + 2 * plan.settings.lease - context.settled_at
        allowed = max(allowed, context.settled_ms + round(again * 1000))
    if context.settled_ms > allowed + _PAST_DEADLINE_MS:
        late = (context.settled_ms - context.deadline_ms) / 1000
        yield f"P2: {context.name} was settled {late:.1f} s past its deadline"


def _outcome(world: World, context: Context, copies: Counter[str]) -> Iterator[str]:
    name, told = context.name, context.told
    outcomes = told[0].outcomes
    if any(each.outcomes != outcomes for each in told):
        yield f"P3: {name} was told {[each.outcomes for each in told]}"
    failed = any(isinstance(each, Failure) for each in outcomes)
    if context.broken and not failed:
        yield f"P4: {name} was told by a callback that cannot be published"
    if isinstance(outcomes[0], Failure) and outcomes[0].code == "TypeError":
        if not context.broken:
            yield f"P4: {name} was told as broken, and is not"
        outcomes = ()
    callbacks = {each.callback for each in told}
    if callbacks != {callback_id(context.context, name, "on_error" if failed else "on_ack")}:
        yield f"P4: the callbacks of {name} have the ids {callbacks}"
    if outcomes and len(outcomes) not in (len(context.labels), 1):
        yield f"P3: {name} has {len(outcomes)} outcomes"
    topic = world.broker.topics.get(context.topic or "")
    for label, outcome in zip(context.labels, outcomes, strict=False):
        if isinstance(outcome, Failure):
            if outcome.status == "refused" and copies[label]:
                yield f"P3: {label!r} was refused ({outcome.code}), and is in the topic"
            continue
        if not copies[label]:
            yield f"P1: {label!r} is {outcome.status}, and is not in the topic"
        elif outcome.status != "transient" and not world.plan.persistent:
            yield f"P3: {label!r} is {outcome.status} in a topic that stores nothing"
        elif outcome.status == "transient":
            if world.plan.persistent:
                yield f"P3: {label!r} is transient in a persistent topic"
        elif outcome.status == "deduplicated":
            if not world.plan.effectively_once:
                yield f"P6: {label!r} is deduplicated without effectively once"
        elif topic is not None and topic.messages[outcome.entry_id].label != label:
            yield f"P3: the receipt of {label!r} is that of another message"


def _order(ledger: Ledger, broker: Broker) -> Iterator[str]:
    where = {
        label: (context.lane, context.life, context.first + place)
        for context in ledger.contexts.values()
        for place, label in enumerate(context.labels)
        if not context.forgotten and not _unknown(context)
    }
    for name, topic in broker.topics.items():
        last: dict[tuple[str, int], int] = {}
        seen: set[str] = set()
        for stored in topic.messages:
            label = stored.label
            # Pulsar itself may have stored what came behind one that it refused. And what is
            # unknown may come at any time: it may be held up in a process that is paused.
            if label in seen or label in ledger.refused or label not in where:
                continue
            seen.add(label)
            lane, life, number = where[label]
            if number < last.get((lane, life), 0):
                before = last[lane, life]
                yield f"P5: {label!r}, number {number}, stands behind {before} in {name}"
            last[lane, life] = number


def _unknown(context: Context) -> bool:
    """Whether some message of it has the status `unknown`."""
    outcomes = context.told[0].outcomes if context.told else ()
    return any(isinstance(each, Failure) and each.status == "unknown" for each in outcomes)


def _copies(world: World, copies: dict[str, Counter[str]]) -> Iterator[str]:
    for name, counted in copies.items():
        if name in world.ledger.unreadable:
            continue
        for label, count in counted.items():
            context = world.ledger.contexts[label.partition("\t")[0]]
            if count > 1 and not context.forgotten:
                yield f"P6: {label!r} is {count} times in {name}"


def _without_faults(world: World, copies: dict[str, Counter[str]]) -> Iterator[str]:
    for counted in copies.values():
        yield from (f"P6: {label!r} twice for no reason" for label, n in counted.items() if n > 1)
    for context in world.ledger.contexts.values():
        # A caller may do the effects while an owner takes the lane over.
        if len(context.told) > 1 and all(each.by.startswith("worker") for each in context.told):
            yield f"P4: {context.name} was told twice for no reason"


def _dead_letters(world: World, copies: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Each message that has no receipt is a dead letter; there are too few for the bounds.

    One that is unknown may have a receipt by now: then it is in the topic, and its letter is gone.
    So is that of an earlier message with its id, in whose place it was.
    """
    dead = {
        name.decode()
        for key, value in world.redis.model.keys().items()
        if key.endswith(":dead")
        for name in value
    }
    confirmed = {
        letter
        for letter, label, outcome, topic in _failed(world)
        if outcome.status == "unknown" and copies.get(topic, Counter())[label]
    }
    for letter, label, outcome, _ in _failed(world):
        if letter not in dead and letter not in confirmed:
            yield f"P3: {label!r} failed ({outcome}), and is no dead letter"


def _failed(world: World) -> Iterator[tuple[str, str, Failure, str]]:
    """Yield messages that failed: the id of the dead letter, label, outcome and topic of each."""
    for context in world.ledger.contexts.values():
        if context.forgotten or not context.told or not context.labels:
            continue
        outcomes = context.told[0].outcomes
        for label, outcome in zip(context.labels, outcomes, strict=False):
            # That of a callback which cannot be published is no failure of the message.
            if isinstance(outcome, Failure) and outcome.code not in _NOT_OF_MESSAGE:
                # The lanes know it under the id that its caller may have used before.
                letter = label.replace(context.name, context.context, 1)
                yield letter, label, outcome, context.topic or ""


def left_in_redis(world: World) -> Iterator[str]:
    """Yield what Redis still holds of messages, in words."""
    for key, value in world.redis.model.keys().items():
        part = key.rpartition(":")[2]
        held = value.entries if isinstance(value, Stream) else value
        if part in ("log", "contexts", "deadlines", "outcomes", "due") and held:
            yield f"{key} still holds {held}"
