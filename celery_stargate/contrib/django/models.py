"""The tables: outbox rows, the relays' leases, and the inbox."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from celery_stargate.contrib.django.contexts import context_of
from celery_stargate.contrib.django.pending import message_of
from celery_stargate.contrib.django.states import CHOICES, FAILED, State
from celery_stargate.model.message import Message

__all__ = [
    "DeadLetter",
    "FailedMessage",
    "InboxClaim",
    "OutboxMessage",
    "OutboxRelay",
    "OutboxShard",
]


class OutboxMessage(models.Model):
    """One message, written in the caller's transaction and closed by Pulsar's receipt."""

    #: Rows of one key are handed over in the order of their ids.
    id = models.BigAutoField(primary_key=True)
    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    #: The topic's full name.
    topic = models.CharField(max_length=255)
    key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001  # "" is a key
    #: A hash of topic and key: one relay at a time owns all rows of a shard.
    shard = models.PositiveSmallIntegerField(editable=False)
    payload = models.BinaryField()
    #: The message's other fields; null for none.
    attributes = models.JSONField(null=True, blank=True)
    #: Seconds from the hand-over to the deadline; null for ``stargate_delivery_timeout``.
    delivery_timeout = models.FloatField(null=True, blank=True)
    #: Celery signatures as JSON; empty for none.
    on_ack = models.TextField(blank=True, default="")
    on_error = models.TextField(blank=True, default="")

    state = models.CharField(max_length=10, choices=CHOICES, default=State.PENDING.value)
    #: Counts the times that a row was replayed or requeued, from 1; each has its own context.
    attempt = models.PositiveIntegerField(default=1)
    #: Failed hand-overs of this attempt.
    tries = models.PositiveIntegerField(default=0)
    #: The lane's name, once it is in one.
    lane = models.CharField(max_length=300, blank=True, default="")
    #: Pulsar's message id, base64.
    message_id = models.CharField(max_length=100, blank=True, default="")
    #: ``stored``, ``deduplicated``, ``transient``, or a failure's code.
    code = models.CharField(max_length=100, blank=True, default="")
    #: Why it failed, or why it waits.
    reason = models.TextField(blank=True, default="")
    #: Earlier attempts: a list of mappings, the oldest first; null for none.
    history = models.JSONField(null=True, blank=True, editable=False)

    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    recorded_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        """Indexes, permissions and names."""

        indexes: ClassVar[list[models.Index]] = [
            # Reads by the relay; counts; clean-up. Full indexes: MySQL has no partial ones.
            models.Index(fields=["state", "id"], name="stargate_outbox_state"),
            # "Is an earlier row of this key pending?"; the admin's search.
            models.Index(fields=["key", "state", "id"], name="stargate_outbox_key"),
        ]
        permissions: ClassVar[list[tuple[str, str]]] = [
            ("replay_outboxmessage", "Can send a stored message again"),
            ("requeue_outboxmessage", "Can requeue a failed message"),
            ("discard_outboxmessage", "Can discard a failed message"),
        ]
        verbose_name = "outbox message"

    def __str__(self) -> str:
        return f"{self.context} ({self.state})"

    @property
    def context(self) -> str:
        """The context of the present attempt."""
        return context_of(self.uuid, self.attempt)

    def to_message(self) -> Message:
        """Return the message to publish.

        Raises:
            InvalidMessage: the row was changed into something that cannot be published.
            TypeError: ``attributes`` holds a field that a message does not have.
        """
        return message_of(self.payload, self.key, self.attributes)


class _FailedManager(models.Manager):
    """Only the rows that wait for an operator."""

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(state__in=FAILED)


class FailedMessage(OutboxMessage):
    """A refused or unknown row, for a list of its own in the admin: the outbox's dead letters."""

    objects = _FailedManager()

    class Meta:
        """A proxy: the rows are those of the outbox."""

        proxy = True
        verbose_name = "failed outbox message"


class _NoManager(models.Manager):
    """No rows: what it stands for is in Redis."""

    def get_queryset(self) -> Any:
        return super().get_queryset().none()


class DeadLetter(OutboxMessage):
    """Stands for the dead letters in Redis, of all produce tasks: it has no rows.

    The admin shows it, and permissions and log entries need it. A proxy, so that commands such as
    ``dumpdata`` look for no table.
    """

    objects = _NoManager()

    class Meta:
        """Permissions of its own."""

        proxy = True
        default_permissions = ("view",)
        permissions: ClassVar[list[tuple[str, str]]] = [
            ("replay_deadletter", "Can send a dead letter again"),
            ("discard_deadletter", "Can discard a dead letter"),
        ]
        verbose_name = "dead letter in Redis"
        verbose_name_plural = "dead letters in Redis"


class OutboxShard(models.Model):
    """The lease on one shard of keys."""

    number = models.PositiveSmallIntegerField(primary_key=True)
    #: The relay that holds it; empty for none.
    owner = models.CharField(max_length=100, blank=True, default="")
    #: The fencing token: one more at each change of the owner.
    token = models.BigIntegerField(default=0)
    expires_at = models.DateTimeField(null=True, blank=True)
    #: When the last complete look for rows that Redis lost began.
    verified_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        """Its name."""

        verbose_name = "outbox shard"

    def __str__(self) -> str:
        return f"shard {self.number} of {self.owner or 'nobody'}"


class OutboxRelay(models.Model):
    """A running relay, so that the others know their fair share of the shards."""

    name = models.CharField(max_length=100, primary_key=True)
    seen_at = models.DateTimeField()

    class Meta:
        """Its name."""

        verbose_name = "outbox relay"

    def __str__(self) -> str:
        return str(self.name)


class InboxClaim(models.Model):
    """One message or context whose effect was done, by the name of who did it."""

    id = models.BigAutoField(primary_key=True)
    #: Of name and message: some databases take "a" and "A" for the same text.
    digest = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=100)
    message = models.CharField(max_length=255)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        """Its name."""

        verbose_name = "inbox claim"

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"
