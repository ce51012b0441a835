"""Build the site into build/site, and check what was built.

A warning of Sphinx is an error: a page in no table of contents, a link to nothing, a docstring
that cannot be read.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys

from tools.site import browser, check
from tools.site.links import ROOT

BUILT = ROOT / "build" / "site"


def main() -> int:
    """Build and check; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--no-browser", action="store_true", help="do not look at the pages")
    arguments = parser.parse_args()
    shutil.rmtree(BUILT, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    doctrees = ROOT / "build" / "doctrees"
    status = subprocess.run(
        [*command, "-E", "-d", str(doctrees), str(ROOT / "docs"), str(BUILT)], check=False
    ).returncode
    if status:
        return status
    found = list(check.problems(BUILT))
    for problem in found:
        print(problem, file=sys.stderr)
    pages = sum(1 for _ in BUILT.rglob("*.html"))
    print(f"{pages} pages are in {BUILT.relative_to(ROOT)}")
    if found:
        return 1
    return 0 if arguments.no_browser else browser.main([])


if __name__ == "__main__":
    sys.exit(main())
