"""``doctor``: find what is set up wrongly."""

from __future__ import annotations

import click

from celery_stargate.cli.command import Deployment, StargateCommand, json_option, pass_deployment
from celery_stargate.cli.output import Output
from celery_stargate.operations.doctor.diagnosis import Diagnosis
from celery_stargate.operations.doctor.finding import Finding, Level, exit_code

__all__ = ["doctor"]

_COLOURS = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "red"}


@click.command("doctor", cls=StargateCommand)
@click.option("--verbose", is_flag=True, help="Show the checks that found nothing, too.")
@json_option
@pass_deployment
def doctor(deployment: Deployment, verbose: bool, as_json: bool) -> None:
    """Check the settings, Celery, Redis, the lanes, Pulsar and each topic in the settings.

    For each finding it says what was found, why it matters, and the line that mends it. It opens
    a producer on each topic for a moment, and writes and deletes some keys in Redis.

    \b
    Exit codes: 0 nothing is wrong, 1 warnings, 2 errors.

    \b
    Examples:
      celery -A shop stargate doctor
      celery -A shop stargate doctor --verbose
      celery -A shop stargate doctor --json | jq 'select(.level == "error")'
    """
    output = deployment.output(as_json=as_json)
    stargate = deployment.stargate
    findings: list[Finding] = []
    for finding in Diagnosis(stargate.app).findings():
        findings.append(finding)
        if as_json:
            output.rows([], [finding], "")
        elif verbose or finding.level is not Level.OK:
            _print(output, finding)
    if not as_json:
        _summarize(output, findings)
    click.get_current_context().exit(exit_code(findings))


def _print(output: Output, finding: Finding) -> None:
    level = output.style(finding.level.value.ljust(7), _COLOURS[finding.level])
    output.say(f"{level}  {finding.check}: {finding.found}")
    if finding.why:
        output.say(f"         why: {finding.why}")
        output.say(f"         fix: {finding.mend}")


def _summarize(output: Output, findings: list[Finding]) -> None:
    counts = {level: sum(1 for each in findings if each.level is level) for level in Level}
    parts = (Level.ERROR, "error"), (Level.WARNING, "warning"), (Level.NOTE, "note")
    levels = ", ".join(_count(counts[level], noun) for level, noun in parts)
    text = f"{_count(len(findings), 'result')}: {levels}"
    worst = next(level for level in (Level.ERROR, Level.WARNING, Level.OK) if counts[level])
    output.say(text, _COLOURS[worst])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
