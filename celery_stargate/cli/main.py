"""``celery stargate``: the group of commands that Celery finds by its entry point."""

from __future__ import annotations

from typing import Any

import click

from celery_stargate.cli import actions, questions
from celery_stargate.cli.dead import dead
from celery_stargate.cli.describe import describe
from celery_stargate.cli.doctor import doctor
from celery_stargate.cli.exporter import exporter
from celery_stargate.cli.produce import produce
from celery_stargate.cli.top import top

__all__ = ["stargate"]


@click.group("stargate")
def stargate(**_preload_options: Any) -> None:
    """See and change what celery_stargate has in its lanes.

    \b
    Examples:
      celery -A shop stargate status
      celery -A shop stargate pending --older-than 5m
      celery -A shop stargate doctor
    """


for _command in (
    questions.status,
    questions.lanes,
    questions.pending,
    questions.show,
    questions.workers,
    actions.retry,
    actions.cancel,
    actions.release,
    actions.drain,
    produce,
    actions.pause,
    actions.resume,
    describe,
    doctor,
    top,
    exporter,
    dead,
):
    stargate.add_command(_command)
