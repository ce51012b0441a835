"""How long the state machines run.

``STARGATE_TEST_MACHINE`` holds words: ``x20`` for twenty times as many examples, ``random`` for
others at each run, ``quick`` for no look at a failure beyond the first.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

__all__ = ["chosen_settings"]


def chosen_settings(examples: int, steps: int) -> settings:
    """Return settings for so many examples of so many steps, unless it is told otherwise."""
    words = os.environ.get("STARGATE_TEST_MACHINE", "").split()
    factor = next((float(word[1:]) for word in words if word.startswith("x")), 1.0)
    return settings(
        max_examples=max(1, round(examples * factor)),
        stateful_step_count=steps,
        derandomize="random" not in words,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if "quick" in words else list(Phase),
        report_multiple_bugs=False,
    )
