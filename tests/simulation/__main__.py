"""Run seeds: `python -m tests.simulation --seed 17` replays one, with its trace."""

from __future__ import annotations

import sys

from tests.simulation.command import main

if __name__ == "__main__":
    sys.exit(main())
