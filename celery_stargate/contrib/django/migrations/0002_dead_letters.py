from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("celery_stargate", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[],
            options={
                "verbose_name": "dead letter in Redis",
                "verbose_name_plural": "dead letters in Redis",
                "permissions": [
                    ("replay_deadletter", "Can send a dead letter again"),
                    ("discard_deadletter", "Can discard a dead letter"),
                ],
                "proxy": True,
                "default_permissions": ("view",),
                "indexes": [],
                "constraints": [],
            },
            bases=("celery_stargate.outboxmessage",),
        ),
        migrations.AlterModelOptions(
            name="failedmessage",
            options={"verbose_name": "failed outbox message"},
        ),
    ]
