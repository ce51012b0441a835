"""``exporter``: metrics for Prometheus, without a worker."""

from __future__ import annotations

import signal

import click

from celery_stargate.cli.command import Deployment, StargateCommand, pass_deployment
from celery_stargate.support.stop_event import StopEvent

__all__ = ["exporter"]


@click.command("exporter", cls=StargateCommand)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=9810, show_default=True)
@click.option(
    "--max-topics",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="How many topics get a label of their own.",
)
@click.option("--once", is_flag=True, help="Print the metrics and end.")
@pass_deployment
def exporter(deployment: Deployment, host: str, port: int, max_topics: int, once: bool) -> None:
    """Serve metrics of the lanes for Prometheus, read from Redis at each scrape.

    It needs the extra "prometheus", and no worker. It ends on SIGTERM and on Ctrl-C.

    \b
    Examples:
      celery -A shop stargate exporter --host 0.0.0.0 --port 9810
      celery -A shop stargate exporter --once
    """
    try:
        # An extra: imported only by who has it.
        from prometheus_client import (  # noqa: PLC0415
            CollectorRegistry,
            generate_latest,
            start_http_server,
        )

        from celery_stargate.instrumentation.prometheus import LaneCollector  # noqa: PLC0415
    except ImportError:
        raise click.ClickException(
            "prometheus_client is not installed: pip install 'celery-stargate[prometheus]'"
        ) from None
    inspector = deployment.lanes
    registry = CollectorRegistry()
    registry.register(LaneCollector(inspector.lanes_and_workers, max_topics))
    if once:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    ended = StopEvent()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: ended.set())
    server, thread = start_http_server(port, host, registry)
    click.echo(f"Metrics at http://{host}:{server.server_port}/metrics", err=True)
    ended.wait()
    server.shutdown()
    server.server_close()
    thread.join()
