"""``describe``: one report to paste into a bug report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
import msgspec

from celery_stargate.cli.command import Deployment, StargateCommand, json_option, pass_deployment
from celery_stargate.operations.describe import describe as make_report

__all__ = ["describe"]


@click.command("describe", cls=StargateCommand)
@json_option
@pass_deployment
def describe(deployment: Deployment, as_json: bool) -> None:
    """Show versions, settings, topology and counts in one report, secrets masked.

    \b
    Examples:
      celery -A shop stargate describe
      celery -A shop stargate describe --json > report.json
    """
    output = deployment.output(as_json=as_json)
    stargate = deployment.stargate
    report = make_report(stargate.app, stargate.settings, stargate.runtime.redis, deployment.reader)
    if as_json:
        output.object(report)
        return
    for title, part in msgspec.to_builtins(report).items():
        output.say(f"{title}:", "cyan")
        for line in _lines(part):
            output.say(f"  {line}")


def _lines(part: Any) -> Iterator[str]:
    """Return nested values as indented lines, ``name: value``."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            if isinstance(value, Mapping | list) and value:
                yield f"{name}:"
                yield from (f"  {line}" for line in _lines(value))
            else:
                yield f"{name}: {'-' if value in (None, {}, []) else value}"
    elif isinstance(part, list):
        for each in part:
            first, *rest = _lines(each) if isinstance(each, Mapping) else [str(each)]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield str(part)
