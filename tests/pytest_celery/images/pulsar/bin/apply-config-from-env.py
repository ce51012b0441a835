#!/usr/bin/env python3
"""Set the names in a configuration file that environment variables of the same name have.

The public image has a program of this name that does the same.
"""

import os
import sys
from pathlib import Path


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        lines = []
        for line in path.read_text().splitlines():
            name, equals, _ = line.partition("=")
            is_set = equals and name in os.environ
            lines.append(f"{name}={os.environ[name]}" if is_set else line)
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
