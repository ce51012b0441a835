"""``produce --lines`` reads a stream that does not end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from celery_stargate.testing import LocalPulsar
from tests.integration.rig import Reader
from tests.servers.fixtures import ServerAddress

_PROGRAM = """
import sys
from celery import Celery
from celery.bin.base import CLIContext
from celery_stargate import Stargate
from celery_stargate.cli.main import stargate
redis, pulsar, prefix, topic = sys.argv[1:]
app = Celery("shop", broker=redis, backend=redis)
app.conf.update(stargate_url=pulsar, stargate_prefix=prefix, stargate_topic=topic)
Stargate(app)
stargate(["produce", "--lines"], obj=CLIContext(app=app, no_color=True, workdir=None))
"""


@pytest.mark.parametrize("ends", [True, False])
def test_lines_are_sent_when_they_come(
    redis_server: ServerAddress, local: LocalPulsar, prefix: str, topic: str, ends: bool
) -> None:
    """At the end of the stream or at Ctrl-C it says what it has sent."""
    arguments = [sys.executable, "-c", _PROGRAM, redis_server.url, local.url, prefix, topic]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with (
        subprocess.Popen(arguments, **pipes) as process,  # type: ignore[call-overload]
        Reader(local.url, topic) as reader,
    ):
        try:
            for line in (b"one", b"two"):
                process.stdin.write(line + b"\n")
                process.stdin.flush()
                assert reader.next()["payload"] == line
            if not ends:
                process.stdin.write(b"no line yet")
                process.stdin.flush()
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    stored, refused, unknown = map(int, re.findall(rb"(\d+) (?:stored|refused|unknown)", out))
    assert (stored + unknown, refused) == (2, 0)
    if ends:
        assert (process.returncode, err, unknown) == (0, b"", 0)
    else:
        # The receipt of the last one may still have been on its way.
        assert process.returncode == 130
        assert b"what came after the first 2 messages was not sent" in err
