"""How a backlog is drained, the same for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.site import Site, Worker

__all__ = ["WARM_UP", "drain"]

#: Calls before each measurement, with which the worker finds its connections again.
WARM_UP = 20


def drain(
    site: Site,
    worker: Worker,
    call: Callable[[], str],
    count: int,
    wait: Callable[[Sequence[str]], None],
    warm_up: int = WARM_UP,
) -> float:
    """Call while the worker is paused, and return the seconds from its resume to the end.

    Arguments:
        call: makes one call, and returns its task's id.
        wait: returns when the calls of these ids are done, all those that were ever made.
        warm_up: calls before the measurement.
    """
    with worker.awake():
        wait([call() for _ in range(warm_up)])
        worker.pause()
        ids = [call() for _ in range(count)]
        with site.stopwatch() as watch:
            worker.resume()
            wait(ids)
        return watch.seconds
