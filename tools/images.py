"""Make the images of the container tests where none can be pulled: `python -m tools.images`.

One tree of Debian packages (`mmdebstrap`) becomes the base image; Pulsar's jars (Maven) and the
worker's Python packages (uv) are fetched on this machine and copied in, so no build needs a
network. An image whose inputs are those of last time is kept. With `--public` only the worker's
image is made, from a public Python image; the others are the public ones, pulled when first used.
Prints the variables by which `tests/pytest_celery` finds the images.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import docker
from docker.errors import ImageNotFound

from tests.servers import pulsar

_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = _ROOT / "tests" / "pytest_celery" / "images"

#: Stands before the names of our images.
_REPOSITORY = "celery-stargate-tests"
#: The hash of what an image was made of.
_LABEL = "celery-stargate.inputs"

_SUITE = "bookworm"
_PACKAGES = ("openjdk-17-jre-headless", "python3", "rabbitmq-server", "redis-server", "tzdata")

#: Seconds.
_DEBIAN_TIMEOUT = 600.0
_PYTHON_TIMEOUT = 300.0
#: Seconds that the engine may stay silent.
_ENGINE_TIMEOUT = 300

_VARIABLE = "STARGATE_TEST_IMAGE_"
_PUBLIC = {
    "PULSAR": f"apachepulsar/pulsar:{pulsar.VERSION}",
    "REDIS": "redis:7",
    "RABBITMQ": "rabbitmq:4",
}
_PUBLIC_PYTHON = "python:3.12-slim"


class ImageError(RuntimeError):
    """An image could not be made; the text says why."""


def missing_reason(*, public: bool) -> str | None:
    """Return why this machine cannot make the images, with what to do; None where it can."""
    wanted = ("uv",) if public else ("uv", "mmdebstrap")
    for program in wanted:
        if shutil.which(program) is None:
            how = "pip install uv" if program == "uv" else f"apt-get install {program}"
            return f"{program} not found on PATH; install with: {how}"
    return None if public else pulsar.missing_reason()


class Images:
    """Makes images with one Docker engine.

    Args:
        engine: the client of the engine.
        public: use the public images where there are some.
    """

    def __init__(self, engine: docker.DockerClient, *, public: bool = False) -> None:
        self._engine = engine
        self._public = public

    def make(self) -> dict[str, str]:
        """Make what is missing; return the variables that name the images.

        Raises:
            ImageError: a program failed or took too long.
            docker.errors.DockerException: the engine failed.
            tests.servers.ServerError: Pulsar's jars could not be had.
        """
        if self._public:
            names = {**_PUBLIC, "WORKER": self._worker(_PUBLIC_PYTHON)}
        else:
            base = self._debian()
            names = {
                "PULSAR": self._build("pulsar", base, {"lib": pulsar.jars()}),
                "REDIS": self._build("redis", base, {}),
                "RABBITMQ": self._build("rabbitmq", base, {}),
                "WORKER": self._worker(base),
            }
        return {_VARIABLE + name: image for name, image in names.items()}

    def _debian(self) -> str:
        """Import a tree of Debian packages, unless there is one of the same packages."""
        name = f"{_REPOSITORY}/debian:latest"
        inputs = hashlib.sha256(" ".join((_SUITE, *_PACKAGES)).encode()).hexdigest()
        if self._is_made(name, inputs):
            return name
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="stargate-images-") as folder:
            archive = Path(folder) / "debian.tar"
            _run(
                "mmdebstrap",
                *("--quiet", "--variant=apt", f"--include={','.join(_PACKAGES)}"),
                *(_SUITE, str(archive)),
                timeout=_DEBIAN_TIMEOUT,
            )
            repository, _, tag = name.partition(":")
            self._engine.api.import_image(
                str(archive), repository=repository, tag=tag, changes=[f"LABEL {_LABEL}={inputs}"]
            )
        if not self._is_made(name, inputs):
            raise ImageError(f"the engine did not import {name}; its log may say why")
        _say(f"{name}: made in {time.monotonic() - began:.1f} s")
        return name

    def _worker(self, base: str) -> str:
        """Make the worker's image, with packages resolved for the Python of its base."""
        version = self._engine.containers.run(
            base,
            ["python3", "-c", "import platform; print(platform.python_version())"],
            remove=True,
        )
        with tempfile.TemporaryDirectory(prefix="stargate-images-") as folder:
            packages = Path(folder) / "site-packages"
            _run(
                *("uv", "pip", "install", "--quiet", "--target", str(packages)),
                *("--python-version", version.decode().strip()),
                *("--python-platform", f"{platform.machine()}-manylinux_2_28"),
                # pytest-celery asks for the processes in the container with it.
                *("psutil", str(_ROOT)),
                timeout=_PYTHON_TIMEOUT,
            )
            return self._build("worker", base, {"site-packages": packages})

    def _build(self, name: str, base: str, folders: Mapping[str, Path]) -> str:
        """Build `tests/pytest_celery/images/NAME`, with more folders in its context."""
        tag = f"{_REPOSITORY}/{name}:latest"
        files = dict(_files({"": _SOURCES / name, **folders}))
        inputs = hashlib.sha256(self._id_of(base).encode())
        for path in sorted(files):
            inputs.update(path.encode() + b"\0")
            with files[path].open("rb") as file:
                inputs.update(hashlib.file_digest(file, "sha256").digest())
        if self._is_made(tag, inputs.hexdigest()):
            return tag
        began = time.monotonic()
        with tempfile.TemporaryFile() as context:
            _pack(context, files)
            self._engine.images.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                buildargs={"BASE": base},
                labels={_LABEL: inputs.hexdigest()},
                rm=True,
                forcerm=True,
            )
        _say(f"{tag}: made in {time.monotonic() - began:.1f} s")
        return tag

    def _id_of(self, name: str) -> str:
        try:
            return str(self._engine.images.get(name).id)
        except ImageNotFound:
            return name

    def _is_made(self, name: str, inputs: str) -> bool:
        try:
            labels = self._engine.images.get(name).labels
        except ImageNotFound:
            return False
        return bool(labels.get(_LABEL) == inputs)


def _files(folders: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Return the files below some folders, by their path in a context.

    What uv and Python note about themselves is left out: it differs from run to run.
    """
    for prefix, folder in folders.items():
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            noted = path.name in (".lock", "uv_cache.json") or path.suffix == ".pyc"
            if path.is_file() and not noted and inside.parts[0] != "__pycache__":
                yield str(Path(prefix) / inside), path


def _pack(context: IO[bytes], files: Mapping[str, Path]) -> None:
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, path in sorted(files.items()):
            archive.add(path, name)
    context.seek(0)


def _run(*command: str, timeout: float) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except subprocess.CalledProcessError as error:
        raise ImageError(f"{command[0]} failed:\n{error.stdout[-3000:]}") from None
    except subprocess.TimeoutExpired:
        raise ImageError(f"{command[0]} took over {timeout:g} s") from None


def _say(text: str) -> None:
    print(text, flush=True)


def connect() -> docker.DockerClient:
    """Return a client of the engine that the environment names.

    Raises:
        docker.errors.DockerException: there is none, or it does not answer.
    """
    engine = docker.from_env(timeout=_ENGINE_TIMEOUT)
    engine.ping()
    return engine


def main() -> int:
    """Make the images; 1 when this machine cannot."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("--public", action="store_true", help="use the public images")
    options = parser.parse_args()
    reason = missing_reason(public=options.public)
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    engine = connect()
    try:
        made = Images(engine, public=options.public).make()
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        engine.close()
    for name, image in made.items():
        print(f"export {name}={image}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
