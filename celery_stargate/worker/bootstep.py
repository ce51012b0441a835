"""The bootstep: each producer worker runs the acknowledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.worker import state
from click import Option

import celery_stargate.worker.control  # noqa: F401  # registers the commands of remote control
from celery_stargate.acknowledger import Acknowledger
from celery_stargate.calls.peers import Peers, PeersThread, peer_of
from celery_stargate.calls.runtime import Runtime
from celery_stargate.model.context import is_among
from celery_stargate.worker.events import TaskEvents
from celery_stargate.worker.revoking import ControlStep
from celery_stargate.worker.started import StartsStep

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["StargateStep", "install"]


def install(app: Celery) -> None:
    """Give an app's workers the bootstep and the option ``--without-stargate``, once."""
    if StargateStep in app.steps["worker"]:
        return
    app.steps["worker"].add(StargateStep)
    app.steps["worker"].add(StartsStep)
    # By its name: Celery imports it in a worker only, and it stands above this module.
    app.steps["worker"].add("celery_stargate.instrumentation.step:MetricsStep")
    app.steps["consumer"].add(ControlStep)
    app.user_options["worker"].add(_Without())


class _Without(Option):
    """``--without-stargate``; equal to any other of itself, so that a set holds it once."""

    def __init__(self) -> None:
        super().__init__(
            ("--without-stargate",),
            is_flag=True,
            default=False,
            help="Do not own lanes: this worker is no producer.",
        )


class StargateStep(bootsteps.StartStopStep):
    """Run the acknowledger in the worker's main process.

    It starts after the pool: nothing of ours exists when the pool's children are forked.
    """

    requires = ("celery.worker.components:Pool",)
    label = "Stargate"

    def __init__(self, parent: Any, without_stargate: bool = False, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._acknowledger: Acknowledger | None = None
        self._peers: PeersThread | None = None
        self._events = TaskEvents(parent.app, lambda: getattr(parent, "consumer", None))
        self.enabled = not without_stargate and Runtime.of(parent.app).settings.worker

    def start(self, parent: Any) -> None:
        """Start owning lanes.

        Raises:
            ConfigurationError: a setting is wrong or missing; the worker does not start.
        """
        Runtime.of(parent.app).settings.require_service()
        self._acknowledger = Acknowledger(
            parent.app,
            hostname=parent.hostname,
            revoked=lambda context: is_among(context, state.revoked),
            on_done=self._events.done,
            done_matters=self._events.wanted,
        )
        self._acknowledger.start()
        runtime = Runtime.of(parent.app)
        peers = PeersThread(
            Peers(
                runtime.outbox.registry,
                runtime.settings.prefix,
                parent.hostname,
                peer_of(parent.app, runtime.settings),
            )
        )
        peers.start()
        self._peers = peers

    def stop(self, parent: Any) -> None:
        """Give the lanes back, after a bounded wait for receipts."""
        self._end_peers()
        if self._acknowledger is not None:
            self._acknowledger.stop()
            self._acknowledger = None

    def terminate(self, parent: Any) -> None:
        """Give the lanes back without waiting for receipts."""
        self._end_peers()
        if self._acknowledger is not None:
            self._acknowledger.stop(timeout=0.0)
            self._acknowledger = None

    def _end_peers(self) -> None:
        if self._peers is not None:
            self._peers.stop()
            self._peers = None

    def info(self, parent: Any) -> dict[str, Any]:  # type: ignore[override]  # Celery merges it
        """Return what ``celery inspect stats`` shows."""
        running = self._acknowledger is not None and self._acknowledger.running
        return {"stargate": {"running": running}}
