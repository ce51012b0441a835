"""The bootstep that serves a worker's metrics, where ``stargate_metrics_port`` is set."""

from __future__ import annotations

import os
from typing import Any

from celery import bootsteps

from celery_stargate.calls.runtime import Runtime
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.reading import reader_of
from celery_stargate.operations.views import LaneView
from celery_stargate.support.log import logger_of
from celery_stargate.support.processes import name_prefix

__all__ = ["MetricsStep"]

logger = logger_of(__name__)


class MetricsStep(bootsteps.StartStopStep):
    """Count in this worker, and serve the counts. ``prometheus_client`` is loaded only for that."""

    requires = ("celery.worker.components:Pool",)
    label = "Stargate metrics"

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._port = Runtime.of(parent.app).settings.metrics_port
        self._metrics: Any = None
        self._registry: Any = None
        self._server: Any = None
        self.enabled = self._port > 0

    def create(self, parent: Any) -> Any:
        """Begin to count, before the pool forks: its children count too, in multiprocess mode."""
        try:
            # An extra: imported only by who has it.
            from prometheus_client import CollectorRegistry  # noqa: PLC0415

            from celery_stargate.instrumentation.counting import instrument  # noqa: PLC0415
        except ImportError:
            logger.error(
                "stargate_metrics_port is set, and prometheus_client is not installed: pip install "
                "'celery-stargate[prometheus]'. The worker serves no metrics"
            )
            return super().create(parent)
        self._registry = CollectorRegistry()
        self._metrics = instrument(self._registry)
        return super().create(parent)

    def start(self, parent: Any) -> None:
        """Serve the metrics; where that is not possible, log why and go on without."""
        if self._metrics is None:
            return
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

        from celery_stargate.instrumentation.prometheus import OwnedCollector  # noqa: PLC0415

        served = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            served = CollectorRegistry()
            served.register(self._metrics.flush_first)
            MultiProcessCollector(served)  # type: ignore[no-untyped-call]  # it has no types
        served.register(OwnedCollector(lambda: _owned_here(parent.app)))
        settings = Runtime.of(parent.app).settings
        try:
            self._server, _ = start_http_server(self._port, settings.metrics_host, served)
        except OSError as error:
            logger.error(
                "metrics cannot be served at %s:%d: %s. Give each worker of a machine its own "
                "stargate_metrics_port",
                *(settings.metrics_host, self._port, error),
            )

    def stop(self, parent: Any) -> None:
        """Serve and count nothing more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._metrics is not None:
            self._metrics.remove()
            self._metrics = None

    terminate = stop


def _owned_here(app: Any) -> list[LaneView]:
    """Return the lanes that this process owns."""
    prefix = name_prefix()
    lanes = LaneInspector(reader_of(Runtime.of(app))).lanes()
    return [lane for lane in lanes if lane.owner is not None and lane.owner.startswith(prefix)]
