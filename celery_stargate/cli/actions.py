"""``cancel``, ``release``, ``retry``, ``drain``, ``pause``, ``resume``: what changes something."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from celery_stargate.cli.changes import Changes, choice_options
from celery_stargate.cli.command import (
    Deployment,
    StargateCommand,
    json_option,
    pass_deployment,
    topic_option,
)
from celery_stargate.cli.durations import DURATION, format_duration
from celery_stargate.cli.output import Column, Output
from celery_stargate.cli.standard_input import confirm
from celery_stargate.operations.actions import Change, Changed
from celery_stargate.operations.views import ContextState

__all__ = ["cancel", "drain", "pause", "release", "resume", "retry"]

_CONTEXTS: Changes[Change] = Changes(
    noun="contexts",
    names="contexts",
    field="context",
    meaning={
        Changed.DONE: "done",
        Changed.MISSING: "no lane has it",
        Changed.SETTLED: "it has its outcome already",
        Changed.PENDING: "it has no outcome yet; its owner sends it until its deadline",
        Changed.UNREADABLE: "its record cannot be read",
        Changed.FAILED: "its callbacks or its result failed; its owner repeats them",
    },
    done=Changed.DONE,
    more=[Column("OUTCOME", lambda row: row.status or "-")],
    empty="No context matches.",
)

_contexts_options = choice_options(
    "contexts",
    topic_option,
    click.option("--older-than", type=DURATION, help="Only those recorded so long ago."),
)


def _choose(
    deployment: Deployment,
    contexts: Sequence[str],
    options: Mapping[str, Any],
    states: Sequence[ContextState],
) -> Iterable[str]:
    """Return the contexts that a command is about; those of a filter when they are found.

    Raises:
        click.UsageError: it is not clear which are meant.
    """
    topic, older_than = deployment.topic(options["topic"]), options["older_than"]
    filtered = bool(topic or older_than is not None)
    _CONTEXTS.check(contexts, filtered=filtered, everything=options["everything"])
    if contexts:
        return list(dict.fromkeys(contexts))
    found = deployment.contexts.pending(topic, older_than=older_than)
    return (view.context for view in found if view.state in states)


def _run(
    output: Output,
    contexts: Iterable[str],
    options: Mapping[str, Any],
    verb: str,
    act: Callable[[str], Change],
) -> None:
    """Act on each context, and tell; exit code 1 if one of them was not done."""
    if options["dry_run"]:
        _CONTEXTS.rehearse(output, contexts)
        return
    # All before the first is changed: what goes would move those that are still to be found.
    chosen = list(contexts)
    if not options["yes"]:
        _CONTEXTS.ask(verb, chosen)
    _, failed = _CONTEXTS.tell(output, map(act, chosen))
    if failed:
        click.get_current_context().exit(1)


@click.command("cancel", cls=StargateCommand)
@click.option("--reason", default="", help="Told to on_error and in the result.")
@_contexts_options
@pass_deployment
def cancel(
    deployment: Deployment, contexts: Sequence[str], reason: str, as_json: bool, **options: Any
) -> None:
    """Cancel contexts: nothing of them is sent any more, and on_error is told.

    A message that may have been sent already gets the outcome "unknown", any other "refused".

    \b
    Examples:
      celery -A shop stargate cancel 5e8f0c1e-6a1f-4d0e-9f0a-0c4f6a7b8d9e
      celery -A shop stargate cancel --topic orders --older-than 2h --all --dry-run
      celery -A shop stargate cancel --topic orders --all --yes --reason "wrong topic"
    """
    states = (ContextState.UNSENT, ContextState.SENT, ContextState.OPEN)
    chosen = _choose(deployment, contexts, options, states)
    actions = deployment.actions
    _run(
        deployment.output(as_json=as_json),
        chosen,
        options,
        "Cancel",
        lambda context: actions.cancel(context, reason),
    )


@click.command("release", cls=StargateCommand)
@click.option("--stored", "status", flag_value="stored", help="It is in the topic.")
@click.option("--refused", "status", flag_value="refused", help="It is not in the topic.")
@click.option("--reason", default="", help="Told to on_error and in the result.")
@_contexts_options
@pass_deployment
def release(
    deployment: Deployment,
    contexts: Sequence[str],
    status: str | None,
    reason: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Settle contexts by hand, with the outcome that you know.

    Nothing checks that it is true. on_ack or on_error is triggered, and whoever waits is told.

    \b
    Examples:
      celery -A shop stargate release --stored order-17
      celery -A shop stargate release --refused order-17 --reason "rejected by the warehouse"
    """
    if status is None:
        raise click.UsageError("say which outcome it is: --stored or --refused")
    known: Any = status
    states = (ContextState.UNSENT, ContextState.SENT, ContextState.OPEN)
    chosen = _choose(deployment, contexts, options, states)
    actions = deployment.actions
    _run(
        deployment.output(as_json=as_json),
        chosen,
        options,
        f"Release as {status}",
        lambda context: actions.release(context, known, reason),
    )


@click.command("retry", cls=StargateCommand)
@_contexts_options
@pass_deployment
def retry(deployment: Deployment, contexts: Sequence[str], as_json: bool, **options: Any) -> None:
    """Repeat the results and callbacks of settled contexts now, as their owner does later.

    A context without an outcome needs no retry: its owner sends it until its deadline. To send a
    message again that failed, use "dead replay".

    \b
    Examples:
      celery -A shop stargate retry 5e8f0c1e-6a1f-4d0e-9f0a-0c4f6a7b8d9e
      celery -A shop stargate retry --all --yes
    """
    chosen = _choose(deployment, contexts, options, (ContextState.SETTLED,))
    actions = deployment.actions
    _run(deployment.output(as_json=as_json), chosen, options, "Retry", actions.retry)


@click.command("drain", cls=StargateCommand)
@topic_option
@click.option(
    "--timeout", type=DURATION, default="10m", show_default=True, help="How long to wait."
)
@click.option("--every", type=DURATION, default="1s", show_default=True, help="How often to look.")
@json_option
@pass_deployment
def drain(
    deployment: Deployment, topic: str | None, timeout: float, every: float, as_json: bool
) -> None:
    """Wait until no context is pending: before a deployment, or at the end of a test.

    \b
    Exit codes: 0 all is done, 1 the time is over.

    \b
    Examples:
      celery -A shop stargate drain
      celery -A shop stargate drain --topic orders --timeout 30s
    """
    output = deployment.output(as_json=as_json)
    inspector, name = deployment.lanes, deployment.topic(topic)
    began = time.monotonic()
    while True:
        lanes = list(inspector.lanes(name))
        contexts = sum(lane.contexts for lane in lanes)
        waited = time.monotonic() - began
        done = contexts == 0
        if done or waited >= timeout:
            break
        if not as_json:
            backlog = sum(lane.backlog for lane in lanes)
            output.say(
                f"{contexts} contexts pending, {backlog} messages; "
                f"waited {format_duration(waited)}",
                error=True,
            )
        time.sleep(max(0.01, min(every, timeout - waited)))
    if as_json:
        output.object({"done": done, "contexts": contexts, "waited_seconds": waited})
    elif done:
        output.say(f"Nothing is pending, after {format_duration(waited)}.", "green")
    else:
        output.say(f"The time is over, and {contexts} contexts are pending.", "red", error=True)
    click.get_current_context().exit(0 if done else 1)


@click.command("pause", cls=StargateCommand)
@click.argument("topic")
@click.option(
    "--for",
    "seconds",
    type=DURATION,
    default="1h",
    show_default=True,
    help="The pause ends by itself after this.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_deployment
def pause(deployment: Deployment, topic: str, seconds: float, yes: bool, as_json: bool) -> None:
    """Stop the sending of a topic; what is recorded waits in its lanes, in order.

    Receipts of messages in flight still count. Deadlines go on: those that pass during the pause
    are told when it ends.

    \b
    Examples:
      celery -A shop stargate pause orders
      celery -A shop stargate pause orders --for 10m --yes
    """
    name, lanes = deployment.topic_lanes(topic)
    if seconds <= 0:
        raise click.UsageError("--for must be more than 0 seconds")
    if not yes:
        confirm(f"Pause {name} for {format_duration(seconds)}?")
    paused = deployment.pauses.pause(name, lanes, seconds)
    _tell_lanes(deployment.output(as_json=as_json), "paused", paused)


@click.command("resume", cls=StargateCommand)
@click.argument("topic")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_deployment
def resume(deployment: Deployment, topic: str, yes: bool, as_json: bool) -> None:
    """End the pause of a topic; workers take its lanes at once.

    \b
    Examples:
      celery -A shop stargate resume orders
      celery -A shop stargate resume orders --yes
    """
    name, lanes = deployment.topic_lanes(topic)
    if not yes:
        confirm(f"Resume {name}?")
    resumed = deployment.pauses.resume(name, lanes)
    output = deployment.output(as_json=as_json)
    if not resumed and not as_json:
        output.say(f"{name} was not paused.")
    else:
        _tell_lanes(output, "resumed", resumed)


def _tell_lanes(output: Output, word: str, lanes: list[str]) -> None:
    if output.as_json:
        output.object({word: lanes})
        return
    for lane in lanes:
        output.say(f"{word}: {lane}")
