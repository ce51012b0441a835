"""Which outcome a reply means for its message."""

from __future__ import annotations

from collections.abc import Callable

from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Outcome, Receipt, failure_status
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.link import Blame, LinkBroken
from celery_stargate.pulsar.message_id import MessageId
from celery_stargate.pulsar.replies import Reply
from celery_stargate.pulsar.sentences import plain
from celery_stargate.pulsar.sequence import Numbered
from celery_stargate.pulsar.verdicts import Verdict, classify_reply

__all__ = ["FalseOk", "SendAgain", "is_stored", "judge"]


class SendAgain(LinkBroken):
    """Pulsar refused a message temporarily: it and all later messages are sent again, in order."""


class FalseOk(LinkBroken):
    """Pulsar answered ``ok`` to a message that it cannot have stored."""


def is_stored(reply: Reply) -> bool:
    """Whether a reply alone tells that its message is stored."""
    try:
        return reply.result == "ok" and MessageId.decode(reply.message_id or "").ledger >= 0
    except ValueError:
        return False


def judge(
    reply: Reply,
    entry: Entry,
    topic: Topic,
    sent_before: int,
    numbered: Numbered | None = None,
    *,
    was_free: Callable[[int], bool] = lambda _: False,
) -> Outcome:
    """Return the outcome that a reply means for a message.

    Arguments:
        entry: the message.
        topic: where it was sent.
        sent_before: the number of the last message that an earlier connection may have sent.
        numbered: the lane's sequence ids, with effectively once delivery.
        was_free: whether Pulsar knew no message of a number before this connection sent it.

    Raises:
        SendAgain: Pulsar refused it temporarily.
        FalseOk: the sequence ids show that the ``ok`` cannot be true.
        LinkBroken: the reply gives no outcome for another reason. In all three cases the message
            must be sent again.
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
        reason = f"Pulsar's ok cannot be read: {error}"
        raise LinkBroken(reason, entry=entry) from None
    partition = place.partition
    if numbered is not None and partition < 0:
        # A producer of one partition gets ids without the partition.
        partition = numbered.partition
    if place.ledger < 0:
        if numbered is not None:
            if entry.number > numbered.tried and not was_free(entry.number):
                raise FalseOk(f"message {entry.number} was never sent before")
            return Receipt(
                context=entry.context,
                topic=str(topic),
                status="deduplicated",
                partition=partition,
            )
        if topic.persistent:
            # This send stored nothing, although deduplication is not in use.
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
