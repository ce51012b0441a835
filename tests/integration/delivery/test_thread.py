"""The thread that owns lanes, in a process that forks others."""

from __future__ import annotations

import subprocess
import sys

from celery_stargate.testing import LocalPulsar
from tests.servers.fixtures import ServerAddress

_SCRIPT = """
import sys, threading
from celery import Celery
from celery_stargate import Acknowledger, Stargate, produce_task
redis_url, url, topic, prefix = sys.argv[1:]
app = Celery(broker=redis_url, backend=redis_url)
app.conf.update(stargate_url=url, stargate_topic=topic, stargate_prefix=prefix)
stargate = Stargate(app)
imported = []
def note(event, arguments):
    if event == "import" and threading.current_thread() is not threading.main_thread():
        if arguments[0] not in sys.modules:
            imported.append(arguments[0])
sys.addaudithook(note)
Acknowledger(app).start()
produce_task.delay("1").get(timeout=20)
print(*imported)
"""


def test_it_imports_nothing(
    redis_server: ServerAddress, local: LocalPulsar, topic: str, prefix: str
) -> None:
    """A process that is forked in the middle of an import waits for the end of it for ever."""
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, redis_server.url, local.url, topic, prefix],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert local.payloads(topic) == [b"1"], ended.stderr
    assert ended.stdout == "\n"
