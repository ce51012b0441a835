"""What metrics and traces cost a drain: `python -m benchmarks.instrumented`. About two minutes.

All are measured in one run, in rounds, side by side: one worker each, in a world of its own. The
exporter of spans drops them, so what a real one costs comes on top. On a busy machine the time of
a drain says more of other work than of this one; the CPU that the worker had meanwhile does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from celery_stargate import produce_task

from .bounded import bounded, end_on_sigterm, tell
from .payload import PAYLOAD
from .rivals.drain import WARM_UP, drain
from .site import Site
from .tracing import traced

#: The drain with metrics and traces, as a part of the one without.
AIM = 0.9
_TIME = 900


@dataclass(frozen=True)
class Variant:
    """What is switched on."""

    name: str
    metrics: bool = False
    #: Which part of the traces is sampled; None for no traces.
    traces: float | None = None


VARIANTS = (
    Variant("plain"),
    Variant("metrics", metrics=True),
    Variant("metrics-traces-10%", metrics=True, traces=0.1),
    Variant("metrics-traces-100%", metrics=True, traces=1.0),
)


class World:
    """One variant: its worker, and what it took in each round."""

    def __init__(self, site: Site, variant: Variant) -> None:
        self.variant = variant
        self._site = site
        name = variant.name.replace("%", "")
        self._config = replace(
            site.config.below(name), metrics=variant.metrics, traces=variant.traces
        )
        self._worker = site.worker(name, "-P", "prefork", "-c", "2", config=self._config)
        self.rates: list[float] = []
        #: Seconds of the worker's CPU for each message, during the drain, and with what is done
        #: when nothing is to be sent; of every run, the first does not count.
        self.drain_cpu: list[float] = []
        self.cpu: list[float] = []

    def run(self, count: int) -> float:
        """Drain so many messages, and return how many a second."""
        before = begun = ended = self._cpu()
        calls = 0
        with self._traced(), self._site.caller(self._config) as app:
            produce = app.tasks[produce_task.name]
            results = self._site.results(self._worker, app)

            def call() -> str:
                nonlocal begun, calls
                context = str(produce.delay(PAYLOAD).id)
                calls += 1
                if calls == WARM_UP + count:
                    # It is paused meanwhile.
                    begun = self._cpu()
                return context

            def wait(ids: Sequence[str]) -> None:
                nonlocal ended
                results.wait(ids)
                ended = self._cpu()

            seconds = drain(self._site, self._worker, call, count, wait)
            results.require_success()
        self.drain_cpu.append((ended - begun) / count)
        self.cpu.append((self._cpu() - before) / count)
        return count / seconds

    def _cpu(self) -> float:
        """Return the seconds of CPU that the threads of the worker's main process have had."""
        threads = Path(f"/proc/{self._worker.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in threads) / 1e9

    @contextmanager
    def _traced(self) -> Iterator[None]:
        """Trace in this process, too: its calls begin the traces."""
        ratio = self.variant.traces
        with nullcontext() if ratio is None else traced(ratio):
            yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table; 1 if the aim was missed with all traces sampled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instrumented", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=4000, help="messages of a drain (4000)")
    options = parser.parse_args(arguments)
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        site = running.enter_context(Site())
        worlds = [World(site, variant) for variant in VARIANTS]
        for world in worlds:
            world.run(options.count // 10)
        for number in range(options.rounds):
            first = number % len(worlds)
            for world in (*worlds[first:], *worlds[:first]):
                world.rates.append(world.run(options.count))
                tell(f"round {number + 1}: {world.variant.name}: {world.rates[-1]:,.0f}/s")
    plain = worlds[0].rates
    print(
        "| Drain | messages a second | of plain (lowest … highest) | CPU of the drain, µs | "
        "plain's CPU, of it (lowest … highest) | CPU of all, µs |\n|---|---|---|---|---|---|"
    )
    for world in worlds:
        ratios = [rate / base for rate, base in zip(world.rates, plain, strict=True)]
        of_plain = zip(worlds[0].drain_cpu[1:], world.drain_cpu[1:], strict=True)
        shares = [base / each for base, each in of_plain]
        print(
            f"| {world.variant.name} | {median(world.rates):,.0f} | {_spread(ratios)} | "
            f"{median(world.drain_cpu[1:]) * 1e6:.0f} | {_spread(shares)} | "
            f"{median(world.cpu[1:]) * 1e6:.0f} |"
        )
    return int(median(ratios) < AIM)


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
