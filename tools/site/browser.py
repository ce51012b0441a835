"""Look at built pages in a real browser, headless: ``python -m tools.site.browser``.

Pages of each kind are laid out wide in light and narrow in dark, the first page in all four ways.
``--shots FOLDER`` keeps pictures. Without Chromium nothing is looked at; in CI that is an error.
"""

from __future__ import annotations

import argparse
import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NARROW", "WIDE", "chromium", "measure", "problems", "serve"]

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "site"
WIDE, NARROW = 1440, 390
#: What is looked at: a page of each kind.
PAGES = (
    "index.html",
    "tutorial/first_receipt.html",
    "howto/kubernetes.html",
    "reference/api.html",
    "settings.html",
    "architecture.html",
    "explanation/comparison.html",
)
#: The first and the last show most of what can be wrong; the first page has all four.
_LAYOUTS = ((WIDE, False), (WIDE, True), (NARROW, False), (NARROW, True))
#: Written into the page's title by a script, for there is no other way out without a driver.
_PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const wide = [...document.querySelectorAll("article *")].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 &&
    !e.closest(".table-wrapper, pre, figure, .highlight, svg")).slice(0, 3);
  const ink = getComputedStyle(document.body).color;
  const paper = getComputedStyle(document.body).backgroundColor;
  document.documentElement.setAttribute("data-probe", JSON.stringify({
    overflow: document.documentElement.scrollWidth - innerWidth,
    wide: wide.map(e => e.tagName + "." + e.className),
    ink, paper,
    searched: document.querySelectorAll("#search-results li").length,
    copies: document.querySelectorAll("button.copybtn").length,
  }));
}, 700));
</script>
"""


def chromium() -> str | None:
    """Return the path of the browser, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serve the pages with the probe in each."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
        """Say nothing."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix != ".html" or not path.is_file():
            super().do_GET()
            return
        body = path.read_text("utf-8").replace("</head>", f"{_PROBE}</head>", 1).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(built: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; give its address."""
    handler = functools.partial(_Handler, directory=str(built))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _run(browser: str, url: str, width: int, *, dark: bool, more: tuple[str, ...]) -> str:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={profile}",
            f"--window-size={width},1000",
            "--virtual-time-budget=4000",
            *(("--blink-settings=preferredColorScheme=0",) if dark else ()),
            *more,
            url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{browser} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def measure(browser: str, url: str, width: int, *, dark: bool) -> dict[str, object]:
    """Lay out a page and return what the probe saw."""
    text = _run(browser, url, width, dark=dark, more=("--dump-dom",))
    found = re.search(r'data-probe="([^"]*)"', text)
    if found is None:
        raise RuntimeError(f"{url} did not load")
    seen: dict[str, object] = json.loads(html.unescape(found[1]))
    return seen


def _brightness(colour: object) -> float:
    numbers = [float(each) for each in re.findall(r"[\d.]+", str(colour))[:3]]
    return sum(numbers) / 3


def problems(browser: str, built: Path) -> Iterator[str]:
    """Return what does not look right."""
    with serve(built) as address:
        for page in PAGES:
            if not (built / page).is_file():
                yield f"{page} is missing"
                continue
            for width, dark in _LAYOUTS if page == PAGES[0] else (_LAYOUTS[0], _LAYOUTS[-1]):
                seen = measure(browser, f"{address}/{page}", width, dark=dark)
                what = f"{page} at {width} px, {'dark' if dark else 'light'}"
                if int(str(seen["overflow"])) > 0:
                    yield f"{what}: the page is {seen['overflow']} px too wide: {seen['wide']}"
                ink, paper = _brightness(seen["ink"]), _brightness(seen["paper"])
                if (ink < paper) == dark or abs(ink - paper) < 100:
                    yield f"{what}: the text is {seen['ink']} on {seen['paper']}"
        seen = measure(browser, f"{address}/search.html?q=receipt", WIDE, dark=False)
        if not seen["searched"]:
            yield "the search finds nothing for 'receipt'"
        seen = measure(browser, f"{address}/tutorial/first_receipt.html", WIDE, dark=False)
        if not seen["copies"]:
            yield "the tutorial has no copy buttons"


def shots(browser: str, built: Path, folder: Path) -> None:
    """Keep pictures of the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    with serve(built) as address:
        for page in PAGES:
            for width, dark in _LAYOUTS:
                theme = "dark" if dark else "light"
                name = f"{page.removesuffix('.html').replace('/', '-')}-{width}-{theme}"
                target = folder / f"{name}.png"
                _run(
                    browser, f"{address}/{page}", width, dark=dark, more=(f"--screenshot={target}",)
                )


def main(arguments_given: list[str] | None = None) -> int:
    """Look at the pages; 1 if one does not look right."""
    parser = argparse.ArgumentParser(prog="python -m tools.site.browser", description=__doc__)
    parser.add_argument("--shots", type=Path, help="keep pictures in this folder")
    arguments = parser.parse_args(arguments_given)
    browser = chromium()
    if browser is None:
        print("there is no Chromium: nothing was looked at")
        return 1 if os.environ.get("CI") else 0
    if arguments.shots:
        shots(browser, BUILT, arguments.shots)
    found = list(problems(browser, BUILT))
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print(f"{len(PAGES)} pages look right, wide and narrow, in light and in dark")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
