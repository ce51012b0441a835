"""``status``, ``lanes``, ``pending``, ``show``, ``workers``: what is there, and whose it is."""

from __future__ import annotations

import time
from itertools import islice

import click
import msgspec

from celery_stargate.cli.command import (
    Deployment,
    StargateCommand,
    json_option,
    pass_deployment,
    topic_option,
)
from celery_stargate.cli.durations import DURATION, format_age, format_duration
from celery_stargate.cli.output import Column
from celery_stargate.operations.inspect import rates
from celery_stargate.operations.views import (
    ContextDetail,
    ContextState,
    ContextView,
    LaneView,
    StatusView,
    WorkerView,
)

__all__ = ["lanes", "pending", "show", "status", "workers"]

#: How much of a process's name a table shows; the end is a random number.
_OWNER = 24

_LANES: list[Column[LaneView]] = [
    Column("LANE", lambda row: row.lane, shrinks=True),
    Column(
        "OWNER",
        lambda row: short_owner(row.owner),
        colour=lambda row: "red" if row.needs_owner else None,
        shrinks=True,
    ),
    Column("BACKLOG", lambda row: str(row.backlog), right=True),
    Column("UNSENT", lambda row: str(row.unsent), right=True),
    Column("SENT", lambda row: str(row.sent), right=True),
    Column("SETTLED", lambda row: str(row.settled), right=True),
    Column(
        "OLDEST",
        lambda row: format_age(row.oldest_age_seconds, exact=row.oldest_age_exact),
        right=True,
    ),
    Column(
        "DEADLINE",
        lambda row: format_duration(row.next_deadline_seconds),
        right=True,
        colour=lambda row: "red" if (row.next_deadline_seconds or 0) < 0 else None,
    ),
]

_STATE_COLOURS = {ContextState.UNREADABLE: "red", ContextState.SETTLED: "yellow"}

_CONTEXTS: list[Column[ContextView]] = [
    Column("CONTEXT", lambda row: row.context),
    Column("STATE", lambda row: row.state.value, colour=lambda row: _STATE_COLOURS.get(row.state)),
    Column("AGE", lambda row: format_age(row.age_seconds, exact=row.age_exact), right=True),
    Column(
        "DEADLINE",
        lambda row: format_duration(row.deadline_seconds),
        right=True,
        colour=lambda row: "red" if (row.deadline_seconds or 0) < 0 else None,
    ),
    Column("MESSAGES", lambda row: str(row.messages), right=True),
    Column("NUMBER", lambda row: str(row.number or "-"), right=True),
    Column("LANE", lambda row: row.lane, shrinks=True),
]

_WORKERS: list[Column[WorkerView]] = [
    Column("WORKER", lambda row: row.worker, shrinks=True),
    Column("LANES", lambda row: str(row.lanes), right=True),
    Column("BACKLOG", lambda row: str(row.backlog), right=True),
    Column(
        "ALIVE",
        lambda row: "yes" if (row.alive_seconds or 0) > 0 else "no",
        colour=lambda row: None if (row.alive_seconds or 0) > 0 else "red",
    ),
]


@click.command("status", cls=StargateCommand)
@click.option(
    "--interval",
    type=DURATION,
    default="0.5s",
    show_default=True,
    help="How long to measure rates; 0 for no rates.",
)
@json_option
@pass_deployment
def status(deployment: Deployment, interval: float, as_json: bool) -> None:
    """Show the totals: backlog, oldest age, rates, workers.

    \b
    Examples:
      celery -A shop stargate status
      celery -A shop stargate status --interval 5s
      celery -A shop stargate status --json | jq .oldest_age_seconds
    """
    output = deployment.output(as_json=as_json)
    inspector = deployment.lanes
    found = inspector.status()
    if interval > 0:
        began = time.monotonic()
        time.sleep(interval)
        again = inspector.status()
        measured = rates(found, again, time.monotonic() - began)
        found = msgspec.structs.replace(again, rates=measured)
    if as_json:
        output.object(found)
        return
    output.facts(_status_facts(found))


def _status_facts(found: StatusView) -> list[tuple[str, str]]:
    oldest = format_age(found.oldest_age_seconds, exact=found.oldest_age_exact)
    facts = [
        ("workers", str(found.workers)),
        (
            "lanes",
            (
                f"{found.lanes} ({found.lanes_without_owner} with work and no owner, "
                f"{found.lanes_paused} paused)"
            ),
        ),
        ("backlog", f"{found.backlog} messages ({found.unsent} unsent, {found.sent} sent)"),
        ("oldest message", oldest),
        ("next deadline", format_duration(found.next_deadline_seconds)),
        ("contexts", f"{found.contexts} ({found.settled} settled, callbacks not done)"),
        ("dead letters", str(found.dead)),
    ]
    if found.rates is not None:
        facts.append(
            (
                "rates",
                (
                    f"{found.rates.recorded_per_second:.0f}/s recorded, "
                    f"{found.rates.done_per_second:.0f}/s done "
                    f"(over {format_duration(found.rates.interval_seconds)})"
                ),
            )
        )
    return facts


@click.command("lanes", cls=StargateCommand)
@topic_option
@json_option
@pass_deployment
def lanes(deployment: Deployment, topic: str | None, as_json: bool) -> None:
    """List the lanes with their owners, backlog and oldest message.

    \b
    Examples:
      celery -A shop stargate lanes
      celery -A shop stargate lanes --topic orders
      celery -A shop stargate lanes --json | jq 'select(.owner == null)'
    """
    found = deployment.lanes.lanes(deployment.topic(topic))
    deployment.output(as_json=as_json).rows(_LANES, found, "There are no lanes.")


@click.command("pending", cls=StargateCommand)
@topic_option
@click.option("--older-than", type=DURATION, help="Only those recorded so long ago: 30s, 5m, 2h.")
@click.option(
    "--state", type=click.Choice([state.value for state in ContextState]), help="Only this state."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many to show; 0 for all.",
)
@json_option
@pass_deployment
def pending(
    deployment: Deployment,
    topic: str | None,
    older_than: float | None,
    state: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the contexts that are not finished, lane by lane, the next deadline first.

    \b
    States:
      unsent      recorded; no owner has sent it yet
      sent        sent, and its receipt is not here yet
      open        it has no message in this lane; somebody else settles it
      settled     it has its outcome; its result or callbacks are not done yet
      unreadable  its record is damaged, or of another version

    An age with ~ is computed from the deadline and the configured timeout.

    \b
    Examples:
      celery -A shop stargate pending
      celery -A shop stargate pending --topic orders --older-than 5m
      celery -A shop stargate pending --state settled --limit 0 --json
    """
    output = deployment.output(as_json=as_json)
    found = deployment.contexts.pending(
        deployment.topic(topic),
        state=None if state is None else ContextState(state),
        older_than=older_than,
    )
    shown = output.rows(
        _CONTEXTS, islice(found, limit or None), "No context is pending that matches."
    )
    if limit and shown == limit and not as_json and next(found, None) is not None:
        output.say(f"There are more; --limit 0 shows all. These are the first {limit}.")


@click.command("show", cls=StargateCommand)
@click.argument("context")
@json_option
@pass_deployment
def show(deployment: Deployment, context: str, as_json: bool) -> None:
    """Show all that is known of one context, but its payload.

    CONTEXT is the id of the call: by default the id of its task.

    \b
    Examples:
      celery -A shop stargate show 5e8f0c1e-6a1f-4d0e-9f0a-0c4f6a7b8d9e
    """
    output = deployment.output(as_json=as_json)
    found = deployment.contexts.find(context)
    if found is None:
        raise click.ClickException(
            f"no lane has the context {context!r}: it is finished, or never was recorded. "
            "Its result, if it has one, is in Celery's result backend"
        )
    if as_json:
        output.object(found)
        return
    output.facts(_context_facts(found))


def _context_facts(found: ContextDetail) -> list[tuple[str, str]]:
    facts = [
        ("context", found.context),
        ("state", f"{found.state.value} ({_MEANING[found.state]})"),
        ("lane", found.lane),
        ("owner", found.owner or "nobody"),
        ("age", format_age(found.age_seconds, exact=found.age_exact)),
        ("deadline", _deadline(found.deadline_seconds)),
        ("messages", str(found.messages)),
    ]
    if found.number:
        facts.append(("number", f"{found.number} (at most {found.ahead} before it)"))
    for name in ("task", "on_ack", "on_error", "parent"):
        value = getattr(found, name)
        if value is not None:
            facts.append((name, value))
    facts.append(("a caller waits", "yes" if found.waits else "no"))
    for outcome in found.outcomes:
        told = ", ".join(f"{key}={value}" for key, value in outcome.items() if value is not None)
        facts.append(("outcome", told))
    return facts


_MEANING = {
    ContextState.UNSENT: "no owner has sent it yet",
    ContextState.SENT: "its receipt is not here yet",
    ContextState.OPEN: "it has no message in this lane; somebody else settles it",
    ContextState.SETTLED: "its result or callbacks are not done yet",
    ContextState.UNREADABLE: "its record is damaged, or of another version",
}


def _deadline(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"passed {format_duration(-seconds)} ago"
    return f"in {format_duration(seconds)}"


@click.command("workers", cls=StargateCommand)
@json_option
@pass_deployment
def workers(deployment: Deployment, as_json: bool) -> None:
    """List the processes that own lanes, or may.

    \b
    Examples:
      celery -A shop stargate workers
      celery -A shop stargate workers --json
    """
    found = deployment.lanes.workers()
    deployment.output(as_json=as_json).rows(
        _WORKERS, found, "No worker is alive: start one with celery -A shop worker."
    )


def short_owner(owner: str | None) -> str:
    """Return the readable part of a process's name: host and process id."""
    if owner is None:
        return "nobody"
    head, _, end = owner.rpartition("-")
    readable = head if len(end) == 32 and head else owner
    return readable if len(readable) <= _OWNER else f"{readable[: _OWNER - 1]}…"
