"""Make the pictures of docs/images from running programs: `python -m tools.screens`.

It starts a Redis, a stand-in for Pulsar, a worker and Flower, gives them something to do, and takes
pictures of `celery stargate top` and `lanes` on terminals of 80 and 200 columns (SVG), and of
Flower's pages (PNG, by headless Chromium). Look at what it made before you commit it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from celery_stargate import ProduceError
from celery_stargate.testing import LocalPulsar
from tests.acceptance.rig import WAIT, Rig, Worker, eventually
from tests.acceptance.test_flower import running_flower
from tests.servers.redis import RedisServer

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
_ROOT = IMAGES.parents[1]

#: The sizes of the terminals: columns, lines.
_SIZES = ((80, 14), (200, 14))
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" \
xmlns="http://www.w3.org/2000/svg"><style>.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, \
Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; \
}} {styles}</style><defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" \
width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>{chrome}<g \
transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">\
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def on_terminal(worker: Worker, command: str, size: tuple[int, int], seconds: float) -> str:
    """Run a command of `celery stargate` on a terminal; return what it wrote.

    Arguments:
        seconds: after which q is pressed.
    """
    columns, lines = size
    words = [sys.executable, "-m", "celery", "-A", "tests.acceptance.app", "stargate", command]
    child, terminal = pty.fork()
    if not child:
        os.chdir(_ROOT)
        os.execve(sys.executable, words, {**worker.env, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    written, end = b"", time.monotonic() + seconds
    pressed = False
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if ready:
            try:
                read = os.read(terminal, 65_536)
            except OSError:
                break
            if not read:
                break
            written += read
        if not pressed and time.monotonic() > end:
            os.write(terminal, b"q")
            pressed = True
    os.waitpid(child, 0)
    os.close(terminal)
    return written.decode()


def last_screen(written: str) -> str:
    """Return what was on the terminal at the end, with its colours."""
    screen = written.rpartition("\x1b[H")[2] if "\x1b[H" in written else written
    screen = re.sub(r"\x1b\[\?[0-9]+[hl]|\x1b\[[JK]", "", screen)
    return screen.replace("\r", "")


def draw(screen: str, columns: int, path: Path) -> None:
    """Write a screen as SVG."""
    console = Console(record=True, width=columns, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(Text.from_ansi(screen.rstrip("\n")), no_wrap=True, crop=True)
    title = f"celery -A shop stargate {path.stem.rpartition('-')[0]}"
    svg = console.export_svg(
        title=title, theme=DIMMED_MONOKAI, code_format=_SVG, unique_id=path.stem
    )
    path.write_text(svg, encoding="utf-8")
    print(path.relative_to(_ROOT))


@contextmanager
def busy(rig: Rig) -> Iterator[None]:
    """Let a caller produce meanwhile."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.02):
            rig.produce.delay("order", topic="orders")
            rig.produce.delay("email", topic="emails")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def screens(rig: Rig, local: LocalPulsar, worker: Worker) -> None:
    """Draw `top` and `lanes`: a busy topic, one that Pulsar does not answer, and one paused."""
    rig.produce.delay("order", topic="orders").get(timeout=WAIT)
    env = {**worker.env}
    pause = [sys.executable, "-m", "celery", "-A", "tests.acceptance.app", "stargate", "pause"]
    rig.produce.delay("paused", topic="invoices").get(timeout=WAIT)
    subprocess.run([*pause, "invoices", "--yes"], env=env, cwd=_ROOT, check=True)
    local.faults.hold_receipts()
    for number in range(40):
        rig.produce.delay(str(number), topic="invoices")
    with busy(rig):
        time.sleep(2.0)
        for size in _SIZES:
            for command, seconds in (("top", 10.0), ("lanes", 30.0)):
                written = on_terminal(worker, command, size, seconds)
                draw(last_screen(written), size[0], IMAGES / f"{command}-{size[0]}.svg")
        local.faults.release_receipts()
        local.faults.clear()
    eventually(lambda: rig.pending(rig.topic_of("orders")) == 0)


def photograph(url: str, path: Path, size: tuple[int, int]) -> None:
    """Take a picture of a page."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("chromium is not installed")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"),
            *("--virtual-time-budget=8000", f"--screenshot={path}", url),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=90)
    # Few colours make a small file.
    picture: Any = Image.open(path)
    picture.convert("RGB").quantize(200).save(path, optimize=True)
    print(path.relative_to(_ROOT), path.stat().st_size, "bytes")


def pages(rig: Rig, worker: Worker) -> None:
    """Photograph Flower, which has seen tasks of every kind."""
    key = rig.key()
    with running_flower(rig, worker) as flower:
        results = [
            rig.produce.delay(f"order {number}", topic="orders", on_ack=rig.record(key))
            for number in range(3)
        ]
        failed = rig.produce.delay("bad", topic="emails")
        late = rig.produce.apply_async(("late",), {"topic": "emails"}, countdown=0.6, expires=0.3)
        rig.recorded(key, 3)
        try:
            failed.get(timeout=WAIT)
        except ProduceError:
            flower.task(failed.id, "FAILURE")
        flower.task(late.id, "REVOKED")
        flower.task(results[-1].id, "SUCCESS")
        photograph(f"{flower.url}/tasks", IMAGES / "flower-tasks.png", (1400, 720))
        photograph(f"{flower.url}/task/{results[0].id}", IMAGES / "flower-task.png", (1300, 760))


def main() -> int:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("flower", "terminal"))
    only = parser.parse_args().only
    IMAGES.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(RedisServer(folder / "redis"))
        local = stack.enter_context(LocalPulsar())
        topics = {
            name: f"persistent://public/default/{name}" for name in ("orders", "emails", "invoices")
        }
        conf = {"stargate_topics": topics, "stargate_topic": "orders", "stargate_lease": 10.0}
        made = Rig(local.url, cast("Any", None), server.url, folder, conf)
        rig = stack.enter_context(made)
        worker = stack.enter_context(rig.worker(args=["-E"]))
        if only != "flower":
            screens(rig, local, worker)
        if only != "terminal":
            local.faults.fail_sends(
                "org.apache.pulsar.client.api.PulsarClientException$InvalidMessageException: bad",
                when=lambda frame: frame.payload == b"bad",
            )
            pages(rig, worker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
