"""What all commands share: the app behind them, their options, and errors without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from redis.exceptions import RedisError

from celery_stargate.app import Stargate
from celery_stargate.cli.output import Output
from celery_stargate.errors import ConfigurationError, InvalidMessage, StargateError
from celery_stargate.lanes.connections import explain
from celery_stargate.operations.actions import Actions
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.dead_letters import DeadLetters
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.pausing import Pauses
from celery_stargate.operations.reading import LaneReader, reader_of

__all__ = ["Deployment", "StargateCommand", "json_option", "pass_deployment", "topic_option"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
#: The name of the app that Celery makes where no app is given.
_DEFAULT_APP = "default"


class StargateCommand(click.Command):
    """A command that tells errors in one sentence.

    Exit codes: 1 for what failed, 2 for a wrong argument or setting.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ConfigurationError, InvalidMessage) as error:
            raise click.UsageError(str(error)) from None
        except StargateError as error:
            raise click.ClickException(str(error)) from None
        except RedisError as error:
            raise click.ClickException(explain(error)) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                # The reader has seen enough; click ends quietly.
                raise
            raise click.ClickException(str(error)) from None


class Deployment:
    """The app that the commands are about. Settings are read when they are first needed.

    Arguments:
        context: click's, of the ``celery`` command.
    """

    def __init__(self, context: click.Context) -> None:
        self._celery: Any = context.obj

    @property
    def app(self) -> Any:
        """The Celery app."""
        return self._celery.app

    @property
    def stargate(self) -> Stargate:
        """The app's Stargate.

        Raises:
            ConfigurationError: it has none.
        """
        try:
            return Stargate.of(self.app)
        except ConfigurationError as error:
            if self.app.main != _DEFAULT_APP:
                raise
            raise ConfigurationError(
                f"{error}. Name the app before the command: celery -A shop stargate …"
            ) from None

    @property
    def reader(self) -> LaneReader:
        """Reads the app's lanes."""
        return reader_of(self.stargate.runtime)

    @property
    def lanes(self) -> LaneInspector:
        """Answers questions about lanes."""
        return LaneInspector(self.reader)

    @property
    def contexts(self) -> ContextInspector:
        """Answers questions about contexts."""
        return ContextInspector(self.reader)

    @property
    def actions(self) -> Actions:
        """Acts on contexts."""
        stargate = self.stargate
        settings = stargate.settings
        return Actions(
            self.reader,
            stargate.lanes,
            stargate.runtime.effects,
            settings.keyspace,
            settings.dead_letter_rules,
        )

    @property
    def dead_letters(self) -> DeadLetters:
        """Answers questions about dead letters, and replays them."""
        return self.stargate.dead_letters

    @property
    def pauses(self) -> Pauses:
        """Pauses topics."""
        return Pauses(self.reader, self.stargate.settings.keyspace)

    def topic_lanes(self, name: str) -> tuple[str, int]:
        """Return a topic's full name, and how many lanes it has by the settings.

        Raises:
            InvalidMessage: it is malformed.
        """
        topic, options = self.stargate.settings.resolve(name)
        return str(topic), options.lane_count

    def topic(self, name: str | None) -> str | None:
        """Return a topic's full name, for one that the user gave.

        Raises:
            InvalidMessage: it is malformed.
        """
        return None if name is None else str(self.stargate.settings.resolve(name)[0])

    def output(self, *, as_json: bool = False) -> Output:
        """Return what prints for this command."""
        return Output(as_json=as_json, no_color=bool(getattr(self._celery, "no_color", False)))


def pass_deployment(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the deployment as its first argument."""

    @click.pass_context
    def called(context: click.Context, /, *args: Any, **options: Any) -> Any:
        return context.invoke(command, Deployment(context), *args, **options)

    called.__doc__ = command.__doc__
    called.__name__ = command.__name__
    # click collects the options that decorators left on the function.
    called.__dict__.update(command.__dict__)
    return called


def json_option(command: _Command) -> _Command:
    """Give a command the option ``--json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON for programs; docs/commands.md."
    )(command)


def topic_option(command: _Command) -> _Command:
    """Give a command the option ``--topic``."""
    return click.option(
        "--topic",
        metavar="NAME",
        help="Only this topic: its full name or its name in the settings.",
    )(command)
