"""The outcome that a reply means for a message."""

from __future__ import annotations

from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Outcome, Receipt, failure_status
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.link import Blame, LinkBroken
from celery_stargate.pulsar.message_id import MessageId
from celery_stargate.pulsar.replies import Reply
from celery_stargate.pulsar.sentences import plain
from celery_stargate.pulsar.sequence import Numbered
from celery_stargate.pulsar.verdicts import Verdict, classify_reply

__all__ = ["FalseOk", "SendAgain", "judge"]


class SendAgain(LinkBroken):
    """Pulsar refuses a message for now: to keep the order, all that came after it goes again."""


class FalseOk(LinkBroken):
    """Pulsar says that it has a message which it cannot have."""


def judge(
    reply: Reply, entry: Entry, topic: Topic, sent_before: int, numbered: Numbered | None = None
) -> Outcome:
    """Return the outcome that a reply means for a message.

    Raises:
        LinkBroken: it means none, and the message is to be sent again: as :class:`SendAgain` where
            Pulsar refuses it for now, as :class:`FalseOk` where it cannot be believed by numbers.
    """
    verdict = classify_reply(reply)
    if verdict is Verdict.TRANSIENT:
        raise SendAgain(f"{plain(reply.result)}: {plain(reply.error)}", Blame.NONE)
    if verdict is Verdict.PERMANENT:
        return Failure(
            context=entry.context,
            topic=str(topic),
            status=failure_status(entry.number, sent_before),
            reason=plain(reply.error or reply.result),
            code=plain(reply.result),
        )
    try:
        place = MessageId.decode(reply.message_id or "")
    except ValueError as error:
        reason = f"an ok that cannot be read: {error}"
        raise LinkBroken(reason, entry=entry) from None
    partition = place.partition
    if numbered is not None and partition < 0:
        # Who opened the partition itself is not told which it is.
        partition = numbered.partition
    if place.ledger < 0:
        if numbered is not None:
            if entry.number > numbered.tried:
                raise FalseOk(f"message {entry.number} was never sent before")
            return Receipt(
                context=entry.context,
                topic=str(topic),
                status="deduplicated",
                partition=partition,
            )
        if topic.persistent:
            # Nothing was stored by this send, and no deduplication was asked for.
            raise LinkBroken("Pulsar answered ok and stored nothing", entry=entry)
        return Failure(
            context=entry.context,
            topic=str(topic),
            status=failure_status(entry.number, sent_before),
            reason="Pulsar dropped it: the non-persistent topic has too many messages in flight",
            code="dropped",
        )
    return Receipt(
        context=entry.context,
        topic=str(topic),
        status="stored" if topic.persistent else "transient",
        message_id=reply.message_id,
        ledger_id=place.ledger,
        entry_id=place.entry,
        partition=partition,
        batch_index=place.batch_index,
    )
