"""Two versions of the package beside each other: an upgrade, the way back, and no order at all."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.acceptance.rig import HERE, eventually
from tests.faults.registry import Setup, fault
from tests.faults.release import last_release, no_release
from tests.faults.trial import CALLERS, Trial

_WORKERS = 2
#: Texts that each version reads, and payloads that only records of version 2 hold.
_SIZES = (0, 3000)
#: The bound on the wait for what only a newer worker can send, in seconds.
_PATIENCE = 60.0


@fault(
    "rolling-upgrade",
    "workers and then callers of the last release are replaced by those of now, one at a time; "
    "then callers and, when no newer record is left, workers go back",
    strikes=2 * (_WORKERS + CALLERS),
    setup=Setup(
        workers=_WORKERS, old_workers=_WORKERS, old_callers=CALLERS, sizes=_SIZES, while_called=True
    ),
    missing=no_release,
)
def _rolling(trial: Trial, draw: random.Random) -> Iterator[None]:
    steps = [
        *(("worker", number, HERE) for number in range(_WORKERS)),
        *(("caller", number, HERE) for number in range(CALLERS)),
        *(("caller", number, last_release().installation) for number in range(CALLERS)),
        *(("worker", number, last_release().installation) for number in range(_WORKERS)),
    ]
    what, number, installation = steps[trial.struck % len(steps)]
    if what == "caller":
        trial.callers[number].kill_and_follow(installation)
        yield
        return
    if installation is not HERE and trial.newer_records():
        trial.link.release()
        assert eventually(lambda: not trial.newer_records(), _PATIENCE, every=0.05), (
            "records of the newer version stay"
        )
    victim = trial.workers[number]
    victim.terminate()
    yield
    victim.wait_for_end(40.0)
    trial.replace_worker(victim, installation)


@fault(
    "two-versions",
    "one worker and one caller of the last release beside those of now; "
    "a worker is killed with -9, and one of its version starts later",
    setup=Setup(workers=_WORKERS, old_workers=1, old_callers=1, sizes=_SIZES),
    missing=no_release,
)
def _two_versions(trial: Trial, draw: random.Random) -> Iterator[None]:
    victim = draw.choice(trial.workers)
    victim.kill()
    yield
    trial.replace_worker(victim)
