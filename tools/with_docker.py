"""Run a command beside a Docker engine that has the tests' images.

`python -m tools.with_docker CMD …` uses the engine that answers, or starts `dockerd` and ends it
afterwards; makes the images (`tools/images.py`); and hands their names over by the variables
`STARGATE_TEST_IMAGE_…`. With `STARGATE_TEST_IMAGES=public` the public images are used. Where this
machine can do neither, the command runs without them and its tests skip; where `CI` is set, that
is an error.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import docker
from docker.errors import DockerException

from tests.servers.process import ServerError, ServerProcess
from tools.images import ImageError, Images, connect, missing_reason
from tools.with_servers import run

_PUBLIC = os.environ.get("STARGATE_TEST_IMAGES") == "public"
#: Seconds until a started engine answers.
_START_TIMEOUT = 60.0
#: Seconds for it to end its containers and itself.
_STOP_TIMEOUT = 30.0


def _answers() -> bool:
    try:
        connect().close()
    except DockerException:
        return False
    return True


@contextmanager
def engine(data: Path) -> Iterator[docker.DockerClient]:
    """Give a client of the engine that answers, or of one that runs as long as this.

    Args:
        data: gets the engine's log. Its images stay where the engine has them by default, so that
            the next run finds them.

    Raises:
        ServerError: no engine answers, and none can be started.
    """
    with ExitStack() as running:
        if not _answers():
            if os.environ.get("DOCKER_HOST"):
                raise ServerError("the Docker engine that DOCKER_HOST names does not answer")
            program = shutil.which("dockerd")
            if program is None:
                raise ServerError("no Docker engine answers; install: apt-get install docker.io")
            if os.geteuid() != 0:
                raise ServerError("no Docker engine answers, and only root can start dockerd")
            process = ServerProcess("dockerd", [program], log_path=data / "dockerd.log")
            began = time.monotonic()
            process.start(_answers, timeout=_START_TIMEOUT)
            running.callback(process.stop, timeout=_STOP_TIMEOUT)
            print(f"dockerd: ready in {time.monotonic() - began:.1f} s", flush=True)
        client = connect()
        running.callback(client.close)
        yield client


def make_images(running: ExitStack) -> dict[str, str]:
    """Make the images in an engine that runs until `running` is closed; return their variables.

    Raises:
        ServerError, ImageError, DockerException: they cannot be had here; the text says why.
    """
    reason = missing_reason(public=_PUBLIC)
    if reason is not None:
        raise ImageError(reason)
    data = running.enter_context(tempfile.TemporaryDirectory(prefix="stargate-docker-"))
    client = running.enter_context(engine(Path(data)))
    return Images(client, public=_PUBLIC).make()


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main(command: list[str]) -> int:
    """Make the images, run the command, end what was started."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    with ExitStack() as running:
        try:
            environment = make_images(running)
        except (ServerError, ImageError, DockerException) as error:
            if os.environ.get("CI"):
                print(f"containers cannot run here, and CI is set: {error}", file=sys.stderr)
                return 1
            print(f"containers: NOT AVAILABLE, their tests are skipped: {error}", flush=True)
            environment = {}
        return run(command, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
