"""`python -m tests.crashpoints`."""

from __future__ import annotations

import sys

from tests.crashpoints.command import main

if __name__ == "__main__":
    sys.exit(main())
