"""``produce``: send messages from the command line, and say what became of them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import click

from celery_stargate.app import Stargate
from celery_stargate.cli.command import Deployment, StargateCommand, json_option, pass_deployment
from celery_stargate.cli.durations import DURATION, format_duration
from celery_stargate.cli.messages import Form, read_messages
from celery_stargate.cli.output import Output
from celery_stargate.cli.standard_input import standard_input
from celery_stargate.errors import InvalidMessage, LaneFull, ProduceError, StoreUnavailable
from celery_stargate.model.message import Message

__all__ = ["produce"]

#: How many messages are on their way together.
_CHUNK = 1000
#: Seconds after which a message is sent although more come.
_WAITS = 1.0
#: How many failures are told in words.
_SHOWN = 10
#: Seconds between two lines of progress.
_EVERY = 0.2

REFUSED, UNKNOWN, INTERRUPTED = 1, 3, 130


class _Tally:
    """What became of the messages so far."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.interrupted = False
        self._began = time.monotonic()

    @property
    def done(self) -> int:
        """How many messages have an outcome."""
        return self.counts.total()

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return max(1e-3, time.monotonic() - self._began)

    @property
    def stored(self) -> int:
        """How many Pulsar has; ``transient`` ones it took, and stored they are not."""
        return sum(self.counts[word] for word in ("stored", "deduplicated", "transient"))

    @property
    def exit_code(self) -> int:
        """0 if all are stored, 3 if of one nobody knows, 1 if one is refused; 130 by Ctrl-C."""
        if self.interrupted:
            return INTERRUPTED
        if self.counts["unknown"]:
            return UNKNOWN
        return REFUSED if self.counts["refused"] else 0

    def fail(self, status: str, reason: str, count: int = 1) -> None:
        """Count failures, and keep the first reasons."""
        self.counts[status] += count
        if len(self.failures) < _SHOWN:
            self.failures.append(f"{status}: {reason}")

    def summary(self) -> dict[str, Any]:
        """Return the documented JSON form."""
        return {
            "stored": self.stored,
            "refused": self.counts["refused"],
            "unknown": self.counts["unknown"],
            "seconds": round(self.seconds, 3),
            "per_second": round(self.done / self.seconds, 1),
            "failures": self.failures,
        }


class _Property(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``NAME=VALUE``."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return name and value.

        Raises:
            click.BadParameter: there is no name, or no value.
        """
        name, separator, rest = value.partition("=")
        if not separator or not name:
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        return name, rest


@click.command("produce", cls=StargateCommand)
@click.argument("payloads", nargs=-1, metavar="[MESSAGE]...")
@click.option("--topic", metavar="NAME", help="Its full name or its name in the settings.")
@click.option("--key", help="The key of all messages.")
@click.option(
    "--property",
    "properties",
    type=_Property(),
    multiple=True,
    metavar="NAME=VALUE",
    help="A property of all messages; may be given several times.",
)
@click.option(
    "--file",
    "files",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    multiple=True,
    help="A file is one message; - is standard input. May be given several times.",
)
@click.option("--lines", is_flag=True, help="Each line of the files is one message.")
@click.option("--json-lines", is_flag=True, help="Each line is a JSON text, or an object.")
@click.option("--timeout", type=DURATION, help="The deadline of each message.")
@click.option("--progress/--no-progress", default=None, help="By default on a terminal.")
@json_option
@pass_deployment
def produce(  # noqa: PLR0913  # click passes each option by its name
    deployment: Deployment,
    payloads: Sequence[str],
    files: Sequence[str],
    topic: str | None,
    timeout: float | None,
    progress: bool | None,
    as_json: bool,
    properties: Sequence[tuple[str, str]],
    **form: Any,
) -> None:
    """Send messages and wait for their receipts.

    Without MESSAGE and --file it reads standard input. An object of --json-lines has a payload,
    and may have key, properties, event_time, deliver_at, deliver_after. A line is sent within
    about a second, so the input may be a stream that does not end.

    \b
    Exit codes: 0 all are stored, 1 some are refused, 2 a wrong argument or message,
    3 of some nobody knows, 130 Ctrl-C.

    \b
    Examples:
      celery -A shop stargate produce hello --topic orders --key customer-7
      celery -A shop stargate produce --file order.json --property source=shell
      celery -A shop stargate produce --lines --file orders.txt
      tail -f orders.txt | celery -A shop stargate produce --lines
      jq -c '{payload: tojson, key: .id}' orders.json | \\
        celery -A shop stargate produce --json-lines
    """
    if form["lines"] and form["json_lines"]:
        raise click.UsageError("give --lines or --json-lines, not both")
    chosen = Form(properties=dict(properties), **form)
    output = deployment.output(as_json=as_json)
    stargate = deployment.stargate
    if not payloads and not files:
        files = ("-",)
    shows = (sys.stderr.isatty() if progress is None else progress) and not as_json
    tally = _Tally()
    try:
        with ExitStack() as opened:
            sources = [(_name(path), _open(path, opened)) for path in files]
            messages = read_messages(payloads, sources, chosen)
            _send(stargate, messages, topic, timeout, tally, _Progress(output, shows))
    except InvalidMessage as error:
        raise click.UsageError(f"{error}; {tally.stored} messages before it were sent") from None
    except KeyboardInterrupt:
        tally.interrupted = True
    finally:
        stargate.close()
    _tell(output, tally)
    click.get_current_context().exit(tally.exit_code)


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _open(path: str, opened: ExitStack) -> BinaryIO:
    if path == "-":
        return standard_input("MESSAGE or --file")
    return opened.enter_context(Path(path).open("rb"))


class _Progress:
    """One line on standard error, written over and over."""

    def __init__(self, output: Output, shows: bool) -> None:
        self._output = output
        self._shows = shows
        self._last = 0.0

    def tell(self, tally: _Tally, in_flight: int, *, last: bool = False) -> None:
        """Tell how far it is, a few times a second."""
        now = time.monotonic()
        if not self._shows or (now - self._last < _EVERY and not last):
            return
        self._last = now
        rate = tally.done / tally.seconds
        line = f"{tally.done} done, {in_flight} in flight, {rate:.0f}/s"
        click.echo(f"\r{line:<60}", err=True, nl=last)


def _send(
    stargate: Stargate,
    messages: Iterator[Message | None],
    topic: str | None,
    timeout: float | None,
    tally: _Tally,
    progress: _Progress,
) -> None:
    """Send in chunks, and count what became of each message.

    Raises:
        InvalidMessage: a message cannot be published; its chunk was not sent.
        ConfigurationError: a setting is wrong.
    """
    for chunk in _chunks(messages):
        progress.tell(tally, len(chunk))
        try:
            receipts = stargate.produce_many(chunk, topic=topic, timeout=timeout)
        except ProduceError as error:
            for outcome in error.failure.get("outcomes") or [error.failure]:
                status, reason = outcome["status"], outcome.get("reason")
                if reason is None:
                    tally.counts[status] += 1
                else:
                    tally.fail(status, reason)
        except LaneFull as error:
            tally.fail("refused", str(error), len(chunk))
        except StoreUnavailable as error:
            tally.fail("unknown", str(error), len(chunk))
            # The next ones would fare no better.
            break
        except KeyboardInterrupt:
            tally.fail("unknown", "interrupted while it waited for receipts", len(chunk))
            raise
        else:
            tally.counts.update(receipt.status for receipt in receipts)
    progress.tell(tally, 0, last=True)


def _chunks(
    messages: Iterator[Message | None], clock: Callable[[], float] = time.monotonic
) -> Iterator[list[Message]]:
    """Yield messages that are sent together: many, or those that are there.

    Arguments:
        messages: None stands where no more comes for now.
        clock: the time, in seconds.
    """
    chunk: list[Message] = []
    began = 0.0
    for message in messages:
        if message is not None:
            if not chunk:
                began = clock()
            chunk.append(message)
        full = len(chunk) >= _CHUNK or clock() - began >= _WAITS
        if chunk and (message is None or full):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _tell(output: Output, tally: _Tally) -> None:
    if tally.interrupted:
        text = f"Interrupted: what came after the first {tally.done} messages was not sent."
        output.say(text, "red", error=True)
    if output.as_json:
        output.object(tally.summary())
        return
    for failure in tally.failures:
        output.say(failure, "red", error=True)
    rate = tally.done / tally.seconds
    output.say(
        f"{tally.stored} stored, {tally.counts['refused']} refused, "
        f"{tally.counts['unknown']} unknown in {format_duration(tally.seconds)} ({rate:.0f}/s)",
        "green" if tally.exit_code == 0 else "red",
    )
