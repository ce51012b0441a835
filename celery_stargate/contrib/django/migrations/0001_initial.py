import django.utils.timezone
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="InboxClaim",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("digest", models.CharField(max_length=64, unique=True)),
                ("name", models.CharField(max_length=100)),
                ("message", models.CharField(max_length=255)),
                (
                    "claimed_at",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now),
                ),
            ],
            options={
                "verbose_name": "inbox claim",
            },
        ),
        migrations.CreateModel(
            name="OutboxRelay",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "outbox relay",
            },
        ),
        migrations.CreateModel(
            name="OutboxShard",
            fields=[
                ("number", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("owner", models.CharField(blank=True, default="", max_length=100)),
                ("token", models.BigIntegerField(default=0)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("verified_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "outbox shard",
            },
        ),
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("topic", models.CharField(max_length=255)),
                ("key", models.CharField(blank=True, max_length=255, null=True)),
                ("shard", models.PositiveSmallIntegerField(editable=False)),
                ("payload", models.BinaryField()),
                ("attributes", models.JSONField(blank=True, null=True)),
                ("delivery_timeout", models.FloatField(blank=True, null=True)),
                ("on_ack", models.TextField(blank=True, default="")),
                ("on_error", models.TextField(blank=True, default="")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("recorded", "Recorded"),
                            ("stored", "Stored"),
                            ("refused", "Refused"),
                            ("unknown", "Unknown"),
                            ("discarded", "Discarded"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                ("attempt", models.PositiveIntegerField(default=1)),
                ("tries", models.PositiveIntegerField(default=0)),
                ("lane", models.CharField(blank=True, default="", max_length=300)),
                ("message_id", models.CharField(blank=True, default="", max_length=100)),
                ("code", models.CharField(blank=True, default="", max_length=100)),
                ("reason", models.TextField(blank=True, default="")),
                ("history", models.JSONField(blank=True, editable=False, null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now),
                ),
                ("recorded_at", models.DateTimeField(blank=True, null=True)),
                ("closed_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "outbox message",
                "permissions": [
                    ("replay_outboxmessage", "Can send a stored message again"),
                    ("requeue_outboxmessage", "Can requeue a failed message"),
                    ("discard_outboxmessage", "Can discard a failed message"),
                ],
                "indexes": [
                    models.Index(fields=["state", "id"], name="stargate_outbox_state"),
                    models.Index(fields=["key", "state", "id"], name="stargate_outbox_key"),
                ],
            },
        ),
        migrations.CreateModel(
            name="FailedMessage",
            fields=[],
            options={
                "verbose_name": "dead letter",
                "proxy": True,
                "indexes": [],
                "constraints": [],
            },
            bases=("celery_stargate.outboxmessage",),
        ),
    ]
