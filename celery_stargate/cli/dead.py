"""``dead``: list, show, replay, discard, archive and restore dead letters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
import msgspec
from redis.exceptions import RedisError

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
from celery_stargate.cli.standard_input import InputFile, confirm
from celery_stargate.errors import nearest
from celery_stargate.lanes.connections import explain
from celery_stargate.operations.dead_letters import DeadLetters, check_archived
from celery_stargate.operations.dead_records import Letter, shown_id
from celery_stargate.operations.dead_views import (
    DeadLetterChange,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterView,
    DeadResult,
)
from celery_stargate.support.decoding import UNDECODABLE

__all__ = ["dead"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Dead letters, and ids of which there is none.
_Chosen = tuple[Iterable[Letter], list[str]]
#: How many lines of an archive are put back in one step.
_LINES = 200

_LETTERS: list[Column[DeadLetterView]] = [
    Column("ID", lambda row: row.id),
    Column("TOPIC", lambda row: row.topic, shrinks=True),
    Column("ERROR", lambda row: row.error),
    Column("CODE", lambda row: row.code),
    Column("OUTCOME", lambda row: row.status),
    Column("FAILURES", lambda row: str(row.failures), right=True),
    Column("LAST", lambda row: format_duration(row.last_failed_seconds), right=True),
]
_GROUPS: list[Column[DeadLetterGroup]] = [
    Column("TOPIC", lambda row: row.topic, shrinks=True),
    Column("ERROR", lambda row: row.error),
    Column("CODE", lambda row: row.code),
    Column("COUNT", lambda row: str(row.count), right=True),
]
#: What a verb came to.
_DONE = {
    "Replay": "recorded again, and sent next",
    "Discard": "deleted",
    "Archive": "archived",
}
_DEAD_LETTERS: Changes[DeadLetterChange] = Changes(
    noun="dead letters",
    names="ids",
    field="id",
    meaning={
        DeadResult.DONE: "done",
        DeadResult.MISSING: "there is no such dead letter",
        DeadResult.FULL: "its lane is full; try again later",
        DeadResult.KNOWN: "a replay of it is pending, or ended a short time ago",
        DeadResult.UNREADABLE: "its message or record cannot be read",
    },
    done=DeadResult.DONE,
    empty="No dead letter matches.",
)


@click.group("dead")
def dead() -> None:
    """See, replay and delete dead letters: messages that failed.

    \b
    Examples:
      celery -A shop stargate dead list --by-cause
      celery -A shop stargate dead replay --topic orders --all --dry-run
    """


def _filter_options(command: _Command) -> _Command:
    for decorate in (
        topic_option,
        click.option("--error", metavar="NAME", help="Only this class or code of error."),
        click.option("--older-than", type=DURATION, help="Only those that failed so long ago."),
    ):
        command = decorate(command)
    return command


_choice_options = choice_options("ids", _filter_options)


def _filter(deployment: Deployment, options: Mapping[str, Any]) -> DeadLetterFilter:
    return DeadLetterFilter(
        topic=deployment.topic(options["topic"]),
        error=options["error"],
        older_than=options["older_than"],
    )


def _choose(
    deployment: Deployment, letters: DeadLetters, ids: Sequence[str], options: Mapping[str, Any]
) -> _Chosen:
    """Return the dead letters that a command is about, and the ids of which there is none.

    Those of a filter are returned when they are found.

    Raises:
        click.UsageError: it is not clear which are meant.
    """
    where = _filter(deployment, options)
    filtered = where != DeadLetterFilter()
    _DEAD_LETTERS.check(ids, filtered=filtered, everything=options["everything"])
    if ids:
        found = letters.named(ids)
        missing = set(ids) - {shown_id(each.id) for each in found} - {each.id for each in found}
        return found, sorted(missing)
    all_of_them = letters.letters(where)
    first = next(all_of_them, None)
    if first is None:
        if where.error is not None:
            _hint(letters, where.error)
        return [], []
    return chain([first], all_of_them), []


def _hint(letters: DeadLetters, error: str) -> None:
    """Say which errors there are, if one that was asked for is not among them."""
    known = {name for group in letters.totals().groups for name in (group.error, group.code)}
    if known and error not in known:
        close = nearest(error, known)
        names = ", ".join(sorted(known)[:10])
        click.echo(f"No dead letter has the error {error!r}{close}. There are: {names}.", err=True)


def _act(
    output: Output,
    verb: str,
    found: _Chosen,
    options: Mapping[str, Any],
    act: Callable[[Sequence[Letter]], Iterator[DeadLetterChange]],
) -> None:
    """Act on dead letters and tell; exit code 1 if one of them was not done."""
    letters, missing = found
    if options["dry_run"]:
        _DEAD_LETTERS.rehearse(output, (shown_id(each.id) for each in letters))
        return
    # All before the first is changed: what goes would move those that are still to be found.
    chosen = list(letters)
    if not options["yes"]:
        _DEAD_LETTERS.ask(verb, [shown_id(each.id) for each in chosen])

    def changes() -> Iterator[DeadLetterChange]:
        yield from (DeadLetterChange(each, DeadResult.MISSING) for each in missing)
        if chosen:
            yield from act(chosen)

    count, failed = _DEAD_LETTERS.tell(output, changes())
    if not output.as_json and count:
        noun = "dead letter" if count == 1 else "dead letters"
        output.say(f"{count - failed} of {count} {noun}: {_DONE[verb]}.", error=True)
    if failed:
        click.get_current_context().exit(1)


@dead.command("list", cls=StargateCommand)
@_filter_options
@click.option("--by-cause", is_flag=True, help="Only how many there are, by topic and error.")
@click.option("--limit", type=click.IntRange(1), help="How many to show at most.")
@json_option
@pass_deployment
def list_(
    deployment: Deployment, by_cause: bool, limit: int | None, as_json: bool, **options: Any
) -> None:
    """List dead letters: the earliest failure of each lane first, without payloads.

    \b
    Examples:
      celery -A shop stargate dead list --by-cause
      celery -A shop stargate dead list --topic orders --error http-404 --older-than 1h
      celery -A shop stargate dead list --json | jq -r .id
    """
    output, letters = deployment.output(as_json=as_json), deployment.dead_letters
    where = _filter(deployment, options)
    if not by_cause:
        found = output.rows(_LETTERS, islice(letters.find(where), limit), "No dead letter matches.")
        if not found and where.error is not None:
            _hint(letters, where.error)
        return
    if where.older_than is not None:
        raise click.UsageError("--by-cause counts all of a cause; leave --older-than out")
    totals = letters.totals(where.topic)
    groups = (each for each in totals.groups if where.error in (None, each.error, each.code))
    output.rows(_GROUPS, islice(groups, limit), "No dead letter matches.")
    if not as_json:
        output.say(
            f"{totals.count} dead letters; {totals.evicted} were let go because there were too "
            f"many, {totals.outdated} because of their age.",
            error=True,
        )


@dead.command("show", cls=StargateCommand)
@click.argument("id", metavar="ID")
@json_option
@pass_deployment
def show(deployment: Deployment, id: str, as_json: bool) -> None:  # noqa: A002  # click's name
    """Show all that is known of a dead letter but its payload.

    \b
    Examples:
      celery -A shop stargate dead show 5e8f0c1e-6a1f-4d0e-9f0a-0c4f6a7b8d9e
      celery -A shop stargate dead show "order-17[3]"
    """
    output = deployment.output(as_json=as_json)
    found = deployment.dead_letters.show(id)
    if not found:
        raise click.ClickException(f"there is no dead letter {id!r}")
    for each in found:
        if as_json:
            output.object(each)
            continue
        fields = msgspec.structs.asdict(each)
        for name in ("first_failed_seconds", "last_failed_seconds"):
            fields[name] = f"{format_duration(fields[name])} ago"
        output.facts(
            (name.removesuffix("_seconds").replace("_", " "), "-" if value is None else str(value))
            for name, value in fields.items()
        )


@dead.command("replay", cls=StargateCommand)
@_choice_options
@pass_deployment
def replay(deployment: Deployment, ids: Sequence[str], as_json: bool, **options: Any) -> None:
    """Send dead letters again, each once.

    Each leaves the dead letters in the step that records its new attempt. If this command is
    killed, run it again: what was replayed is not replayed twice, and nothing is lost.

    \b
    Examples:
      celery -A shop stargate dead replay 5e8f0c1e-6a1f-4d0e-9f0a-0c4f6a7b8d9e
      celery -A shop stargate dead replay --topic orders --error http-404 --all --dry-run
      celery -A shop stargate dead replay --topic orders --all --yes
    """
    letters = deployment.dead_letters
    chosen = _choose(deployment, letters, ids, options)
    _act(deployment.output(as_json=as_json), "Replay", chosen, options, letters.replay)


@dead.command("discard", cls=StargateCommand)
@_choice_options
@pass_deployment
def discard(deployment: Deployment, ids: Sequence[str], as_json: bool, **options: Any) -> None:
    """Delete dead letters for good.

    \b
    Examples:
      celery -A shop stargate dead discard order-17
      celery -A shop stargate dead discard --older-than 3d --all --yes
    """
    letters = deployment.dead_letters
    chosen = _choose(deployment, letters, ids, options)
    _act(deployment.output(as_json=as_json), "Discard", chosen, options, letters.discard)


@dead.command("archive", cls=StargateCommand)
@click.option(
    "--to", "path", required=True, type=click.Path(dir_okay=False), help="A file that is not there."
)
@_choice_options
@pass_deployment
def archive(
    deployment: Deployment, ids: Sequence[str], path: str, as_json: bool, **options: Any
) -> None:
    """Move dead letters into a file, one JSON object a line.

    The file holds their payloads; only you can read it. They leave Redis once they are on the disk.

    \b
    Examples:
      celery -A shop stargate dead archive --topic orders --all --to orders.jsonl
    """
    letters = deployment.dead_letters
    chosen = _choose(deployment, letters, ids, options)

    def move(some: Sequence[Letter]) -> Iterator[DeadLetterChange]:
        # Only now, so that a "no" leaves no file.
        with _new_file(path) as file:

            def write(archived: Iterable[Mapping[str, Any]]) -> None:
                for each in archived:
                    file.write(msgspec.json.encode(each) + b"\n")
                file.flush()
                os.fsync(file.fileno())

            yield from letters.archive(some, write)

    _act(deployment.output(as_json=as_json), "Archive", chosen, options, move)


@contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """Open a new file; remove it again if the block raises before anything is in it."""
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise click.UsageError(f"{path} is there already; name a new file") from None
    with file:
        try:
            yield file
        except BaseException:
            if not file.tell():
                Path(path).unlink()
            raise


@dead.command("restore", cls=StargateCommand)
@click.argument("file", type=InputFile())
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_deployment
def restore(
    deployment: Deployment, file: BinaryIO, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Put archived dead letters back into Redis. It sends nothing; replay does.

    One that is there already stays as it is, so you may repeat it. All lines are checked before the
    first one is put back.

    \b
    Examples:
      celery -A shop stargate dead restore orders.jsonl
    """
    output = deployment.output(as_json=as_json)
    given = _read_archive(file)
    if dry_run:
        if as_json:
            output.object({"restored": 0, "given": len(given)})
        click.echo(f"{len(given)} dead letters; nothing was changed.", err=True)
        return
    if not yes:
        confirm(f"Restore {len(given)} dead letters?")
    restored = 0
    try:
        for begin in range(0, len(given), _LINES):
            restored += deployment.dead_letters.restore(given[begin : begin + _LINES])
    except (RedisError, OSError) as error:
        if as_json:
            output.object({"restored": restored, "given": len(given)})
        raise click.ClickException(
            f"{explain(error)}; at least {restored} of {len(given)} dead letters are back. Run it "
            "again: those stay as they are"
        ) from None
    if as_json:
        output.object({"restored": restored, "given": len(given)})
    else:
        output.say(f"{restored} of {len(given)} dead letters are back.")


def _read_archive(file: BinaryIO) -> list[Any]:
    """Read all lines of an archive, and check them.

    Raises:
        click.UsageError: a line is wrong; it is named.
    """
    given: list[Any] = []
    for number, line in enumerate(file, 1):
        try:
            if line.strip():
                given.append(_read_line(line))
        except ValueError as error:
            name = getattr(file, "name", "standard input")
            raise click.UsageError(
                f"line {number} of {name} is {error}; nothing was restored"
            ) from None
    return given


def _read_line(line: bytes) -> Any:
    try:
        found = msgspec.json.decode(line)
    except UNDECODABLE:
        raise ValueError("not JSON") from None
    check_archived(found)
    return found
