"""What all commands share: errors in one sentence, with an exit code that tells their kind."""

from __future__ import annotations

import errno

import click
import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_stargate import ConfigurationError, InvalidMessage, StargateError, StoreUnavailable
from celery_stargate.cli.command import Deployment, StargateCommand


def ran(error: BaseException) -> Result:
    """Run a command that raises an error."""

    @click.command(cls=StargateCommand)
    def broken() -> None:
        raise error

    return CliRunner().invoke(broken)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigurationError("stargate_url is not set"), 2, "stargate_url is not set"),
        (InvalidMessage("it is empty"), 2, "it is empty"),
        (StoreUnavailable("Redis is away"), 1, "Redis is away"),
        (StargateError("it went wrong"), 1, "it went wrong"),
        (RedisConnectionError("refused"), 1, "refused"),
        (FileNotFoundError(errno.ENOENT, "No such file", "orders.json"), 1, "orders.json"),
        (OSError(errno.EADDRINUSE, "Address already in use"), 1, "Address already in use"),
    ],
)
def test_an_error_is_one_sentence(error: Exception, code: int, says: str) -> None:
    """2 for what the user gave or set, 1 for what failed; no traceback."""
    found = ran(error)
    assert isinstance(found.exception, SystemExit)
    assert (found.exit_code, found.stdout) == (code, "")
    last = found.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert says in last


def test_a_reader_that_has_seen_enough_is_told_nothing() -> None:
    """As with ``stargate pending | head``."""
    found = ran(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (found.exit_code, found.stderr) == (1, "")


def test_a_fault_of_ours_is_no_error_of_the_user() -> None:
    """Its traceback is needed to find it."""
    fault = LookupError("a bug")
    assert ran(fault).exception is fault


@pytest.mark.parametrize(("name", "told"), [("default", True), ("shop", False)])
def test_asks_for_an_app_only_where_none_was_given(name: str, told: bool) -> None:
    """Without ``-A`` Celery makes an app of its own, which is named ``default``."""
    context = click.Context(click.Command("doctor"))
    context.obj = CLIContext(app=Celery(name, set_as_current=False), no_color=True, workdir=None)
    with pytest.raises(ConfigurationError, match="has no Stargate") as caught:
        assert Deployment(context).stargate
    assert ("Name the app before the command" in str(caught.value)) is told
