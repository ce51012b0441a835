from typing import Any

from celery import shared_task


@shared_task
def confirm(receipt: dict[str, Any]) -> str:
    return f"Pulsar has the order: {receipt['status']}"
